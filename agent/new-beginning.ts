/**
 * The operator's way out of a lost position: capture begins anew at another place, in a new epoch,
 * and consumers are told what could not be read between the two.
 */
import { withJobs, withLoss } from "./snapshot-jobs.ts";
import {
  type Checkpoint,
  nextEpoch,
  type OutboundEvent,
  type SnapshotJob,
  type SnapshotProgress,
  type WantedJob,
} from "./change.ts";
import { AgentError } from "./kernel/errors.ts";
import type { IndexChange, SpoolWriter } from "./ports.ts";
import type { NewPlace } from "./source/new-place.ts";
import type { HistoryGapFacts } from "./transform/control.ts";
import type { Transform } from "./transform/transform.ts";

export interface Beginning {
  readonly epoch: number;
  /** FILE:POSITION. */
  readonly from: string;
  readonly to: string;
}

export interface BeginningParts {
  readonly spool: Pick<SpoolWriter, "checkpoint" | "append">;
  readonly transform: Pick<Transform, "topics"> & {
    readonly control: { historyGap(facts: HistoryGapFacts): OutboundEvent };
  };
  readonly placeAt: (from: string) => Promise<NewPlace>;
  /** Tables of which a part of the history is lost. */
  readonly followed: readonly string[];
  /** What is read again, because what changed in the gap is not known. */
  readonly wanted: readonly WantedJob[];
  /** What the index says of itself from now on: what changed in the gap is not in it. */
  readonly voidIndex: () => Promise<readonly IndexChange[]>;
  readonly nowMs: number;
}

/** The spool is asked for room this long. */
const ROOM_MS = 10_000;

/**
 * Moves the position to `from` ("current", FILE:POSITION or a GTID). Position, epoch, gap event and
 * what the index says of itself are written in one synced batch (invariant 1). Nothing may be captured meanwhile. Throws
 * COMMAND_REFUSED where there is no position yet or the spool has no room, and what the look-up throws.
 */
export async function beginAnew(parts: BeginningParts, from: string): Promise<Beginning> {
  const { spool, transform, nowMs } = parts;
  const last = spool.checkpoint();
  if (last === null) {
    throw new AgentError("COMMAND_REFUSED", "the state has no position yet", {
      hint: "START_POSITION says where a first start begins.",
    });
  }
  const place = await parts.placeAt(from);
  const epoch = nextEpoch(last, nowMs);
  const snapshot = begunAnew(last, parts);
  const checkpoint: Checkpoint = { ...place, epoch, newestCommitMs: last.newestCommitMs, snapshot };
  const entities = Object.keys(transform.topics.entities);
  const gap = transform.control.historyGap({
    from: last,
    to: checkpoint,
    entities,
    resync: parts.wanted.length > 0,
    nowMs,
  });
  const index = await parts.voidIndex();
  const noRoom = AbortSignal.timeout(ROOM_MS);
  try {
    await spool.append({ events: [gap], checkpoint, index }, noRoom);
  } catch (error) {
    if (!noRoom.aborted) throw error;
    throw new AgentError("COMMAND_REFUSED", "the spool has no room for the event that tells of the gap", {
      hint: "See SPOOL_BYTES_MAX and DISK_FREE_MIN; the spool drains when the cluster takes events.",
    });
  }
  return { epoch, from: `${last.file}:${last.position}`, to: `${place.file}:${place.position}` };
}

/**
 * What was read before the gap may have changed in it: jobs begin again. Those for the entities' own
 * topics are left out where the new ones read everything anyway.
 */
function begunAnew(
  { snapshot }: Checkpoint,
  { followed, wanted }: Pick<BeginningParts, "followed" | "wanted">,
): SnapshotProgress {
  const before = withJobs(snapshot, []);
  const { jobs } = before;
  // Consumers compare once they were told of everything.
  const digests = jobs.filter(({ purpose }) => purpose === "digests");
  const kept = jobs.filter((job) => !digests.includes(job) && (wanted.length === 0 || job.topic !== null));
  const empty = withLoss({ ...before, jobs: [] }, followed);
  return withJobs(empty, [...kept.map(wantedAgain), ...wanted, ...digests.map(wantedAgain)]);
}

function wantedAgain({ table, reason, scope, topic, purpose }: SnapshotJob): WantedJob {
  return { table, reason, scope, topic, ...(purpose === undefined ? {} : { purpose }) };
}
