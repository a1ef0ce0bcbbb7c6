/**
 * One lane of a queue on its way out: its window, what is under way, and what waits for a second try.
 * What refusals and failures say is about the topic, so both lanes of a queue count them together.
 */
import type { Lane as LaneName, QueueLane, Seq } from "../change.ts";
import type { QueueState } from "../ports.ts";
import { QueueWindow, type Slot } from "./queue-window.ts";
import { Refusals } from "./refusals.ts";

interface Delayed {
  readonly slot: Slot;
  readonly atMs: number;
}

export class Lane implements QueueLane {
  readonly queue: string;
  readonly lane: LaneName;
  readonly window: QueueWindow;
  readonly refusals: Refusals;
  /** The queue's other lane, null while there is none. */
  sibling: Lane | null = null;
  /** Newest record that can be read, and what was acknowledged to the spool. */
  last: Seq;
  acked: Seq;
  inFlight = 0;
  reading = false;
  /** Since when a partly filled batch waits for company, or null. */
  partialSinceMs: number | null = null;
  lastAcceptedAtMs: number | null = null;
  /** Events that the broker did not take several times, while others passed. */
  readonly failing: Set<Slot>;
  /** Groups that were refused as a whole, to be tried in ever smaller requests; the last is next. */
  readonly #suspects: Slot[][] = [];
  #delayed: Delayed[] = [];

  constructor(state: QueueState, sibling: Lane | null) {
    this.queue = state.queue;
    this.lane = state.lane;
    this.refusals = sibling?.refusals ?? new Refusals();
    this.failing = sibling?.failing ?? new Set();
    this.last = state.readable;
    this.acked = state.acked;
    this.window = new QueueWindow(state.acked);
    this.window.unbind(state.unboundThrough);
    if (sibling === null) return;
    this.sibling = sibling;
    sibling.sibling = this;
    this.window.pairWith(sibling.window);
  }

  /** What the spool says of it now. */
  update({ readable, unboundThrough }: QueueState): void {
    this.last = readable;
    this.window.unbind(unboundThrough);
  }

  get hasSuspects(): boolean {
    return this.#suspects.length > 0;
  }

  /** Topic of what would be sent next, or null when nothing can be. */
  nextTopic(): string | null {
    const suspects = this.#suspects.at(-1);
    return (suspects === undefined ? this.window.peek() : suspects[0])?.event.topic ?? null;
  }

  takeSuspects(): Slot[] | undefined {
    return this.#suspects.pop();
  }

  /** The group was refused, or could not be sent: it is tried again as it is. */
  addSuspects(slots: Slot[]): void {
    this.#suspects.push(slots);
  }

  /** The group was refused and has to wait: the others are tried before it comes up again. */
  postponeSuspects(slots: Slot[]): void {
    this.#suspects.unshift(slots);
  }

  /** Some entry of the group is refused, nobody says which: the halves will tell. */
  split(slots: readonly Slot[]): void {
    const middle = slots.length >> 1;
    this.#suspects.push(slots.slice(middle), slots.slice(0, middle));
  }

  delay(slot: Slot, atMs: number): void {
    this.#delayed.push({ slot, atMs });
  }

  /** Puts back what has waited long enough; returns when the next one is due. */
  releaseDelayed(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    if (this.#delayed.length === 0) return nextMs;
    const waiting: Delayed[] = [];
    for (const delayed of this.#delayed) {
      if (delayed.atMs > nowMs) {
        waiting.push(delayed);
        nextMs = Math.min(nextMs, delayed.atMs);
      } else if (delayed.slot.refusals > 0) this.#suspects.push([delayed.slot]);
      else this.window.giveBack([delayed.slot]);
    }
    this.#delayed = waiting;
    return nextMs;
  }
}
