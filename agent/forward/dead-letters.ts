/**
 * Events that were given up: each one's dead letter is published, then the event goes into
 * quarantine, and only then its entity's next event may go. Where the dead letter itself is refused
 * for its content, also without the event in it, quarantine alone keeps the event and the stream
 * goes on.
 */
import type { OutboundEvent } from "../change.ts";
import type { ControlEncoder, ForwardObserver, GivenUp, QueueReader } from "../ports.ts";
import type { Clock } from "../kernel/service.ts";
import type { PublishOutcome } from "./classify.ts";
import type { Publisher } from "./dapr-client.ts";
import type { Holds } from "./holds.ts";
import type { Lane } from "./lane.ts";
import type { Slot } from "./queue-window.ts";
import { BODY_OVERHEAD, entryBytes } from "./wire.ts";

export interface DeadLetterParts {
  readonly reader: QueueReader;
  readonly publisher: Publisher;
  readonly encoder: ControlEncoder;
  readonly observer: ForwardObserver;
  readonly holds: Holds;
  readonly clock: Clock;
  readonly batchSize: number;
  readonly bodyBytesMax: number;
  /** The event is in quarantine, durably. */
  readonly onQuarantined: (lane: Lane, slot: Slot) => void;
}

interface Item {
  readonly lane: Lane;
  readonly slot: Slot;
  readonly verdict: GivenUp;
  readonly letter: OutboundEvent;
}

export class DeadLetters {
  readonly #parts: DeadLetterParts;
  #items: Item[] = [];
  #underWay = false;
  /** Most letters in one request; falls while one of them is refused and nobody says which. */
  #most: number;

  constructor(parts: DeadLetterParts) {
    this.#parts = parts;
    this.#most = parts.batchSize;
  }

  get waiting(): number {
    return this.#items.length;
  }

  add(lane: Lane, slot: Slot, verdict: GivenUp): void {
    // What the broker would not take in the event it would not take in the letter either.
    const isWhole = slot.failures === 0 || slot.refusals > 0;
    const letter = this.#parts.encoder.deadLetter(slot.event, verdict, isWhole);
    this.#items.push({ lane, slot, verdict, letter });
  }

  /** Whether a request could go now, and if only time stands against it, when. */
  dueAtMs(nowMs: number): number {
    const topic = this.#items[0]?.letter.topic;
    if (topic === undefined || this.#underWay) return Number.POSITIVE_INFINITY;
    return this.#parts.holds.gate(topic, nowMs) === "closed" ? this.#parts.holds.dueAtMs(topic) : nowMs;
  }

  /** Sends one request and settles it. The caller has asked `dueAtMs`. Rejects when quarantine does. */
  async send(): Promise<void> {
    const items = this.#take();
    const topic = items[0]?.letter.topic;
    if (topic === undefined) return;
    this.#underWay = true;
    const isProbe = this.#parts.holds.gate(topic, this.#parts.clock.monotonicMs()) === "probe";
    if (isProbe) this.#parts.holds.probeStarted(topic);
    const outcome = await this.#parts.publisher.publishBulk(
      topic,
      items.map((item) => item.letter),
    );
    if (isProbe) this.#parts.holds.probeEnded(topic);
    try {
      await this.#settle(topic, items, outcome);
    } finally {
      this.#underWay = false;
    }
  }

  #take(): Item[] {
    const items: Item[] = [];
    let bytes = BODY_OVERHEAD;
    for (const item of this.#items) {
      bytes += entryBytes(item.letter);
      if (items.length > 0 && (items.length >= this.#most || bytes > this.#parts.bodyBytesMax)) break;
      if (item.letter.topic !== (items[0] ?? item).letter.topic) break;
      items.push(item);
    }
    return items;
  }

  async #settle(topic: string, items: readonly Item[], outcome: PublishOutcome): Promise<void> {
    const { holds } = this.#parts;
    switch (outcome.kind) {
      case "accepted":
        holds.accepted(topic, false);
        this.#most = this.#parts.batchSize;
        await this.#quarantine(items, true);
        return;
      case "partial": {
        const accepted = items.filter((item) => !outcome.failedIds.has(item.letter.id));
        if (accepted.length > 0) {
          holds.accepted(topic, false);
          await this.#quarantine(accepted, true);
          return;
        }
        if (outcome.refused) return this.#refused(items);
        const message = "the broker took none of the dead letters";
        holds.hold(topic, { scope: "topic", code: outcome.code, message, retryAfterMs: 0 });
        return;
      }
      case "unavailable":
        holds.hold(topic, outcome);
        return;
      case "refused":
        holds.reached();
        return this.#refused(items);
    }
  }

  async #refused(items: readonly Item[]): Promise<void> {
    this.#most = Math.max(1, items.length >> 1);
    const [only] = items;
    if (items.length > 1 || only === undefined) return;
    // What Dapr refused in the event it may refuse in the event's letter: that goes once without it.
    const bare = this.#parts.encoder.deadLetter(only.slot.event, only.verdict, false);
    if (bare.payload.length >= only.letter.payload.length) return this.#quarantine(items, false);
    this.#items = this.#items.map((item) => (item === only ? { ...only, letter: bare } : item));
  }

  async #quarantine(items: readonly Item[], deadLetterAccepted: boolean): Promise<void> {
    for (const item of items) {
      const { lane, slot, verdict } = item;
      const about = this.#parts.encoder.about(slot.event);
      await this.#parts.reader.quarantine(slot.event, { ...verdict, deadLetterAccepted, about });
      this.#items = this.#items.filter((other) => other !== item);
      this.#parts.observer.quarantined(slot.event.table, verdict.code);
      this.#parts.onQuarantined(lane, slot);
    }
  }
}
