/** What becomes of the events of an answered request: done, tried again, split, or given up. */
import type { ControlEncoder, ForwardObserver, GivenUp, QueueReader } from "../ports.ts";
import type { SpooledEvent } from "../change.ts";
import { backoffDelayMs, type Clock } from "../kernel/service.ts";
import type { PublishOutcome } from "./classify.ts";
import { type Holds, QUARANTINE_FULL, STORM } from "./holds.ts";
import type { Lane } from "./lane.ts";
import type { Slot } from "./queue-window.ts";

export interface SettlementParts {
  readonly reader: QueueReader;
  readonly observer: ForwardObserver;
  readonly encoder: ControlEncoder;
  readonly holds: Holds;
  readonly clock: Clock;
  readonly maxRetries: number;
  readonly quarantineMax: number;
  /** Events that were given up and wait for their dead letter's acceptance. */
  readonly deadLettersWaiting: () => number;
  /** Hands the event over to the dead letters; its slot is settled by `quarantined`. */
  readonly giveUp: (lane: Lane, slot: Slot, verdict: GivenUp) => void;
}

type Partial = Extract<PublishOutcome, { kind: "partial" }>;
type Refused = Extract<PublishOutcome, { kind: "refused" }>;

/** Of one event, not of its topic: short, because its entity waits and others go on. */
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2000;
/** From this many failures on, some 2 s after the first, an event's waiting is told. */
const FAILURES_TOLD = 5;

export class Settlement {
  readonly #parts: SettlementParts;
  #lastAcceptedAtMs: number | null = null;

  constructor(parts: SettlementParts) {
    this.#parts = parts;
  }

  /** Events in quarantine, whatever they are there for. */
  get quarantinedCount(): number {
    return this.#parts.reader.quarantined.count;
  }

  /** Wall time of the last acceptance, null before the first. */
  get lastAcceptedAtMs(): number | null {
    return this.#lastAcceptedAtMs;
  }

  settle(lane: Lane, slots: Slot[], outcome: PublishOutcome): void {
    const [first] = slots;
    const topic = first?.event.topic ?? lane.queue;
    if (first?.isRetry === true && outcome.kind !== "accepted") {
      this.#retryFailed(first, outcome);
      return;
    }
    switch (outcome.kind) {
      case "accepted":
        this.#accepted(lane, topic, slots);
        break;
      case "partial":
        this.#partial(lane, slots, outcome);
        break;
      case "unavailable":
        this.#parts.holds.hold(topic, outcome);
        this.#failed(slots);
        giveBack(lane, slots);
        break;
      case "refused":
        this.#parts.holds.reached();
        this.#refused(lane, slots, outcome);
        break;
    }
    this.#acknowledge(lane);
  }

  /** The event cannot be sent at all: the mapping chose dead letters for such. No refusal. */
  tooLarge(lane: Lane, slot: Slot): void {
    if (this.#parts.holds.of(slot.event.topic)?.code !== QUARANTINE_FULL) this.#failed([slot]);
    const reason = "the event is larger than Dapr's body limit";
    this.#giveUp(lane, slot, { code: "EVENT_TOO_LARGE", reason, attempts: 0 });
  }

  /** The event stands in quarantine: its entity goes on. */
  quarantined(lane: Lane, slot: Slot): void {
    if (lane.failing.size > 0) this.#noLongerFailing(lane, slot.event.topic, [slot]);
    lane.window.done(slot);
    this.#acknowledge(lane);
  }

  #accepted(lane: Lane, topic: string, slots: readonly Slot[]): void {
    const { holds, observer, clock, reader } = this.#parts;
    const wallMs = clock.wallMs();
    const wasRefused = slots.some((slot) => slot.refusals > 0);
    if (wasRefused && holds.of(topic)?.code === STORM) lane.refusals.clear();
    holds.accepted(topic, wasRefused);
    if (lane.failing.size > 0) this.#noLongerFailing(lane, topic, slots);
    lane.refusals.accepted(slots.length);
    lane.lastAcceptedAtMs = wallMs;
    this.#lastAcceptedAtMs = wallMs;
    for (const slot of slots) {
      const { event } = slot;
      const { capturedAtMs } = event;
      const heldMs = holds.heldMsSince(topic, capturedAtMs);
      // What lay in quarantine waited for an operator; that is neither delay nor lag of the delivery.
      const seconds = slot.isRetry ? 0 : Math.max(0, wallMs - capturedAtMs - heldMs) / 1000;
      observer.published(event, seconds, slot.isRetry || event.op === "r");
      if (reader.quarantined.concerns(event)) this.#tellQuarantine(event);
      lane.window.done(slot);
    }
  }

  #partial(lane: Lane, slots: Slot[], outcome: Partial): void {
    const accepted: Slot[] = [];
    const failed: Slot[] = [];
    for (const slot of slots) (outcome.failedIds.has(slot.event.id) ? failed : accepted).push(slot);
    const topic = slots[0]?.event.topic ?? lane.queue;
    if (accepted.length > 0 && failed.length > 0) this.#accepted(lane, topic, accepted);
    if (outcome.refused) {
      this.#parts.holds.reached();
      for (const slot of failed) this.#refusedAlone(lane, slot, outcome);
      return;
    }
    const [only] = slots;
    if (slots.length === 1 && only !== undefined && failed.length === 1) {
      // It may be this one, or the broker. Only an operator can tell.
      if (this.#notTaken(lane, only, outcome.code)) return;
    } else if (accepted.length > 0 && failed.length > 0) {
      // A listed entry may have been stored all the same; it is sent again, its entity waits.
      for (const slot of failed) {
        if (!this.#notTaken(lane, slot, outcome.code)) this.#delay(lane, slot, slot.failures);
      }
      const message = partlyMessage(lane);
      if (message !== null) this.#parts.holds.holdPartly(topic, outcome.code, message);
      return;
    } else this.#failed(slots);
    // All of them failed, or the list names none of ours: the broker took nothing for certain.
    const message = partlyMessage(lane) ?? "the broker took none of the events";
    this.#parts.holds.hold(topic, { scope: "topic", code: outcome.code, message, retryAfterMs: 0 });
    giveBack(lane, slots);
  }

  /**
   * The broker says so of this event, without a code of its content: tried for ever, unless an
   * operator released it. Whether it was.
   */
  #notTaken(lane: Lane, slot: Slot, code: string): boolean {
    this.#failed([slot]);
    slot.failures++;
    if (slot.failures >= FAILURES_TOLD) lane.failing.add(slot);
    if (!slot.released) return false;
    const reason = `the broker did not take it in ${slot.failures} attempts (${code}); an operator released it`;
    if (this.#giveUp(lane, slot, { code, reason, attempts: slot.failures }))
      this.#parts.holds.letGo(slot.event.topic);
    return true;
  }

  #noLongerFailing(lane: Lane, topic: string, slots: readonly Slot[]): void {
    for (const slot of slots) lane.failing.delete(slot);
    if (lane.failing.size === 0) this.#parts.holds.partlyOver(topic);
  }

  #refused(lane: Lane, slots: Slot[], outcome: Refused): void {
    const [only] = slots;
    if (slots.length === 1 && only !== undefined) this.#refusedAlone(lane, only, outcome);
    else lane.split(slots);
  }

  #refusedAlone(lane: Lane, slot: Slot, outcome: Partial | Refused): void {
    const { holds, maxRetries } = this.#parts;
    slot.refusals++;
    this.#failed([slot]);
    lane.refusals.refused(slot);
    if (lane.refusals.isStorm && !slot.released) {
      const message = `many events are refused (${outcome.code}): a setting is wrong, not the events; where the events are, magento-edge-agent topic release ${lane.queue} --max=N gives up N of them`;
      holds.hold(slot.event.topic, { scope: "topic", code: STORM, message, retryAfterMs: 0 });
      lane.postponeSuspects([slot]);
      return;
    }
    if (!outcome.permanent && !slot.released && slot.refusals < maxRetries) {
      this.#delay(lane, slot, slot.refusals);
      return;
    }
    const reason = `Dapr refused the event for its own content (${outcome.code})`;
    const wasGivenUp = this.#giveUp(lane, slot, { code: outcome.code, reason, attempts: slot.refusals });
    if (wasGivenUp && !slot.released) lane.refusals.gaveUp();
  }

  /** To the dead letters, unless the quarantine has no room: then the topic waits for an operator. */
  #giveUp(lane: Lane, slot: Slot, verdict: GivenUp): boolean {
    const { holds, quarantineMax, reader, deadLettersWaiting } = this.#parts;
    const { topic, queue, seq } = slot.event;
    const isThere = reader.quarantined.has(queue, seq, slot.event.lane);
    if (!isThere && this.quarantinedCount + deadLettersWaiting() >= quarantineMax) {
      const why = `${quarantineMax} events lie in quarantine, as many as QUARANTINE_MAX allows`;
      const message = `${why}; the next one would be refused for ${verdict.code}`;
      holds.hold(topic, { scope: "topic", code: QUARANTINE_FULL, message, retryAfterMs: 0 });
      lane.postponeSuspects([slot]);
      return false;
    }
    holds.refusalsSettled(topic);
    // Whoever lists the quarantine reads it later.
    slot.event.bytes?.detach();
    this.#parts.giveUp(lane, slot, verdict);
    return true;
  }

  /** The event stays in quarantine; what the answer says of the topic or of everything counts. */
  #retryFailed(slot: Slot, outcome: Exclude<PublishOutcome, { kind: "accepted" }>): void {
    this.#failed([slot]);
    if (outcome.kind === "unavailable") this.#parts.holds.hold(slot.event.topic, outcome);
    else this.#parts.holds.reached();
  }

  #tellQuarantine(event: SpooledEvent): void {
    const { reader, encoder } = this.#parts;
    reader.quarantined.accepted(event, encoder.about(event)?.sequence ?? null);
  }

  #delay(lane: Lane, slot: Slot, attempt: number): void {
    const delayMs = backoffDelayMs(attempt, { firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS });
    lane.delay(slot, this.#parts.clock.monotonicMs() + delayMs);
  }

  #failed(slots: readonly Slot[]): void {
    for (const { event } of slots) {
      this.#parts.observer.publishFailed({ table: event.table, errorType: "publish" });
      // It stays while others go: what was read with it need not.
      event.bytes?.detach();
    }
  }

  /** Invariant 4: the acknowledgement moves along the contiguous prefix. */
  #acknowledge(lane: Lane): void {
    const through = lane.window.doneThrough;
    if (through <= lane.acked) return;
    lane.acked = through;
    this.#parts.reader.ack(lane.queue, through, lane.lane);
  }
}

/** Names one of the events that are not taken, for whoever wants to look into it or to release it. */
function partlyMessage(lane: Lane): string | null {
  const [first] = lane.failing;
  if (first === undefined) return null;
  const { id, table, topic } = first.event;
  const others = lane.failing.size === 1 ? "" : ` and ${lane.failing.size - 1} others`;
  const mend = `magento-edge-agent topic release ${topic} --event=${id} gives it up`;
  return `the broker does not take event ${id} of ${table}${others}, again and again; ${mend}`;
}

/** Suspects stay apart: mixed with others they would have them refused again. */
function giveBack(lane: Lane, slots: Slot[]): void {
  if (slots.some((slot) => slot.refusals > 0)) lane.addSuspects(slots);
  else lane.window.giveBack(slots);
}
