/** The heartbeat on the control topic: sent at intervals, never queued and never retried, because a
 * late one is worth nothing. None while everything is on hold. */
import type { ControlEncoder, HeartbeatFacts } from "../ports.ts";
import type { Clock } from "../kernel/service.ts";
import type { Publisher } from "./dapr-client.ts";
import type { Holds } from "./holds.ts";

export interface HeartbeatOptions {
  readonly intervalMs: number;
  /** What main knows: epoch, completeness, backlog. */
  readonly facts: () => Omit<HeartbeatFacts, "held" | "quarantined" | "nowMs">;
}

export interface HeartbeatParts extends HeartbeatOptions {
  readonly publisher: Publisher;
  readonly encoder: ControlEncoder;
  readonly holds: Holds;
  readonly clock: Clock;
  readonly quarantined: () => number;
}

/** Runs until the signal aborts. A failed heartbeat holds its topic, so that status and log say so. */
export async function runHeartbeat(parts: HeartbeatParts, signal: AbortSignal): Promise<void> {
  const { clock, holds, publisher } = parts;
  for (;;) {
    if (holds.allHeld === null) {
      const event = parts.encoder.heartbeat({
        ...parts.facts(),
        held: holds.heldTopics(),
        quarantined: parts.quarantined(),
        nowMs: clock.wallMs(),
      });
      const outcome = await publisher.publishBulk(event.topic, [event]);
      if (signal.aborted) return;
      if (outcome.kind === "accepted") holds.accepted(event.topic, false);
      else if (outcome.kind === "unavailable") holds.hold(event.topic, outcome);
      else {
        const message = "the heartbeat was refused";
        holds.hold(event.topic, { scope: "topic", code: outcome.code, message, retryAfterMs: 0 });
      }
    }
    await clock.sleep(parts.intervalMs, signal);
    if (signal.aborted) return;
  }
}
