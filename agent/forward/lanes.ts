/**
 * All lanes, and whose turn it is. Live changes go first; bulk work takes what they leave, and of the
 * requests that live changes could use as well one in `BULK_EVERY`, so that it never stands still.
 */
import type { QueueLane } from "../change.ts";
import type { QueueState } from "../ports.ts";
import type { Limits } from "./forwarder-options.ts";
import { Lane } from "./lane.ts";

/** Of so many requests one is for bulk work, where some waits. */
export const BULK_EVERY = 8;

export class Lanes {
  readonly #all: Lane[] = [];
  readonly #live = new Map<string, Lane>();
  /** By the name of the lane: another one goes first each time, so that no topic takes all requests. */
  readonly #turns = { live: new Turns(), bulk: new Turns() };
  /** Requests of live lanes since the last one of a bulk lane. */
  #liveRequests = 0;
  #bulkInFlight = 0;

  get all(): readonly Lane[] {
    return this.#all;
  }

  /** Live lanes in the order of this turn. */
  live(): Iterable<Lane> {
    return this.#turns.live.next();
  }

  /** Bulk lanes in the order of this turn. */
  bulk(): Iterable<Lane> {
    return this.#turns.bulk.next();
  }

  find({ queue, lane }: QueueLane): Lane | null {
    const live = this.#live.get(queue) ?? null;
    return lane === "live" || live === null ? live : live.sibling;
  }

  /** What the spool says of all of them; the live lane of a queue comes before its bulk lane. */
  update(states: readonly QueueState[]): void {
    for (const state of states) {
      const lane = this.find(state);
      if (lane === null) this.#add(state);
      else lane.update(state);
    }
  }

  /** Whether the next request belongs to bulk work, if there is any. */
  get bulkIsDue(): boolean {
    return this.#liveRequests >= BULK_EVERY - 1 && this.#turns.bulk.count > 0;
  }

  /**
   * Whether the lane may have one more request under way. Bulk work leaves one of all requests free,
   * and of its topic those that live changes use: so a live change never waits for its answers.
   */
  mayStart({ lane, inFlight, sibling }: Lane, { requestsPerTopic, requestsAtOnce }: Limits): boolean {
    if (lane === "live") return inFlight < requestsPerTopic;
    if (this.#bulkInFlight >= Math.max(1, requestsAtOnce - 1)) return false;
    if (inFlight + (sibling?.inFlight ?? 0) < requestsPerTopic) return true;
    return inFlight === 0 && this.bulkIsDue;
  }

  started(lane: Lane): void {
    lane.inFlight++;
    if (lane.lane === "live") this.#liveRequests++;
    else {
      this.#liveRequests = 0;
      this.#bulkInFlight++;
    }
  }

  ended(lane: Lane): void {
    lane.inFlight--;
    if (lane.lane === "bulk") this.#bulkInFlight--;
  }

  #add(state: QueueState): void {
    const sibling = state.lane === "live" ? null : (this.#live.get(state.queue) ?? null);
    const lane = new Lane(state, sibling);
    if (state.lane === "live") this.#live.set(state.queue, lane);
    this.#turns[state.lane].add(lane);
    this.#all.push(lane);
  }
}

class Turns {
  readonly #lanes: Lane[] = [];
  #first = 0;

  get count(): number {
    return this.#lanes.length;
  }

  add(lane: Lane): void {
    this.#lanes.push(lane);
  }

  *next(): Generator<Lane> {
    const count = this.#lanes.length;
    const first = this.#first;
    this.#first = count === 0 ? 0 : (first + 1) % count;
    for (let step = 0; step < count; step++) {
      const lane = this.#lanes[(first + step) % count];
      if (lane !== undefined) yield lane;
    }
  }
}
