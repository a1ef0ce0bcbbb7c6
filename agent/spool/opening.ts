/**
 * Opens the state: directory, marker, database, format; restores the queues and verifies head,
 * tail and end of each. The rest is verified while it is read.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { STATE_FORMAT_VERSION } from "../change.ts";
import type { SpooledEvent } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock, Log } from "../kernel/service.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { entriesOf, isCorruption, openError } from "./database.ts";
import type { Database } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import { MAX_SEQ, parseRecordKey, queueKey } from "./keys.ts";
import type { Queue, Queues } from "./queue.ts";
import { QueueRecords } from "./reading.ts";
import { RecordEncoder, RunReader } from "./record.ts";
import { formatKey, readMarker, readState, refuseNewer, writeMarker } from "./state.ts";
import type { StoredState } from "./state.ts";

/** Where the database lies in the state directory. */
export function databasePath(stateDir: string): string {
  return join(stateDir, "spool");
}

export interface OpenedState {
  readonly state: StoredState;
  /** LevelDB dropped bytes of its log when it recovered, with what it said. */
  readonly lossesAtOpen: readonly string[];
}

/**
 * Makes the directory when there is none, and opens the database in it. Throws SPOOL_LOCKED,
 * SPOOL_FORMAT, SPOOL_CORRUPT or SPOOL_IO.
 */
export async function openState(
  stateDir: string,
  database: Database,
  parts: { readonly clock: Clock; readonly log: Log },
): Promise<OpenedState> {
  const path = databasePath(stateDir);
  const marker = await prepareDirectory(stateDir);
  try {
    await database.open();
  } catch (error) {
    throw openError(error, stateDir);
  }
  const lossesAtOpen = await recoveryLosses(path);
  for (const line of lossesAtOpen) parts.log.warn("the database dropped bytes when it recovered", { line });
  let state = await readStateOr(database);
  if (state.format === null) {
    // The marker is written after the format record, so it alone means that the database was lost.
    if (marker !== null || state.progress !== null) {
      throw new AgentError("SPOOL_CORRUPT", `The state in ${stateDir} has lost its database.`);
    }
    const format = { formatVersion: STATE_FORMAT_VERSION, createdMs: parts.clock.wallMs() };
    await putNow(database, formatKey, format);
    await writeMarker(stateDir, format);
    state = { ...state, format };
  } else if (marker === null) {
    await writeMarker(stateDir, state.format);
  }
  return { state, lossesAtOpen };
}

async function prepareDirectory(stateDir: string) {
  try {
    await mkdir(stateDir, { recursive: true, mode: 0o700 });
    await mkdir(databasePath(stateDir), { recursive: true, mode: 0o700 });
    const marker = await readMarker(stateDir);
    if (marker !== null) refuseNewer(marker.formatVersion);
    return marker;
  } catch (error) {
    if (error instanceof AgentError) throw error;
    throw new AgentError("SPOOL_IO", `The state directory ${stateDir} cannot be used.`, {
      cause: error,
      hint: "The agent's user needs to own STATE_DIR and to be able to write there.",
    });
  }
}

async function readStateOr(database: Database): Promise<StoredState> {
  try {
    return await readState(database);
  } catch (error) {
    throw readError(error);
  }
}

async function putNow(database: Database, key: Buffer, value: unknown): Promise<void> {
  const batch = database.batch();
  batch.put(key, new RecordEncoder().json(key, value));
  try {
    await batch.write({ sync: true });
  } catch (cause) {
    throw new AgentError("SPOOL_IO", "A write of the spool failed.", { cause });
  }
}

function readError(error: unknown): unknown {
  if (error instanceof AgentError) return error;
  return isCorruption(error)
    ? new AgentError("SPOOL_CORRUPT", "A table of the spool's database is damaged.", { cause: error })
    : new AgentError("SPOOL_IO", "The spool cannot be read.", { cause: error });
}

/**
 * LevelDB skips what it cannot read of its log and only writes a line to its own LOG file. After a
 * power cut that is the tail that no fsync covered; the ends of the queues tell whether more is gone.
 */
async function recoveryLosses(path: string): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(join(path, "LOG"), "utf8");
  } catch {
    // A database that keeps no such file (the one of the tests) has nothing to say.
    return [];
  }
  return text
    .split("\n")
    .filter((line) => line.includes("(ignoring error)") || line.includes(": dropping "))
    .slice(0, 20);
}

/** Puts the stored cursors into `queues` and verifies what the disk holds against them. */
export async function restoreQueues(
  queues: Queues,
  state: StoredState,
  parts: { readonly database: Database; readonly evidence: Evidence },
): Promise<void> {
  for (const [tag, name] of state.queues.names) queues.restore(name, tag);
  for (const [tag, , last, appendedBytes] of state.progress?.ends ?? []) {
    const queue = knownQueue(queues, tag);
    queue.assigned = last;
    queue.appendedBytes = appendedBytes;
  }
  for (const [tag, , acked, ackedBytes] of state.cursors.acked) {
    const queue = knownQueue(queues, tag);
    queue.acked = acked;
    // A checkpoint can be older than the cursors when the end of the log was lost; the records are
    // then read again from the binlog and get new numbers.
    queue.assigned = Math.max(queue.assigned, acked);
    queue.appendedBytes = Math.max(queue.appendedBytes, ackedBytes);
    queue.ackedBytes = queue.acked === queue.assigned ? queue.appendedBytes : ackedBytes;
  }
  for (const queue of queues.all) {
    queue.durable = queue.assigned;
    await verifyQueue(queue, parts);
  }
  await refuseUnknownQueue(queues, parts.database);
}

function knownQueue(queues: Queues, tag: number): Queue {
  const queue = queues.byTag(tag);
  if (queue !== null) return queue;
  throw new AgentError(
    "SPOOL_CORRUPT",
    `The spool's state names a queue ${tag} that its table of queues does not.`,
  );
}

async function verifyQueue(
  queue: Queue,
  parts: { readonly database: Database; readonly evidence: Evidence },
): Promise<void> {
  const records = new QueueRecords(parts.database, parts.evidence);
  await noteLeftOver(queue, parts.database);
  const last = await lastRecord(queue, parts);
  if (last !== null && last.last > queue.durable) {
    throw await parts.evidence.keep(queue, last.last, { what: "no checkpoint covers it", value: null });
  }
  if (queue.acked === queue.durable) return;
  const head = await readOne(records, queue, queue.acked);
  queue.oldestCapturedAtMs = head.capturedAtMs;
  queue.oldestSeq = head.seq;
  await readOne(records, queue, queue.durable - 1);
}

async function readOne(records: QueueRecords, queue: Queue, after: number): Promise<SpooledEvent> {
  const [event] = await records.read(queue, after, { maxEvents: 1, maxBytes: 1 });
  if (event !== undefined) return event;
  throw new AgentError("BUG", "A read before the end of a queue gave nothing.");
}

/**
 * Finds the records that were acknowledged and not deleted: by the keys alone, since what is done
 * with them is only their deletion. How far the last of them reaches is seen when it is read.
 */
async function noteLeftOver(queue: Queue, database: Database): Promise<void> {
  const range = { gte: queueKey(queue, 0), lte: queueKey(queue, queue.acked) };
  let before: number | null = null;
  try {
    for await (const [key] of entriesOf(database, range)) {
      const first = parseRecordKey(key)?.seq ?? 0;
      if (before === null) queue.trimmed = first - 1;
      else queue.noteRecord(before, first - 1);
      before = first;
    }
  } catch (error) {
    throw readError(error);
  }
  if (before === null) queue.trimmed = queue.acked;
  else if (queue.acked === queue.durable) queue.noteRecord(before, queue.acked);
  else queue.endsAtAcked = true;
}

async function lastRecord(
  queue: Queue,
  parts: { readonly database: Database; readonly evidence: Evidence },
): Promise<RunReader | null> {
  const range = { gte: queueKey(queue, 0), lte: queueKey(queue, MAX_SEQ), reverse: true, limit: 1 };
  try {
    for await (const [key, value] of entriesOf(parts.database, range)) {
      const seq = parseRecordKey(key)?.seq ?? 0;
      try {
        return new RunReader(key, value, { queue: queue.name, seq });
      } catch (cause) {
        // What is acknowledged is only deleted; its damage costs nothing.
        if (!(cause instanceof DamagedRecord)) throw cause;
        if (queue.acked === queue.durable) return null;
        throw await parts.evidence.keep(queue, seq, { what: cause.damage, value, cause });
      }
    }
    return null;
  } catch (error) {
    throw readError(error);
  }
}

/** A record behind the last known queue would never be read: its name was lost. */
async function refuseUnknownQueue(queues: Queues, database: Database): Promise<void> {
  const lastTag = queues.all.reduce((tag, queue) => Math.max(tag, queue.tag), 0);
  const range = {
    gte: queueKey({ tag: lastTag + 1, lane: "live" }, 0),
    lte: queueKey({ tag: 0xffff, lane: "bulk" }, MAX_SEQ),
    limit: 1,
    highWaterMarkBytes: 1,
  };
  for await (const [key] of entriesOf(database, range)) {
    throw new AgentError(
      "SPOOL_CORRUPT",
      `The spool holds records of a queue ${parseRecordKey(key)?.tag} that its table of queues does not name.`,
    );
  }
}
