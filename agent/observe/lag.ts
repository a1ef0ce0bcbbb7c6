/**
 * Lag means delivery: seconds from commit to acceptance. While events of a table wait it is the age
 * of the oldest, and so grows; when nothing waits it is what the newest deliveries took, for a short
 * while, and then zero. Snapshot rows do not count: their commit is not the news.
 */
import type { QueueHead } from "./facts.ts";

/** How long a delivery's own lag is shown: longer than the usual interval between two scrapes. */
const SHOWN_MS = 30_000;

interface Delivered {
  lagMs: number;
  atMs: number;
}

export class LagMeter {
  readonly #delivered = new Map<string, Delivered>();

  /** On the hot path: one map look-up an event. */
  delivered(table: string, commitTimeMs: number, nowMs: number): void {
    const known = this.#delivered.get(table);
    const lagMs = Math.max(0, nowMs - commitTimeMs);
    if (known === undefined) this.#delivered.set(table, { lagMs, atMs: nowMs });
    else {
      known.lagMs = lagMs;
      known.atMs = nowMs;
    }
  }

  seconds(heads: readonly QueueHead[], nowMs: number): Map<string, number> {
    const lag = new Map<string, number>();
    for (const [table, { lagMs, atMs }] of this.#delivered) {
      lag.set(table, nowMs - atMs <= SHOWN_MS ? lagMs / 1000 : 0);
    }
    const waiting = new Map<string, number>();
    for (const head of heads) {
      if (head.table === "" || head.op === "r" || head.waiting === 0) continue;
      const ageMs = Math.max(0, nowMs - head.commitTimeMs);
      waiting.set(head.table, Math.max(waiting.get(head.table) ?? 0, ageMs / 1000));
    }
    for (const [table, seconds] of waiting) lag.set(table, seconds);
    return lag;
  }
}
