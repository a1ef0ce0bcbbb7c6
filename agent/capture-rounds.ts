/**
 * Keeps capture going for as long as the process lives. What only an operator can mend (the position
 * is gone, an event cannot be read) stops capture before its position moves, and nothing else: the
 * spool goes on to be forwarded, health says why, and capture is tried again every minute, so that
 * a mended server needs no restart.
 */
import type { Capture } from "./capture.ts";
import { AgentError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import type { SourceStatus } from "./ports.ts";

const TRY_AGAIN_MS = 60_000;

const survivable: ReadonlySet<string> = new Set([
  "POSITION_LOST",
  "SOURCE_AUTH",
  "SOURCE_RIGHTS",
  "SOURCE_UNREACHABLE",
  "SOURCE_UNREADABLE",
  "SOURCE_UNSUITABLE",
  "SCHEMA_UNKNOWN",
  "SERVER_ID_TAKEN",
]);

export interface CaptureRoundsParts {
  /** A new loop on the spool's checkpoint; each runs once. */
  readonly newCapture: () => Capture;
  readonly sourceStatus: () => SourceStatus;
  /** Monotonic time of the source's last step that gives nothing to pull (BinlogSource.lastStepMs). */
  readonly sourceStepMs: () => number;
  /** Whether the durable position stands between two transactions. */
  readonly isBetweenTransactions: () => boolean;
  /** What the agent itself does about a halt; true where capture can go on at once. */
  readonly mend: (halt: AgentError) => Promise<boolean>;
  readonly clock: Clock;
  readonly log: Log;
  readonly tryAgainMs?: number;
}

/** What waits for capture to be at rest. */
interface RestChange {
  readonly run: () => Promise<void>;
  /** Also inside a large transaction that is partly delivered. */
  readonly anywhere: boolean;
  readonly done: PromiseWithResolvers<void>;
}

export class CaptureRounds {
  readonly #parts: CaptureRoundsParts;
  #capture: Capture | null = null;
  #halted: AgentError | null = null;
  #haltedAtMs = 0;
  /** Code of the halt that the log has told of and that is not over. */
  #told: string | null = null;
  #change: RestChange | null = null;
  #mendAgainMs = Number.NEGATIVE_INFINITY;
  #pause = new AbortController();

  constructor(parts: CaptureRoundsParts) {
    this.#parts = parts;
  }

  /**
   * Monotonic time of the last sign of life. What the source does by itself counts only while the
   * loop waits for the source: packets go on to come when an append hangs.
   */
  get lastProgressMs(): number {
    const capture = this.#capture;
    if (capture === null) return this.#parts.clock.monotonicMs();
    if (capture.isAppending) return capture.lastProgressMs;
    return Math.max(capture.lastProgressMs, this.#haltedAtMs, this.#parts.sourceStepMs());
  }

  /** The source's status; while capture is halted, why. */
  status(): SourceStatus {
    const status = this.#parts.sourceStatus();
    const { halted } = this;
    return halted === null
      ? status
      : { ...status, state: "waiting", reason: `${halted.code}: ${halted.message}` };
  }

  /** Says from now on why nothing is captured; a loop that streams takes it back. */
  halt(reason: AgentError): void {
    this.#halted = reason;
  }

  /** Why nothing is captured; null while something is. */
  get halted(): AgentError | null {
    return this.#parts.sourceStatus().state === "streaming" ? null : this.#halted;
  }

  /** A position was reached and is on disk: whatever halted capture is over. */
  wentOn(): void {
    if (this.#told === null) return;
    this.#parts.log.notice("capture goes on", { after: this.#told });
    this.#told = null;
    this.#halted = null;
  }

  /**
   * Runs the change while capture is at rest between two transactions, then lets a new loop go on.
   * Waits for the end of a large transaction that is partly delivered, unless it may run `anywhere`.
   * Resolves or rejects with the change; one after the other.
   */
  async atRest(change: () => Promise<void>, anywhere = false): Promise<void> {
    while (this.#change !== null) await this.#change.done.promise.catch(() => undefined);
    const done = Promise.withResolvers<void>();
    this.#change = { run: change, anywhere, done };
    if (anywhere) void this.#capture?.stop();
    else this.#capture?.finish();
    this.#pause.abort();
    return done.promise;
  }

  /** Resolves when the signal aborts; rejects with what the process cannot survive. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#parts;
    while (!signal.aborted) {
      if (this.#change !== null) await this.#runChange();
      const capture = this.#parts.newCapture();
      this.#capture = capture;
      if (this.#change !== null) capture.finish();
      const stop = (): void => void capture.stop();
      signal.addEventListener("abort", stop, { once: true });
      try {
        await capture.run();
        if (this.#change === null) return;
        continue;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof AgentError) || !survivable.has(error.code)) throw error;
        this.#haltedAtMs = clock.monotonicMs();
        this.halt(error);
        this.#told = error.code;
        log.error("capture has stopped before its position moved; it is tried again every minute", {
          code: error.code,
          ...(error.detail === null ? {} : { case: error.detail }),
          reason: error.message,
          hint: error.hint,
        });
      } finally {
        signal.removeEventListener("abort", stop);
      }
      if (await this.#mend()) continue;
      await this.#sleep(signal);
    }
  }

  /** A mend that does not help is not tried again at once. */
  async #mend(): Promise<boolean> {
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#halted === null || nowMs < this.#mendAgainMs) return false;
    if (!(await this.#parts.mend(this.#halted))) return false;
    this.#mendAgainMs = nowMs + (this.#parts.tryAgainMs ?? TRY_AGAIN_MS);
    return true;
  }

  async #runChange(): Promise<void> {
    const change = this.#change;
    if (change === null || !(change.anywhere || this.#parts.isBetweenTransactions())) return;
    this.#change = null;
    this.#halted = null;
    try {
      await change.run();
      change.done.resolve();
    } catch (error) {
      change.done.reject(error);
    }
  }

  /** A change that is asked for ends the pause: it may be what mends the halt. */
  async #sleep(signal: AbortSignal): Promise<void> {
    if (this.#change !== null) {
      // Asked for during a halt inside a transaction: not the moment for a loop without a pause.
      await this.#parts.clock.sleep(this.#parts.tryAgainMs ?? TRY_AGAIN_MS, signal);
      return;
    }
    this.#pause = new AbortController();
    const pause = AbortSignal.any([signal, this.#pause.signal]);
    await this.#parts.clock.sleep(this.#parts.tryAgainMs ?? TRY_AGAIN_MS, pause);
  }

  /** Resolves when the append under way is durable. */
  async stop(): Promise<void> {
    await this.#capture?.stop();
  }
}
