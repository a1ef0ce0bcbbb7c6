/** Rows a second over the last while, for a forecast. */
import type { Clock } from "../../kernel/service.ts";

const WINDOW_MS = 30_000;

export class SnapshotRate {
  readonly #clock: Pick<Clock, "monotonicMs">;
  #sinceMs: number;
  #rows = 0;
  #before: { readonly rows: number; readonly ms: number } | null = null;

  constructor(clock: Pick<Clock, "monotonicMs">) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
  }

  add(rows: number): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#sinceMs > WINDOW_MS) {
      this.#before = { rows: this.#rows, ms: nowMs - this.#sinceMs };
      this.#rows = 0;
      this.#sinceMs = nowMs;
    }
    this.#rows += rows;
  }

  perSecond(): number {
    const rows = this.#rows + (this.#before?.rows ?? 0);
    const ms = this.#clock.monotonicMs() - this.#sinceMs + (this.#before?.ms ?? 0);
    return ms < 100 ? 0 : (rows * 1000) / ms;
  }
}
