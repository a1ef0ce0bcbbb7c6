/** Which failures of the stream a new connection can mend, when to try, and what the log says of it. */
import type { AgentError, ErrorCode } from "../kernel/errors.ts";
import { backoffDelayMs, type Clock, type Log } from "../kernel/service.ts";
import { isDumpRefused } from "./source-errors.ts";

const backoff = { firstMs: 200, maxMs: 5_000 } as const;
/** The same failure is said again after this time at the earliest. */
const LOG_AGAIN_MS = 30_000;
/** A server that has the position and refuses it this often will not give it. */
const REFUSALS_MAX = 5;

const mendable: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "SOURCE_UNREACHABLE",
  "SOURCE_AUTH",
  "SOURCE_RIGHTS",
  "SERVER_ID_TAKEN",
  "SCHEMA_UNKNOWN",
]);

export interface ReconnectsParts {
  readonly log: Log;
  readonly clock: Clock;
  /** Shortest wait after another client came with our server id. */
  readonly idTakenMs: number;
}

export class Reconnects {
  readonly #parts: ReconnectsParts;
  #reason: string | null = null;
  #failures = 0;
  #refusals = 0;
  /** Where the last unreadable event stood: a second one there is no accident of the network. */
  #unreadableAt: string | null = null;
  #loggedCode: string | null = null;
  #loggedAtMs = 0;

  constructor(parts: ReconnectsParts) {
    this.#parts = parts;
  }

  /** What is waited for, in words; null while the stream runs. */
  get reason(): string | null {
    return this.#reason;
  }

  /** Whether an event could not be read, so far: the first time at a place it is tried again. */
  get metUnreadable(): boolean {
    return this.#unreadableAt !== null;
  }

  /** Whether to try again. Counts: it answers differently when the same failure comes too often. */
  mends(failure: AgentError): boolean {
    if (isDumpRefused(failure) && failure.code === "SOURCE_UNREACHABLE") {
      this.#refusals += 1;
      return this.#refusals < REFUSALS_MAX;
    }
    if (failure.code === "SOURCE_UNREADABLE") {
      // A flipped bit on the way is mended by reading again; the same place twice is not that.
      const place = failure.message;
      const again = place === this.#unreadableAt;
      this.#unreadableAt = place;
      return !again;
    }
    return mendable.has(failure.code);
  }

  /** Notes the failure and gives the pause before the next try, in milliseconds. */
  failed(failure: AgentError): number {
    const { log, clock, idTakenMs } = this.#parts;
    this.#failures += 1;
    this.#reason = failure.message;
    const shortestMs = failure.code === "SERVER_ID_TAKEN" ? idTakenMs : 0;
    const delayMs = Math.max(shortestMs, backoffDelayMs(this.#failures, backoff));
    const nowMs = clock.monotonicMs();
    if (failure.code !== this.#loggedCode || nowMs - this.#loggedAtMs >= LOG_AGAIN_MS) {
      this.#loggedCode = failure.code;
      this.#loggedAtMs = nowMs;
      log.warn("the database's stream is interrupted", {
        code: failure.code,
        reason: failure.message,
        hint: failure.hint,
        failures: this.#failures,
        nextTryMs: Math.round(delayMs),
      });
    }
    return delayMs;
  }

  /** The stream runs again. */
  recovered(): void {
    if (this.#loggedCode !== null) {
      this.#parts.log.notice("the database's stream goes on", { failures: this.#failures });
    }
    this.#reason = null;
    this.#refusals = 0;
    this.#loggedCode = null;
    this.#failures = 0;
  }
}
