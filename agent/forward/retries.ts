/**
 * Sends quarantined events once more, when an operator asks. A retry is one request for one event:
 * whatever comes of it, the event lies in quarantine until it was accepted (invariant 3). While it
 * is under way its entity's later events wait (invariant 5), and it is not sent at all when a newer
 * one was accepted or waits: that carries the entity's whole state, and an older one after it would
 * only be ignored.
 */
import type { SpooledEvent } from "../change.ts";
import type { ControlEncoder, QuarantinedEvent, QueueReader } from "../ports.ts";
import type { PublishOutcome } from "./classify.ts";
import type { Lane } from "./lane.ts";
import type { Slot } from "./queue-window.ts";

export interface RetryOutcome {
  /**
   * accepted: it left quarantine. refused: it was sent, and stays. not-sent: something stands against
   * this one. read-again: a newer event does, and its entity's state of now is read and sent instead.
   * unavailable: the cluster takes nothing of its topic now.
   */
  readonly outcome: "accepted" | "refused" | "not-sent" | "read-again" | "unavailable";
  readonly code: string;
  readonly reason: string;
  /** The newer event that stands against it, where one does. */
  readonly newerSequence: string | null;
}

export interface RetryParts {
  readonly reader: QueueReader;
  readonly encoder: ControlEncoder;
  readonly laneOf: (event: SpooledEvent) => Lane | null;
  readonly isOversize: (event: SpooledEvent) => boolean;
  /** Something can be sent. */
  readonly pump: () => void;
}

interface Waiting {
  readonly found: QuarantinedEvent;
  readonly resolve: (outcome: RetryOutcome) => void;
}

export class Retries {
  readonly #parts: RetryParts;
  readonly #waiting = new Map<Slot, Waiting>();

  constructor(parts: RetryParts) {
    this.#parts = parts;
  }

  /** Resolves when the event was answered, or could not be sent. Rejects with SPOOL_CORRUPT. */
  async retry(id: string): Promise<RetryOutcome> {
    const { reader, encoder, laneOf, isOversize, pump } = this.#parts;
    const found = await reader.quarantined.find(id);
    if (found === null) return notSent("UNKNOWN", "there is no such event in quarantine");
    const { event } = found;
    if (isOversize(event)) {
      const mend =
        "the entity comes with its next change, once the mapping drops or truncates the large field";
      return notSent("EVENT_TOO_LARGE", `it is larger than Dapr's body limit; ${mend}`);
    }
    const lane = laneOf(event);
    if (lane === null) return notSent("NO_QUEUE", `the queue ${event.queue} is not forwarded`);
    const slot = lane.window.admitRetry(event);
    if (slot === null) return waitsBehind(lane.window.newestOf(event.entityKey), event, encoder);
    // Only from here on can no newer one of the entity be accepted, so this look is the one that counts.
    const now = await reader.quarantined.find(id);
    if (now === null || now.overtakenBy !== null) {
      lane.window.done(slot);
      pump();
      return now === null
        ? notSent("UNKNOWN", "it was dropped meanwhile")
        : notSent(
            "NEWER_ACCEPTED",
            "a newer event with the entity's whole state was accepted",
            now.overtakenBy,
          );
    }
    slot.refusals = Math.max(1, found.verdict.attempts);
    const answered = new Promise<RetryOutcome>((resolve) => this.#waiting.set(slot, { found: now, resolve }));
    lane.addSuspects([slot]);
    pump();
    return answered;
  }

  /** The retry was answered. Resolves when what became of it is durable; its entity may go on. */
  async settled(lane: Lane, slot: Slot, outcome: PublishOutcome): Promise<void> {
    const waiting = this.#waiting.get(slot);
    this.#waiting.delete(slot);
    if (outcome.kind === "accepted") {
      waiting?.resolve({ outcome: "accepted", code: "", reason: "", newerSequence: null });
      return;
    }
    const { code } = outcome;
    const isAnswer = outcome.kind !== "unavailable";
    const reason = isAnswer ? `Dapr refused the event again (${code})` : outcome.message;
    if (isAnswer && waiting !== undefined) {
      const { event, verdict } = waiting.found;
      const attempts = verdict.attempts + 1;
      await this.#parts.reader.quarantine(event, { ...verdict, code, reason, attempts });
    }
    lane.window.done(slot);
    waiting?.resolve({ outcome: isAnswer ? "refused" : "unavailable", code, reason, newerSequence: null });
  }
}

function waitsBehind(other: SpooledEvent | null, own: SpooledEvent, encoder: ControlEncoder): RetryOutcome {
  if (other === null) return notSent("BARRIER", "a control event of its queue is under way; try again");
  if (other.id === own.id) return notSent("UNDER_WAY", "the event itself is on its way");
  const sequence = encoder.about(other)?.sequence ?? null;
  const ownSequence = encoder.about(own)?.sequence ?? null;
  if (other.lane !== own.lane && sequence !== null && ownSequence !== null && sequence < ownSequence) {
    return notSent("OLDER_WAITS", "an older event of the entity waits in the other lane; try again");
  }
  return notSent("NEWER_WAITS", "a newer event with the entity's whole state waits to be sent", sequence);
}

function notSent(code: string, reason: string, newerSequence: string | null = null): RetryOutcome {
  return { outcome: "not-sent", code, reason, newerSequence };
}
