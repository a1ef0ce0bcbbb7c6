/**
 * What the spool remembers beside its records: format, names of the queues, checkpoint with the
 * end of every queue, and the cursors. Each is one meta record (JSON in a frame).
 */
import { STATE_FORMAT_VERSION } from "../change.ts";
import type { Checkpoint, Lane, Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Database } from "./database.ts";
import { metaKey } from "./keys.ts";
import type { Mark } from "./marks.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { decodeJson } from "./record.ts";
import type { SegmentsRecord } from "./segments.ts";

export const formatKey = metaKey("format");
export const queuesKey = metaKey("queues");
export const progressKey = metaKey("progress");
export const cursorsKey = metaKey("cursors");
export const marksKey = metaKey("marks");
export const segmentsKey = metaKey("segments");

/** Made once, with the database. */
export interface FormatRecord {
  readonly formatVersion: number;
  readonly createdMs: number;
}

/** Names and lanes of the queues, the live lane first. A tag is never given to two names. */
export interface QueuesRecord {
  readonly names: readonly (readonly [tag: number, lane: Lane, name: string])[];
}

/**
 * The checkpoint and, in the same record, where every queue ends. Without the ends a loss at the
 * end of one queue would go unnoticed when a later batch, of other queues only, survived it.
 */
export interface ProgressRecord {
  /** Which state wrote it: files of two states in one directory would give a third. */
  readonly stateId: number;
  readonly checkpoint: Checkpoint;
  readonly ends: readonly QueueEnd[];
}

/** Where a lane of a queue ends, and what its records and later ones wait for (queue.ts). */
export type QueueEnd = readonly [
  tag: number,
  lane: Lane,
  last: Seq,
  appendedBytes: number,
  barrierAt: Seq,
  unboundThrough: Seq,
];

/** Places to go back to, oldest first. */
export interface MarksRecord {
  readonly marks: readonly Mark[];
}

/** Where every queue begins, and since when trimmed records wait to be compacted away. */
export interface CursorsRecord {
  readonly stateId: number;
  readonly acked: readonly (readonly [tag: number, lane: Lane, acked: Seq, ackedBytes: number])[];
  readonly uncompactedSinceMs: number | null;
}

/** All of it, as it stands in the database. Null: it is missing or damaged. */
export interface StoredState {
  readonly format: FormatRecord | null;
  readonly queues: QueuesRecord | null;
  readonly progress: ProgressRecord | null;
  readonly cursors: CursorsRecord | null;
  readonly marks: MarksRecord | null;
  readonly segments: SegmentsRecord | null;
  /** Names of damaged records, with what is wrong. */
  readonly damaged: readonly string[];
}

/** Throws SPOOL_FORMAT for a state of another format, and what the database throws. Damage is part of the answer. */
export async function readState(database: Database): Promise<StoredState> {
  const damaged: string[] = [];
  const read = async <T>(key: Buffer, name: string): Promise<T | null> => {
    const value = await database.get(key);
    if (value === undefined) return null;
    try {
      return JSON.parse(decodeJson(key, value));
    } catch (error) {
      if (!(error instanceof DamagedRecord)) throw error;
      if (error.damage === "unknown format version") refuseOther(value.readUInt8(0));
      damaged.push(`"${name}": ${error.damage}`);
      return null;
    }
  };
  const format = await read<FormatRecord>(formatKey, "format");
  if (format !== null) refuseOther(format.formatVersion);
  return {
    format,
    queues: await read<QueuesRecord>(queuesKey, "queues"),
    progress: await read<ProgressRecord>(progressKey, "progress"),
    cursors: await read<CursorsRecord>(cursorsKey, "cursors"),
    marks: await read<MarksRecord>(marksKey, "marks"),
    segments: await read<SegmentsRecord>(segmentsKey, "segments"),
    damaged,
  };
}

/** Format 2 is format 3 without compressed records. */
const OLDEST_FORMAT = 2;

/** A state that this agent cannot read is refused, also when only its version byte can be read. */
export function refuseOther(formatVersion: number): void {
  if (formatVersion >= OLDEST_FORMAT && formatVersion <= STATE_FORMAT_VERSION) return;
  const isOlder = formatVersion < OLDEST_FORMAT;
  throw new AgentError(
    "SPOOL_FORMAT",
    `The state has format ${formatVersion}; this agent reads formats ${OLDEST_FORMAT} to ${STATE_FORMAT_VERSION}.`,
    {
      hint: isOlder
        ? "Let the agent that made it deliver all that waits, then start with an empty STATE_DIR."
        : "Install the agent that made it, or a newer one.",
    },
  );
}
