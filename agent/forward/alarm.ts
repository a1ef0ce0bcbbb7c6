/** One wake-up call, moved forwards as needed: the forwarder waits for the earliest of many times. */
import type { Clock } from "../kernel/service.ts";

export class Alarm {
  readonly #clock: Clock;
  readonly #ring: () => void;
  #atMs = Number.POSITIVE_INFINITY;
  #cancel: AbortController | null = null;

  /** `ring` must not throw. */
  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock;
    this.#ring = ring;
  }

  /** Monotonic time at which it rings; Infinity when it was not asked to. */
  get atMs(): number {
    return this.#atMs;
  }

  /** Rings at the given monotonic time, or earlier if an earlier time was asked for. */
  ringAt(atMs: number): void {
    if (atMs >= this.#atMs) return;
    this.#cancel?.abort();
    this.#atMs = atMs;
    const cancel = new AbortController();
    this.#cancel = cancel;
    void this.#wait(Math.max(0, atMs - this.#clock.monotonicMs()), cancel.signal);
  }

  cancel(): void {
    this.#cancel?.abort();
    this.#cancel = null;
    this.#atMs = Number.POSITIVE_INFINITY;
  }

  async #wait(delayMs: number, signal: AbortSignal): Promise<void> {
    await this.#clock.sleep(delayMs, signal);
    if (signal.aborted) return;
    this.#cancel = null;
    this.#atMs = Number.POSITIVE_INFINITY;
    this.#ring();
  }
}
