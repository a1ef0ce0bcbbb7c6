/**
 * One HTTP call to the Dapr API -> one PublishOutcome. No policy: what to do with an outcome is the
 * forwarder's business. Never throws for what the network or the API does.
 */
import type { Dispatcher } from "undici";
import type { OutboundEvent } from "../change.ts";
import type { Clock } from "../kernel/service.ts";
import { type Answer, classify, classifyFault, type PublishOutcome } from "./classify.ts";
import { Transport, type TimeLimits, type TlsFiles, defaultTimeLimits } from "./transport.ts";
import { BodyBuffers } from "./body-buffers.ts";
import { Exchanges } from "./exchange.ts";
import { joinBulk } from "./wire.ts";

export interface DaprSettings {
  /** DAPR_HTTP_ENDPOINT, with a path prefix where a gateway wants one. */
  readonly endpoint: string;
  readonly pubsub: string;
  /** The API token as it is now; called again on each 401 and after each lost connection. */
  readonly token: () => string | null;
  readonly tls?: TlsFiles;
  readonly httpsProxy?: string | null;
  readonly noProxy?: string | null;
  readonly limits?: TimeLimits;
}

/** What the forwarder needs of a client; tests put others in its place. */
export interface Publisher {
  /** Publishes the events, key-disjoint and with distinct ids, in one request. Never rejects. */
  publishBulk(topic: string, events: readonly OutboundEvent[]): Promise<PublishOutcome>;
  /** Whether the API answers at all on a fresh connection, within its time limit. */
  reachable(): Promise<boolean>;
  /** Cuts all connections: requests under way end as unavailable. */
  resetConnections(): Promise<void>;
}

type BulkVersion = "v1.0" | "v1.0-alpha1";

const PROBE_TIMEOUT_MS = 2000;

export class DaprClient implements Publisher {
  readonly #settings: DaprSettings;
  readonly #clock: Clock;
  readonly #transport: Transport;
  readonly #bodies = new BodyBuffers();
  readonly #exchanges: Exchanges;
  readonly #limitMs: number;
  readonly #origin: string;
  readonly #prefix: string;
  #version: BulkVersion | null = null;
  #headers: Record<string, string> | null = null;

  constructor(settings: DaprSettings, clock: Clock) {
    this.#settings = settings;
    this.#clock = clock;
    this.#exchanges = new Exchanges(clock);
    const limits = settings.limits ?? defaultTimeLimits;
    this.#limitMs = limits.connectMs + limits.headersMs + limits.bodyMs;
    const endpoint = new URL(settings.endpoint);
    this.#origin = endpoint.origin;
    this.#prefix = endpoint.pathname.replace(/\/+$/u, "");
    this.#transport = new Transport(
      {
        endpoint,
        tls: settings.tls ?? { ca: null, cert: null, key: null },
        httpsProxy: settings.httpsProxy ?? null,
        noProxy: settings.noProxy ?? null,
        limits,
      },
      () => clock.monotonicMs(),
    );
  }

  async publishBulk(topic: string, events: readonly OutboundEvent[]): Promise<PublishOutcome> {
    let outcome: PublishOutcome;
    // The end of one publish, whatever it does.
    const deadlineMs = this.#clock.monotonicMs() + this.#limitMs;
    try {
      const version = this.#version ?? (await this.#chooseVersion(topic, deadlineMs));
      const body = joinBulk(events, (bytes) => this.#bodies.take(bytes));
      const answer = await this.#call("POST", this.#bulkPath(version, topic), body, deadlineMs);
      // Any other answer may come before the body was sent to its end.
      if (answer.status === 204) this.#bodies.giveBack(body);
      outcome = classify(answer, this.#clock.wallMs());
    } catch (thrown) {
      outcome = classifyFault(thrown);
    }
    if (outcome.kind === "unavailable" && outcome.scope === "all") this.#forget();
    return outcome;
  }

  async reachable(): Promise<boolean> {
    let alone: Dispatcher | null = null;
    try {
      alone = this.#transport.alone();
      const { statusCode, body } = await alone.request({
        origin: this.#origin,
        path: `${this.#prefix}/v1.0/healthz`,
        method: "GET",
        signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
      });
      await body.dump();
      return statusCode > 0;
    } catch {
      return false;
    } finally {
      void alone?.destroy().catch(() => undefined);
    }
  }

  /** The API's own facts, for `check` and /health: its version, and whether it knows the component. */
  async describe(): Promise<DaprFacts> {
    return this.#describe(this.#clock.monotonicMs() + this.#limitMs);
  }

  async #describe(deadlineMs: number): Promise<DaprFacts> {
    const answer = await this.#call("GET", "/v1.0/metadata", null, deadlineMs);
    const facts = answer.status === 200 ? parseMetadata(answer.body) : null;
    if (facts === null) return { status: answer.status, runtimeVersion: null, hasComponent: null };
    const hasComponent = facts.components === null ? null : facts.components.includes(this.#settings.pubsub);
    return { status: answer.status, runtimeVersion: facts.runtimeVersion, hasComponent };
  }

  async resetConnections(): Promise<void> {
    await this.#transport.reset();
  }

  /** Releases the connections. */
  async close(): Promise<void> {
    await this.#transport.reset();
  }

  #bulkPath(version: BulkVersion, topic: string): string {
    const pubsub = encodeURIComponent(this.#settings.pubsub);
    return `/${version}/publish/bulk/${pubsub}/${encodeURIComponent(topic)}?metadata.rawPayload=true`;
  }

  /** Whatever was learnt of the other side may be wrong after a failure: token, version, files. */
  #forget(): void {
    this.#version = null;
    this.#headers = null;
    this.#transport.recheckFiles();
  }

  #call(method: "GET" | "POST", path: string, body: Buffer | null, deadlineMs: number): Promise<Answer> {
    const request = {
      origin: this.#origin,
      path: this.#prefix + path,
      method,
      headers: (this.#headers ??= this.#makeHeaders()),
      body,
    };
    return this.#exchanges.run(this.#transport.current(), request, deadlineMs);
  }

  #makeHeaders(): Record<string, string> {
    const headers: Record<string, string> = { "content-type": "application/json" };
    const token = this.#settings.token();
    if (token !== null && token !== "") headers["dapr-api-token"] = token;
    return headers;
  }

  /**
   * Bulk publish left alpha with Dapr 1.17. The runtime's version tells; where it is denied or
   * says something else, an empty bulk is tried, which publishes nothing: an older Dapr reads the
   * v1.0 URL as a component named "bulk" and answers 404.
   */
  async #chooseVersion(topic: string, deadlineMs: number): Promise<BulkVersion> {
    const facts = await this.#describe(deadlineMs);
    const known = facts.runtimeVersion === null ? null : bulkVersionOf(facts.runtimeVersion);
    if (known !== null) {
      this.#version = known;
      return known;
    }
    for (const version of ["v1.0", "v1.0-alpha1"] as const) {
      const answer = await this.#call("POST", this.#bulkPath(version, topic), joinBulk([]), deadlineMs);
      if (answer.status === 401) break;
      if (answer.status !== 404) {
        this.#version = version;
        return version;
      }
    }
    // Neither is there now. The answer to the publish itself says why; the choice stays open.
    return "v1.0";
  }
}

export interface DaprFacts {
  /** Status of the metadata answer: 200, or why there are no facts. */
  readonly status: number;
  readonly runtimeVersion: string | null;
  readonly hasComponent: boolean | null;
}

/** null where the version is not a number, as in "edge" builds. */
export function bulkVersionOf(runtimeVersion: string): BulkVersion | null {
  const parts = /^v?(\d+)\.(\d+)\./u.exec(runtimeVersion);
  if (parts === null) return null;
  const major = Number(parts[1]);
  return major > 1 || (major === 1 && Number(parts[2]) >= 17) ? "v1.0" : "v1.0-alpha1";
}

interface Metadata {
  readonly runtimeVersion: string | null;
  readonly components: readonly string[] | null;
}

function parseMetadata(body: string): Metadata | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return null;
  }
  if (typeof parsed !== "object" || parsed === null) return null;
  const version = "runtimeVersion" in parsed ? parsed.runtimeVersion : null;
  const list: unknown = "components" in parsed ? parsed.components : null;
  return {
    runtimeVersion: typeof version === "string" ? version : null,
    components: Array.isArray(list) ? list.map(nameOf) : null,
  };
}

function nameOf(component: unknown): string {
  if (typeof component !== "object" || component === null || !("name" in component)) return "";
  return typeof component.name === "string" ? component.name : "";
}
