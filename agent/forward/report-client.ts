/**
 * Asks a consumer for the report of a verification: one GET below VERIFY_REPORTS_URL, over the same
 * certificates, proxy and token as the Dapr API. No policy, and never a rejection.
 */
import { asError } from "../kernel/errors.ts";
import type { Clock } from "../kernel/service.ts";
import type { ReportAnswer, VerificationReports } from "../ports.ts";
import type { DaprSettings } from "./dapr-client.ts";
import { defaultTimeLimits, type TimeLimits, Transport } from "./transport.ts";

const REPORT_BYTES_MAX = 4 * 1024 * 1024;

export class ReportClient implements VerificationReports {
  readonly #url: URL;
  readonly #token: DaprSettings["token"];
  readonly #limits: TimeLimits;
  readonly #transport: Transport;

  /** @param url without query and trailing slash */
  constructor(
    url: string,
    dapr: Pick<DaprSettings, "token" | "tls" | "httpsProxy" | "noProxy" | "limits">,
    clock: Clock,
  ) {
    this.#url = new URL(url);
    this.#token = dapr.token;
    this.#limits = dapr.limits ?? defaultTimeLimits;
    this.#transport = new Transport(
      {
        endpoint: this.#url,
        tls: dapr.tls ?? { ca: null, cert: null, key: null },
        httpsProxy: dapr.httpsProxy ?? null,
        noProxy: dapr.noProxy ?? null,
        limits: this.#limits,
      },
      () => clock.monotonicMs(),
    );
  }

  async read(instance: string, generation: number): Promise<ReportAnswer> {
    const { connectMs, headersMs, bodyMs } = this.#limits;
    const token = this.#token();
    try {
      const { statusCode, body } = await this.#transport.current().request({
        origin: this.#url.origin,
        path: `${this.#url.pathname.replace(/\/+$/u, "")}/${encodeURIComponent(instance)}/${generation}`,
        method: "GET",
        headers: token === null || token === "" ? {} : { "dapr-api-token": token },
        signal: AbortSignal.timeout(connectMs + headersMs + bodyMs),
      });
      if (statusCode !== 200) {
        await body.dump();
        if (statusCode === 404) return { kind: "absent" };
        return { kind: "unavailable", reason: `HTTP ${statusCode}` };
      }
      const text = await textWithin(body, REPORT_BYTES_MAX);
      if (text === null) return { kind: "unavailable", reason: "the report is too long" };
      return { kind: "found", body: text };
    } catch (thrown) {
      // Token and certificates may have been replaced.
      this.#transport.recheckFiles();
      const error = asError(thrown);
      return { kind: "unavailable", reason: "code" in error ? String(error.code) : error.message };
    }
  }

  async close(): Promise<void> {
    await this.#transport.reset();
  }
}

/** Null: it is longer. */
async function textWithin(body: AsyncIterable<Buffer>, bytesMax: number): Promise<string | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
