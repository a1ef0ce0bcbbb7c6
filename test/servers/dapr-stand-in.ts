/**
 * A stand-in for the publish part of the Dapr API, in memory, for two uses: tests that need scripted
 * answers, and a demo on a machine that cannot have daprd (which must say so loudly). It answers as
 * daprd does, message texts aside; dapr-conformance.server.test.ts holds it to that.
 *
 * It is no broker: what it accepted is gone with the process.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Deliveries, type Subscription } from "./dapr-stand-in-delivery.ts";
import {
  answerNoContent,
  failureBody,
  parseBulk,
  type BulkEntry,
  type FailureCode,
} from "./dapr-stand-in-answers.ts";

export interface StandInOptions {
  /** Default: a free port of the kernel's choice. */
  readonly port?: number;
  /** The only pub/sub component there is; default "pubsub". */
  readonly pubsub?: string;
  /** Wanted in the dapr-api-token header; default none. */
  readonly token?: string;
  /** What /v1.0/metadata says; default "1.18.3". Before 1.17 there is no v1.0 bulk publish. */
  readonly runtimeVersion?: string;
  /** false answers /v1.0/metadata with 404, as an API allow-list does. */
  readonly metadataAllowed?: boolean;
  /** Topics that may be published to; default all. */
  readonly allowedTopics?: readonly string[];
  /** Default 4 MiB. */
  readonly bodyBytesMax?: number;
  /** Delivers what was accepted to an app on this loopback port, as daprd does. */
  readonly appPort?: number;
  /** Declarative subscriptions, beside those that the app names at /dapr/subscribe. */
  readonly subscriptions?: readonly Subscription[];
}

/** A publish request as it came. */
export interface PublishRequest {
  /** 1, 2, 3, ... */
  readonly number: number;
  readonly topic: string;
  readonly entries: readonly BulkEntry[];
}

/** What to do with a request instead of answering as daprd would. */
export type ScriptedAnswer =
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly delayMs?: number;
    }
  /** Accepts everything, later. */
  | { readonly kind: "slow"; readonly delayMs: number }
  /** Never answers; the events are stored or not. */
  | { readonly kind: "hang"; readonly stores: boolean }
  /** Cuts the connection; the events were stored or not. */
  | { readonly kind: "reset"; readonly stores: boolean; readonly delayMs?: number }
  /** The broker failed for the listed entries. `storesFailed`: it has them all the same. */
  | {
      readonly kind: "partial";
      readonly failedIds: readonly string[];
      readonly storesFailed?: boolean;
      readonly errorCode?: FailureCode;
    };

export type Script = (request: PublishRequest) => ScriptedAnswer | null;

/** An accepted event, in the order of acceptance. */
export interface Delivered {
  readonly topic: string;
  readonly entryId: string;
  /** The event's text, as published. */
  readonly event: string;
  readonly request: number;
  readonly atMs: number;
}

export interface DaprStandIn {
  readonly port: number;
  readonly endpoint: string;
  readonly delivered: readonly Delivered[];
  readonly requests: number;
  /** null answers as daprd does. */
  setScript(script: Script | null): void;
  setToken(token: string | null): void;
  setAllowedTopics(topics: readonly string[] | null): void;
  /** false: the component is missing. */
  setComponent(present: boolean): void;
  /** Stops listening and cuts all connections, keeping what was delivered. */
  disconnect(): Promise<void>;
  /** Listens again on the same port. */
  reconnect(): Promise<void>;
  stop(): Promise<void>;
}

export async function startDaprStandIn(options: StandInOptions = {}): Promise<DaprStandIn> {
  const standIn = new StandIn(options);
  await standIn.start();
  return standIn;
}

class StandIn implements DaprStandIn {
  readonly delivered: Delivered[] = [];
  readonly #options: StandInOptions;
  readonly #deliveries: Deliveries | null;
  #server: Server | null = null;
  #port = 0;
  #requests = 0;
  #script: Script | null = null;
  #token: string | null;
  #allowedTopics: readonly string[] | null;
  #hasComponent = true;

  constructor(options: StandInOptions) {
    this.#options = options;
    this.#token = options.token ?? null;
    this.#allowedTopics = options.allowedTopics ?? null;
    const { appPort, subscriptions = [] } = options;
    this.#deliveries = appPort === undefined ? null : new Deliveries(appPort, subscriptions);
  }

  get port(): number {
    return this.#port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get requests(): number {
    return this.#requests;
  }

  setScript(script: Script | null): void {
    this.#script = script;
  }

  setToken(token: string | null): void {
    this.#token = token;
  }

  setAllowedTopics(topics: readonly string[] | null): void {
    this.#allowedTopics = topics;
  }

  setComponent(present: boolean): void {
    this.#hasComponent = present;
  }

  async start(): Promise<void> {
    await this.#listen(this.#options.port ?? 0);
    this.#deliveries?.start();
  }

  async disconnect(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  }

  async reconnect(): Promise<void> {
    if (this.#server === null) await this.#listen(this.#port);
  }

  async stop(): Promise<void> {
    await this.disconnect();
    await this.#deliveries?.stop();
  }

  async #listen(port: number): Promise<void> {
    const server = createServer((request, response) => {
      void this.#handle(request, response).catch(() => response.destroy());
    });
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", () => resolve());
    });
    const address: AddressInfo | string | null = server.address();
    if (address === null || typeof address === "string") throw new Error("the stand-in has no port");
    this.#port = address.port;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.endpoint);
    const body = await readBody(request, this.#options.bodyBytesMax ?? 4 * 1024 * 1024);
    const path = url.pathname;
    if (path === "/v1.0/healthz" || path === "/v1.0/healthz/outbound") return answerNoContent(response);
    if (this.#token !== null && request.headers["dapr-api-token"] !== this.#token) {
      return answerText(response, 401, "invalid api token");
    }
    if (path === "/v1.0/metadata" && request.method === "GET") return this.#metadata(response);
    const target = request.method === "POST" || request.method === "PUT" ? this.#targetOf(path) : null;
    if (target === null) return answerFailure(response, 404, "ERR_DIRECT_INVOKE");
    if (target.pubsub !== (this.#options.pubsub ?? "pubsub") || !this.#hasComponent) {
      return answerFailure(response, 404, "ERR_PUBSUB_NOT_FOUND");
    }
    const raw = url.searchParams.get("metadata.rawPayload");
    if (raw !== null && !/^(?:1|t|T|true|TRUE|True|0|f|F|false|FALSE|False)$/u.test(raw)) {
      return answerFailure(response, 400, "ERR_PUBSUB_REQUEST_METADATA");
    }
    if (target.bulk) await this.#bulk(response, target.topic, body);
    else this.#single(response, target.topic, { body, type: request.headers["content-type"], raw });
  }

  #metadata(response: ServerResponse): void {
    if (this.#options.metadataAllowed === false) return answerText(response, 404, "404 page not found");
    const name = this.#options.pubsub ?? "pubsub";
    const components = this.#hasComponent
      ? [{ name, type: "pubsub.in-memory", version: "v1", capabilities: ["SUBSCRIBE_WILDCARDS"] }]
      : [];
    const runtimeVersion = this.#options.runtimeVersion ?? "1.18.3";
    answerJson(response, 200, JSON.stringify({ id: "stand-in", runtimeVersion, components }));
  }

  /** An old Dapr reads /v1.0/publish/bulk/P/T as the component "bulk" and the topic "P/T". */
  #targetOf(path: string): { bulk: boolean; pubsub: string; topic: string } | null {
    const match = /^\/(v1\.0|v1\.0-alpha1)\/publish\/(.+)$/u.exec(path);
    if (match === null) return null;
    const [version = "", rest = ""] = match.slice(1);
    const bulk = /^bulk\/([^/]+)\/(.+)$/u.exec(rest);
    const hasStable = isAtLeast117(this.#options.runtimeVersion ?? "1.18.3");
    if (bulk !== null && (version === "v1.0-alpha1" || hasStable)) {
      return { bulk: true, pubsub: decoded(bulk[1]), topic: decoded(bulk[2]) };
    }
    if (version !== "v1.0") return null;
    const single = /^([^/]+)\/(.*)$/u.exec(rest);
    // Without a topic's own segment the component's name alone is left: daprd looks for it first.
    if (single === null) return rest === "bulk" ? { bulk: false, pubsub: "bulk", topic: "" } : null;
    if (single[2] === "" && single[1] !== "bulk") return null;
    return { bulk: false, pubsub: decoded(single[1]), topic: decoded(single[2]) };
  }

  async #bulk(response: ServerResponse, topic: string, body: Buffer | null): Promise<void> {
    const parsed = body === null ? null : parseBulk(body);
    // Over the limit, not JSON, no array, or an entry that is not well formed: nothing is published.
    if (parsed === null || parsed.failure !== null) {
      const failure = parsed?.failure ?? { status: 400, code: "ERR_PUBSUB_EVENTS_SER" as const };
      return answerFailure(response, failure.status, failure.code, body === null);
    }
    if (!this.#isAllowed(topic)) return answerFailure(response, 403, "ERR_PUBSUB_FORBIDDEN");
    if (parsed.entries.length === 0) return answerNoContent(response);
    const request = { number: ++this.#requests, topic, entries: parsed.entries };
    const answer = this.#script?.(request) ?? null;
    if (answer === null) {
      this.#store(request, request.entries);
      return answerNoContent(response);
    }
    await this.#answerScripted(response, request, answer);
  }

  async #answerScripted(
    response: ServerResponse,
    request: PublishRequest,
    answer: ScriptedAnswer,
  ): Promise<void> {
    switch (answer.kind) {
      case "slow":
        await pause(answer.delayMs);
        this.#store(request, request.entries);
        return answerNoContent(response);
      case "answer":
        await pause(answer.delayMs ?? 0);
        if (answer.status === 204) this.#store(request, request.entries);
        response.writeHead(answer.status, { "content-type": "application/json", ...answer.headers });
        response.end(answer.body ?? "");
        return;
      case "hang":
        if (answer.stores) this.#store(request, request.entries);
        return;
      case "reset":
        if (answer.stores) this.#store(request, request.entries);
        await pause(answer.delayMs ?? 0);
        response.destroy();
        return;
      case "partial": {
        const failed = new Set(answer.failedIds);
        const stored = answer.storesFailed === true ? request.entries : withoutIds(request.entries, failed);
        this.#store(request, stored);
        const failedEntries = answer.failedIds.map((entryId) => ({ entryId, error: "the broker failed" }));
        const errorCode = answer.errorCode ?? "ERR_PUBSUB_PUBLISH_MESSAGE";
        return answerJson(response, 500, JSON.stringify({ failedEntries, errorCode }));
      }
    }
  }

  #single(
    response: ServerResponse,
    topic: string,
    request: { body: Buffer | null; type: string | undefined; raw: string | null },
  ): void {
    const { body, type = "", raw } = request;
    if (body === null) return answerFailure(response, 500, "ERR_PUBSUB_PUBLISH_MESSAGE", true);
    const event = body.toString("utf8");
    const isRaw = raw !== null && /^(?:1|t)/iu.test(raw);
    if (!isRaw && type.startsWith("application/cloudevents+json") && !isJsonObject(event)) {
      return answerFailure(response, 500, "ERR_PUBSUB_CLOUD_EVENTS_SER");
    }
    if (!this.#isAllowed(topic)) return answerFailure(response, 403, "ERR_PUBSUB_FORBIDDEN");
    const number = ++this.#requests;
    this.#store({ number, topic, entries: [] }, [{ entryId: `single-${number}`, event }]);
    answerNoContent(response);
  }

  #isAllowed(topic: string): boolean {
    return this.#allowedTopics === null || this.#allowedTopics.includes(topic);
  }

  #store(request: PublishRequest, entries: readonly BulkEntry[]): void {
    const { topic, number } = request;
    for (const { entryId, event } of entries) {
      this.delivered.push({ topic, entryId, event, request: number, atMs: performance.now() });
      this.#deliveries?.add(topic, event);
    }
  }
}

/** null = over the limit. The rest is read and dropped, so that the client gets its answer. */
async function readBody(request: AsyncIterable<Buffer>, bytesMax: number): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes <= bytesMax) chunks.push(chunk);
  }
  return bytes > bytesMax ? null : Buffer.concat(chunks);
}

function answerFailure(response: ServerResponse, status: number, code: FailureCode, closes = false): void {
  if (closes) response.setHeader("connection", "close");
  answerJson(response, status, failureBody(code));
}

function answerJson(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(body);
}

function answerText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" });
  response.end(`${text}\n`);
}

function withoutIds(entries: readonly BulkEntry[], ids: ReadonlySet<string>): BulkEntry[] {
  return entries.filter((entry) => !ids.has(entry.entryId));
}

function isAtLeast117(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > 1 || (major === 1 && minor >= 17);
}

function isJsonObject(text: string): boolean {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  } catch {
    return false;
  }
}

function decoded(part: string | undefined): string {
  return decodeURIComponent(part ?? "");
}

function pause(delayMs: number): Promise<void> {
  return delayMs === 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, delayMs));
}
