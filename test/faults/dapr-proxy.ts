/**
 * An HTTP proxy before a real daprd that can answer bulk publishes in its place, or after it:
 * failures, half-failed bulks, lost and damaged answers. Everything that no script wants goes
 * through unchanged, so the answers that are not scripted are daprd's own.
 *
 *     const proxy = await startDaprProxy(daprd.endpoint);
 *     proxy.setScript(() => ({ kind: "reset", stores: true }));
 *     ...
 *     proxy.setScript(null);
 *     await proxy.stop();
 *
 * What happens to connections as such is the TCP proxy's business; put one before this one.
 */
import {
  Agent,
  createServer,
  request as send,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { parseBulk } from "../servers/dapr-stand-in-answers.ts";
import type { PublishRequest } from "../servers/dapr-stand-in.ts";

/** What to do with a bulk publish. */
export type ProxyAnswer =
  /** daprd answers, as if there were no proxy; `delayMs` later. */
  | { readonly kind: "pass"; readonly delayMs?: number }
  /** This answer; daprd has the events first where `stores` says so. */
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly stores?: boolean;
      readonly delayMs?: number;
    }
  /** No answer, for as long as the connection stands. */
  | { readonly kind: "hang"; readonly stores: boolean }
  /** The connection is reset instead of an answer. */
  | { readonly kind: "reset"; readonly stores: boolean }
  /** Half an answer: a body that is longer by its header than what comes before the reset. */
  | { readonly kind: "half-answer"; readonly stores: boolean; readonly status: number }
  /**
   * daprd gets the entries that are not listed, and the answer is that of a broker which failed for
   * those listed, or that of `errorCode`. `storesFailed`: daprd gets them all the same.
   */
  | {
      readonly kind: "partial";
      readonly failedIds: readonly string[];
      readonly storesFailed?: boolean;
      readonly errorCode?: string;
    };

/** null = pass. */
export type ProxyScript = (publish: PublishRequest) => ProxyAnswer | null;

export interface DaprProxy {
  readonly port: number;
  /** What DAPR_HTTP_ENDPOINT takes. */
  readonly endpoint: string;
  /** Bulk publishes since the start. */
  readonly publishes: number;
  /** Takes effect with the next request; requests that hang are reset when the script changes. */
  setScript(script: ProxyScript | null): void;
  stop(): Promise<void>;
}

/** Starts the proxy; daprd need not be there yet. While it is not, connections are reset. */
export async function startDaprProxy(endpoint: string): Promise<DaprProxy> {
  const proxy = new HttpProxy(new URL(endpoint));
  await proxy.start();
  return proxy;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

interface Forwarded {
  readonly incoming: IncomingMessage;
  readonly body: Buffer;
}

class HttpProxy implements DaprProxy {
  readonly #target: URL;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #hanging = new Set<ServerResponse>();
  readonly #server: Server;
  #script: ProxyScript | null = null;
  #publishes = 0;
  #port = 0;

  constructor(target: URL) {
    this.#target = target;
    this.#server = createServer((incoming, response) => {
      void this.#handle(incoming, response).catch(() => reset(response));
    });
  }

  get port(): number {
    return this.#port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get publishes(): number {
    return this.#publishes;
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(0, "127.0.0.1", resolve);
    });
    const address: AddressInfo | string | null = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy has no port");
    this.#port = address.port;
  }

  setScript(script: ProxyScript | null): void {
    this.#script = script;
    for (const response of this.#hanging) reset(response);
    this.#hanging.clear();
  }

  async stop(): Promise<void> {
    this.setScript(null);
    this.#agent.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const forwarded = { incoming, body: await wholeBody(incoming) };
    const publish = this.#publishOf(forwarded);
    const answer: ProxyAnswer = (publish === null ? null : this.#script?.(publish)) ?? { kind: "pass" };
    switch (answer.kind) {
      case "pass":
        await pause(answer.delayMs ?? 0);
        return pass(response, await this.#forward(forwarded));
      case "answer": {
        if (answer.stores === true) await this.#forward(forwarded);
        await pause(answer.delayMs ?? 0);
        const headers = { "content-type": "application/json", ...answer.headers };
        return pass(response, { status: answer.status, headers, body: Buffer.from(answer.body ?? "") });
      }
      case "hang":
        this.#hanging.add(response);
        if (answer.stores) await this.#forward(forwarded);
        return;
      case "reset":
        if (answer.stores) await this.#forward(forwarded);
        return reset(response);
      case "half-answer":
        if (answer.stores) await this.#forward(forwarded);
        response.writeHead(answer.status, { "content-type": "application/json", "content-length": "400" });
        // Only after the half was written out: a reset throws away what waits to be sent.
        response.write('{"failedEntries":[', () => reset(response));
        return;
      case "partial":
        return this.#partial(response, forwarded, answer);
    }
  }

  async #partial(
    response: ServerResponse,
    { incoming, body }: Forwarded,
    answer: Extract<ProxyAnswer, { kind: "partial" }>,
  ): Promise<void> {
    const failed = new Set(answer.failedIds);
    const kept = answer.storesFailed === true ? body : withoutEntries(body, failed);
    const real = await this.#forward({ incoming, body: kept });
    // A refusal of the whole request stays; a list of failed entries must name those left out as well.
    const alsoFailed = real.status === 204 ? [] : failedEntriesOf(real.body);
    if (alsoFailed === null || failed.size === 0) return pass(response, real);
    const leftOut = answer.failedIds.map((entryId) => ({ entryId, error: "the broker failed" }));
    const failedEntries = [...leftOut, ...alsoFailed];
    const errorCode = answer.errorCode ?? "ERR_PUBSUB_PUBLISH_MESSAGE";
    const text = JSON.stringify({ failedEntries, errorCode });
    pass(response, { status: 500, headers: { "content-type": "application/json" }, body: Buffer.from(text) });
  }

  #publishOf({ incoming, body }: Forwarded): PublishRequest | null {
    const path = new URL(incoming.url ?? "/", this.endpoint).pathname;
    const topic = /^\/v1\.0(?:-alpha1)?\/publish\/bulk\/[^/]+\/(.+)$/u.exec(path)?.[1];
    if (topic === undefined) return null;
    const parsed = parseBulk(body);
    if (parsed.failure !== null || parsed.entries.length === 0) return null;
    this.#publishes += 1;
    return { number: this.#publishes, topic: decodeURIComponent(topic), entries: parsed.entries };
  }

  #forward({ incoming, body }: Forwarded): Promise<Answer> {
    const headers = { ...incoming.headers, "content-length": String(body.length) };
    // Both hold for one connection only.
    delete headers.connection;
    delete headers["transfer-encoding"];
    return new Promise((resolve, reject) => {
      const request = send(
        new URL(incoming.url ?? "/", this.#target),
        { method: incoming.method, headers, agent: this.#agent, maxHeaderSize: 1024 * 1024 },
        (answer) => {
          wholeBody(answer).then(
            (text) => resolve({ status: answer.statusCode ?? 502, headers: answer.headers, body: text }),
            reject,
          );
        },
      );
      request.on("error", reject);
      request.end(body);
    });
  }
}

function pass(response: ServerResponse, { status, headers, body }: Answer): void {
  const { connection: _one, "transfer-encoding": _other, ...rest } = headers;
  // 204 has no body and must not announce one.
  response.writeHead(status, status === 204 ? rest : { ...rest, "content-length": String(body.length) });
  response.end(body);
}

function reset(response: ServerResponse): void {
  response.socket?.resetAndDestroy();
}

/** null where the answer is not about single entries. */
function failedEntriesOf(body: Buffer): readonly unknown[] | null {
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    if (typeof parsed !== "object" || parsed === null || !("failedEntries" in parsed)) return null;
    return Array.isArray(parsed.failedEntries) ? parsed.failedEntries : null;
  } catch {
    return null;
  }
}

function withoutEntries(body: Buffer, ids: ReadonlySet<string>): Buffer {
  const entries: unknown = JSON.parse(body.toString("utf8"));
  if (!Array.isArray(entries)) return body;
  const idOf = (entry: unknown): unknown =>
    typeof entry === "object" && entry !== null && "entryId" in entry ? entry.entryId : null;
  return Buffer.from(JSON.stringify(entries.filter((entry) => !ids.has(String(idOf(entry))))));
}

async function wholeBody(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function pause(delayMs: number): Promise<void> {
  return delayMs === 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, delayMs));
}
