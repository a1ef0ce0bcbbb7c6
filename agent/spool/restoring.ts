/**
 * Puts the stored cursors into the queues and compares them with the records: what no checkpoint
 * covers is removed, head and tail of each queue are proven. The rest is proven while it is read.
 */
import type { Lane, Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { entriesOf, isCorruption } from "./database.ts";
import type { Database } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import { MAX_SEQ, MAX_TAG, parseQueueKey, queueKey, queueRoom } from "./keys.ts";
import type { KeyBounds } from "./keys.ts";
import type { Queue, Queues } from "./queue.ts";
import { QueueRecords, recordAtOrBefore } from "./reading.ts";
import { placeIn, RunReader } from "./record.ts";
import { laneRange, laneRanges } from "./segments.ts";
import type { Segments, SegmentsRecord } from "./segments.ts";
import type { CursorsRecord, ProgressRecord, QueuesRecord } from "./state.ts";

/** A state whose parts fit together. */
export interface CoherentState {
  readonly queues: QueuesRecord;
  readonly progress: ProgressRecord | null;
  readonly cursors: CursorsRecord;
  /** They are missing: each queue then begins at its first record. */
  readonly cursorsLost: boolean;
  /** Null: there is none; the keys of the records tell. */
  readonly segments: SegmentsRecord | null;
}

export interface FoundDamage {
  readonly queue: Queue;
  readonly seq: Seq;
  readonly what: string;
}

export interface RestoringParts {
  readonly database: Database;
  readonly evidence: Evidence;
  readonly segments: Segments;
}

/** Says which queues cannot be read on. Throws SPOOL_CORRUPT when LevelDB itself cannot read on. */
export async function restoreQueues(
  queues: Queues,
  state: CoherentState,
  parts: RestoringParts,
): Promise<FoundDamage[]> {
  for (const [tag, lane, name] of state.queues.names) queues.restore(name, tag, lane);
  for (const [tag, lane, last, appendedBytes, barrierAt, unboundThrough] of state.progress?.ends ?? []) {
    const queue = knownQueue(queues, tag, lane);
    queue.assigned = last;
    queue.appendedBytes = appendedBytes;
    queue.barrierAt = barrierAt;
    queue.unboundThrough = unboundThrough;
  }
  for (const [tag, lane, acked, ackedBytes] of state.cursors.acked) {
    const queue = knownQueue(queues, tag, lane);
    queue.acked = acked;
    // A checkpoint can be older than the cursors when the end of the log was lost; the records are
    // then read again from the binlog and get new numbers.
    queue.assigned = Math.max(queue.assigned, acked);
    queue.appendedBytes = Math.max(queue.appendedBytes, ackedBytes);
    queue.ackedBytes = queue.acked === queue.assigned ? queue.appendedBytes : ackedBytes;
  }
  const damages: FoundDamage[] = [];
  try {
    await restoreSegments(queues, state.segments, parts);
    for (const queue of queues.all) {
      queue.durable = queue.assigned;
      if (state.cursorsLost) queue.acked = await beforeFirst(queue, parts.database);
      const damage = await verifyQueue(queue, parts);
      if (damage !== null) damages.push(damage);
      if (queue.lane === "live" && queue.other === null) await removeUnknownLane(queue, parts);
    }
    // A queue whose name is unknown is in no checkpoint.
    const lastTag = queues.all.reduce((tag, queue) => Math.max(tag, queue.tag), 0);
    for (const number of recent(parts.segments)) {
      await removeUncovered(parts.database, {
        gte: queueKey(number, { tag: lastTag + 1, lane: "live" }, 0),
        lte: queueKey(number, { tag: MAX_TAG, lane: "bulk" }, MAX_SEQ),
      });
    }
  } catch (error) {
    throw readError(error);
  }
  return damages;
}

function knownQueue(queues: Queues, tag: number, lane: Lane): Queue {
  const queue = queues.byTag(tag, lane);
  if (queue !== null) return queue;
  throw new AgentError(
    "SPOOL_CORRUPT",
    `The spool's state names a ${lane} queue ${tag} that its table of queues does not.`,
  );
}

async function restoreSegments(
  queues: Queues,
  record: SegmentsRecord | null,
  { segments, database }: RestoringParts,
): Promise<void> {
  if (record === null) {
    for await (const [key] of entriesOf(database, queueRoom)) noteKey(queues, segments, key);
    segments.changed = segments.current !== null;
    return;
  }
  for (const number of record.numbers) segments.restore(number);
  for (const [tag, lane, starts] of record.lanes) {
    const queue = knownQueue(queues, tag, lane);
    for (const [segment, first] of starts) queue.segments.begin(segment, first);
  }
  await findNewer(segments, database);
}

function noteKey(queues: Queues, segments: Segments, key: Buffer): void {
  const place = parseQueueKey(key);
  if (place === null) return;
  if (place.segment > (segments.current?.number ?? 0)) segments.restore(place.segment);
  queues.byTag(place.tag, place.lane)?.segments.begin(place.segment, place.seq);
}

/** Segments that only a later list named, which was lost: what stands there must not mix with what comes. */
async function findNewer(segments: Segments, database: Database): Promise<void> {
  const newest = segments.current?.number ?? 0;
  const found: number[] = [];
  for (let { lte } = queueRoom; ;) {
    let segment = 0;
    for await (const [key] of entriesOf(database, { gte: queueRoom.gte, lte, reverse: true, limit: 1 })) {
      segment = parseQueueKey(key)?.segment ?? 0;
    }
    if (segment <= newest) break;
    found.unshift(segment);
    lte = queueKey(segment, { tag: 0, lane: "live" }, 0);
  }
  for (const number of found) segments.restore(number);
  segments.changed = found.length > 0;
}

/**
 * Where records can stand that no checkpoint covers. A checkpoint is lost with what was written in the
 * same moment, or replaced by a mark that is some megabytes older.
 */
function recent(segments: Segments): number[] {
  return segments.all.slice(-3).map(({ number }) => number);
}

/** A bulk lane that the state does not name is in no checkpoint. */
async function removeUnknownLane({ tag }: Queue, parts: RestoringParts): Promise<void> {
  const unknown = { tag, lane: "bulk" } as const;
  for (const number of recent(parts.segments)) {
    const range = { gte: queueKey(number, unknown, 0), lte: queueKey(number, unknown, MAX_SEQ) };
    await removeUncovered(parts.database, range);
  }
}

async function verifyQueue(queue: Queue, parts: RestoringParts): Promise<FoundDamage | null> {
  await noteLeftOver(queue, parts.database);
  const { segments } = queue;
  const reached = segments.starts.map(({ segment }) => segment);
  const uncovered = reached.filter((number) => segments.endIn(number, MAX_SEQ) > queue.durable);
  for (const number of new Set([...uncovered, ...recent(parts.segments)])) {
    await removeUncovered(parts.database, laneRange(number, queue, queue.durable + 1, MAX_SEQ));
  }
  segments.cutTo(queue.durable);
  if (queue.acked === queue.durable) return null;
  const records = new QueueRecords(parts.database, parts.evidence);
  try {
    const [head] = await records.read(queue, queue.acked, { maxEvents: 1, maxBytes: 1 });
    queue.oldestCapturedAtMs = head?.capturedAtMs ?? null;
    queue.oldestSeq = head?.seq ?? 0;
  } catch (error) {
    return damageAt(queue, queue.acked + 1, error);
  }
  return await verifyTail(queue, parts);
}

/** Deletion and acknowledgement go together, so what stands in the queue was not acknowledged, or lately. */
async function beforeFirst(queue: Queue, database: Database): Promise<Seq> {
  for (const range of laneRanges(queue, 0, queue.durable)) {
    for await (const [key] of entriesOf(database, { ...range, limit: 1 })) {
      return (parseQueueKey(key)?.seq ?? 1) - 1;
    }
  }
  return queue.durable;
}

async function verifyTail(queue: Queue, parts: RestoringParts): Promise<FoundDamage | null> {
  const found = await recordAtOrBefore(parts.database, queue, queue.durable);
  if (found === null) return { queue, seq: queue.acked + 1, what: "it is missing" };
  const { key, first, value } = found;
  const at = Math.max(first, queue.acked + 1);
  try {
    const run = new RunReader(key, value, placeIn(queue, first));
    if (run.last === queue.durable) return null;
    if (run.last > queue.durable) return { queue, seq: at, what: "no checkpoint covers it" };
    return { queue, seq: Math.max(run.last, queue.acked) + 1, what: "it is missing" };
  } catch (cause) {
    if (!(cause instanceof DamagedRecord)) throw cause;
    const error = await parts.evidence.keep(queue, at, { what: cause.damage, value, cause });
    return { queue, seq: at, what: error.message };
  }
}

function damageAt(queue: Queue, seq: Seq, error: unknown): FoundDamage {
  if (!(error instanceof AgentError) || error.code !== "SPOOL_CORRUPT") throw error;
  return { queue, seq, what: error.message };
}

/**
 * Finds the records that were acknowledged and not deleted: by the keys alone, since what is done
 * with them is only their deletion. How far the last of them reaches is seen when it is read.
 */
async function noteLeftOver(queue: Queue, database: Database): Promise<void> {
  let before: number | null = null;
  for (const range of laneRanges(queue, 0, queue.acked)) {
    for await (const [key] of entriesOf(database, range)) {
      const first = parseQueueKey(key)?.seq ?? 0;
      if (before === null) queue.trimmed = first - 1;
      else queue.noteRecord(before, first - 1);
      before = first;
    }
  }
  if (before === null) queue.trimmed = queue.acked;
  else if (queue.acked === queue.durable) queue.noteRecord(before, queue.acked);
  else queue.endsAtAcked = true;
}

/**
 * Records behind the checkpoint's ends: their batch had a checkpoint of its own, which was lost.
 * They are read again from the binlog, so nothing is lost with them.
 */
async function removeUncovered(database: Database, range: KeyBounds): Promise<void> {
  const keys: Buffer[] = [];
  for await (const [key] of entriesOf(database, range)) keys.push(key);
  if (keys.length === 0) return;
  const batch = database.batch();
  for (const key of keys) batch.del(key);
  await batch.write({ sync: true });
}

/** Errors of the database while it is opened and read. */
export function readError(error: unknown): AgentError {
  if (error instanceof AgentError) return error;
  return isCorruption(error)
    ? new AgentError("SPOOL_CORRUPT", "A table of the spool's database is damaged.", { cause: error })
    : new AgentError("SPOOL_IO", "The spool cannot be read.", { cause: error });
}
