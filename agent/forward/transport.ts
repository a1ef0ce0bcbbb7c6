/**
 * The HTTP connections to the Dapr API: limits, TLS files, proxy. Owns the undici dispatcher and
 * makes a new one when a certificate file changed or when the old connections must not be trusted.
 */
import { readFileSync, statSync } from "node:fs";
import { Agent, EnvHttpProxyAgent, type Dispatcher } from "undici";

export interface TlsFiles {
  readonly ca: string | null;
  readonly cert: string | null;
  readonly key: string | null;
}

export interface TransportSettings {
  readonly endpoint: URL;
  readonly tls: TlsFiles;
  /** HTTPS_PROXY and NO_PROXY as set; null = none. */
  readonly httpsProxy: string | null;
  readonly noProxy: string | null;
  readonly limits: TimeLimits;
}

/** Milliseconds. Each lies above the time limits of the broker component behind the API. */
export interface TimeLimits {
  readonly connectMs: number;
  readonly headersMs: number;
  readonly bodyMs: number;
}

/** Connecting is quick or vain, so that the first try after a cut network's return comes soon.
 * Answers may take long: a broker that is a black hole costs Dapr 15 s with its default settings. */
export const defaultTimeLimits: TimeLimits = { connectMs: 2500, headersMs: 30_000, bodyMs: 30_000 };

/** Dapr copies a failed bulk's whole JSON into a response header: far over undici's default. */
const HEADER_BYTES_MAX = 1024 * 1024;
const CHECK_FILES_EVERY_MS = 10_000;

export class Transport {
  readonly #settings: TransportSettings;
  readonly #nowMs: () => number;
  #dispatcher: Dispatcher | null = null;
  #stamp = "";
  #checkedAtMs = 0;

  constructor(settings: TransportSettings, nowMs: () => number) {
    this.#settings = settings;
    this.#nowMs = nowMs;
  }

  /**
   * The dispatcher to use for the next request. Throws what reading the certificate files threw,
   * if there is no earlier one that could go on.
   */
  current(): Dispatcher {
    const old = this.#dispatcher;
    const nowMs = this.#nowMs();
    if (old !== null && nowMs - this.#checkedAtMs < CHECK_FILES_EVERY_MS) return old;
    this.#checkedAtMs = nowMs;
    try {
      const stamp = this.#fileStamp();
      if (old !== null && stamp === this.#stamp) return old;
      this.#dispatcher = this.#open();
      this.#stamp = stamp;
    } catch (thrown) {
      if (old === null) throw thrown;
      // Files that are just being replaced are looked at again later.
      return old;
    }
    // Requests under way end on the old connections.
    if (old !== null) void old.close().catch(() => undefined);
    return this.#dispatcher;
  }

  /** One with connections of its own, which the caller destroys. Throws as `current` does. */
  alone(): Dispatcher {
    return this.#open();
  }

  /** Cuts all connections: requests under way fail, and the next one connects afresh. */
  async reset(): Promise<void> {
    const old = this.#dispatcher;
    this.#dispatcher = null;
    if (old !== null) await old.destroy().catch(() => undefined);
  }

  /** Looks at the certificate files again before the next request. */
  recheckFiles(): void {
    this.#checkedAtMs = Number.NEGATIVE_INFINITY;
  }

  #fileStamp(): string {
    let stamp = "";
    const { ca, cert, key } = this.#settings.tls;
    for (const file of [ca, cert, key]) {
      if (file === null) continue;
      const { mtimeMs, size, ino } = statSync(file);
      stamp += `${ino}:${size}:${mtimeMs};`;
    }
    return stamp;
  }

  #open(): Dispatcher {
    const { limits, tls, httpsProxy, noProxy } = this.#settings;
    const credentials = {
      ...(tls.ca === null ? {} : { ca: readFileSync(tls.ca) }),
      ...(tls.cert === null ? {} : { cert: readFileSync(tls.cert) }),
      ...(tls.key === null ? {} : { key: readFileSync(tls.key) }),
    };
    const common = {
      pipelining: 1,
      allowH2: false,
      maxHeaderSize: HEADER_BYTES_MAX,
      connectTimeout: limits.connectMs,
      headersTimeout: limits.headersMs,
      bodyTimeout: limits.bodyMs,
      connect: { timeout: limits.connectMs, keepAlive: true, ...credentials },
    };
    if (httpsProxy === null || this.#settings.endpoint.protocol !== "https:") return new Agent(common);
    // The empty httpProxy keeps undici from reading the environment behind the settings' back.
    return new EnvHttpProxyAgent({
      ...common,
      httpProxy: "",
      httpsProxy,
      noProxy: noProxy ?? "",
      requestTls: credentials,
    });
  }
}
