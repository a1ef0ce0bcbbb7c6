/** What `status`, /health and the metrics say about forwarding. */
import type { QueueLane, Seq } from "../change.ts";
import type { Holds, HoldFacts } from "./holds.ts";
import type { Lane } from "./lane.ts";
import type { Settlement } from "./settlement.ts";

export interface TopicStatus {
  /** The queue, which carries the name of its entity's topic. */
  readonly topic: string;
  readonly lane: QueueLane["lane"];
  readonly held: boolean;
  readonly code: string | null;
  readonly message: string | null;
  /** Milliseconds since 1970. */
  readonly sinceMs: number | null;
  readonly attempts: number;
  readonly inFlight: number;
  readonly acked: Seq;
  readonly last: Seq;
  readonly lastAcceptedAtMs: number | null;
}

export interface ForwarderStatus {
  readonly topics: readonly TopicStatus[];
  /** Every hold by topic, those of control and dead letters included; "all" holds everything. */
  readonly holds: Readonly<Record<string, HoldFacts>>;
  readonly allHeld: HoldFacts | null;
  /** Failed attempts since the start. */
  readonly attempts: number;
  readonly lastAcceptedAtMs: number | null;
  readonly quarantined: number;
  readonly deadLettersWaiting: number;
}

interface StatusSources {
  readonly lanes: readonly Lane[];
  readonly holds: Holds;
  readonly settlement: Settlement;
  readonly deadLettersWaiting: number;
}

export function forwarderStatus({
  lanes,
  holds,
  settlement,
  deadLettersWaiting,
}: StatusSources): ForwarderStatus {
  const byTopic: Record<string, HoldFacts> = {};
  for (const topic of holds.heldTopics()) {
    const hold = holds.of(topic);
    if (hold !== null) byTopic[topic] = factsOf(hold);
  }
  const all = holds.allHeld;
  return {
    topics: lanes.map((lane) => topicStatus(lane, holds)),
    holds: byTopic,
    allHeld: all === null ? null : factsOf(all),
    attempts: holds.attempts,
    lastAcceptedAtMs: settlement.lastAcceptedAtMs,
    quarantined: settlement.quarantinedCount,
    deadLettersWaiting,
  };
}

function topicStatus(lane: Lane, holds: Holds): TopicStatus {
  const { queue, inFlight, acked, last, lastAcceptedAtMs } = lane;
  // A barrier may stand in front of the queue that goes to another, held topic.
  const next = lane.nextTopic();
  const hold = holds.of(queue) ?? (next === null ? null : holds.of(next));
  return {
    topic: queue,
    lane: lane.lane,
    held: hold !== null,
    code: hold?.code ?? null,
    message: hold?.message ?? null,
    sinceMs: hold?.sinceMs ?? null,
    attempts: hold?.attempts ?? 0,
    inFlight,
    acked,
    last,
    lastAcceptedAtMs,
  };
}

function factsOf({ code, message, sinceMs, attempts }: HoldFacts): HoldFacts {
  return { code, message, sinceMs, attempts };
}
