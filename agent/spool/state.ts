/**
 * What the spool remembers beside its records: format, names of the queues, checkpoint with the
 * end of every queue, and the cursors. Each is one meta record (JSON in a frame).
 */
import { open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { STATE_FORMAT_VERSION } from "../change.ts";
import type { Checkpoint, Lane, Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Database } from "./database.ts";
import { metaKey } from "./keys.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { decodeJson } from "./record.ts";

export const formatKey = metaKey("format");
export const queuesKey = metaKey("queues");
export const progressKey = metaKey("progress");
export const cursorsKey = metaKey("cursors");

/** Made once, with the database. */
export interface FormatRecord {
  readonly formatVersion: number;
  readonly createdMs: number;
}

/** Names of the queues. A tag is never given twice. */
export interface QueuesRecord {
  readonly names: readonly (readonly [tag: number, name: string])[];
}

/**
 * The checkpoint and, in the same record, where every queue ends. Without the ends a loss at the
 * end of one queue would go unnoticed when a later batch, of other queues only, survived it.
 */
export interface ProgressRecord {
  readonly checkpoint: Checkpoint;
  readonly ends: readonly (readonly [tag: number, lane: Lane, last: Seq, appendedBytes: number])[];
}

/** Where every queue begins, and since when trimmed records wait to be compacted away. */
export interface CursorsRecord {
  readonly acked: readonly (readonly [tag: number, lane: Lane, acked: Seq, ackedBytes: number])[];
  readonly uncompactedSinceMs: number | null;
}

/** All of it, as it stands in the database. */
export interface StoredState {
  readonly format: FormatRecord | null;
  readonly queues: QueuesRecord;
  readonly progress: ProgressRecord | null;
  readonly cursors: CursorsRecord;
}

export async function readState(database: Database): Promise<StoredState> {
  const formatText = await readMeta(database, formatKey, "format");
  const format: FormatRecord | null = JSON.parse(formatText ?? "null");
  if (format !== null) refuseNewer(format.formatVersion);
  const queues: QueuesRecord | null = JSON.parse((await readMeta(database, queuesKey, "queues")) ?? "null");
  const progress: ProgressRecord | null = JSON.parse(
    (await readMeta(database, progressKey, "progress")) ?? "null",
  );
  const cursors: CursorsRecord | null = JSON.parse(
    (await readMeta(database, cursorsKey, "cursors")) ?? "null",
  );
  return {
    format,
    queues: queues ?? { names: [] },
    progress,
    cursors: cursors ?? { acked: [], uncompactedSinceMs: null },
  };
}

/** A newer agent's state is refused, also when only its version byte can be read. */
export function refuseNewer(formatVersion: number): void {
  if (formatVersion <= STATE_FORMAT_VERSION) return;
  throw new AgentError(
    "SPOOL_FORMAT",
    `The state has format ${formatVersion}; this agent reads up to ${STATE_FORMAT_VERSION}.`,
  );
}

async function readMeta(database: Database, key: Buffer, name: string): Promise<string | null> {
  const value = await database.get(key);
  if (value === undefined) return null;
  try {
    return decodeJson(key, value);
  } catch (error) {
    if (!(error instanceof DamagedRecord)) throw error;
    if (error.damage === "unknown format version") refuseNewer(value.readUInt8(0));
    throw new AgentError("SPOOL_CORRUPT", `The spool's meta record "${name}" is damaged: ${error.damage}.`, {
      cause: error,
    });
  }
}

const MARKER_FILE = "state.json";

/**
 * The marker beside the database. It says that there is a state, so that a database that was lost
 * or emptied is not taken for a first start; and it names the format before the database is opened.
 */
export async function readMarker(stateDir: string): Promise<FormatRecord | null> {
  let text: string;
  try {
    text = await readFile(join(stateDir, MARKER_FILE), "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
  const marker = parseMarker(text);
  if (marker === null) {
    throw new AgentError("SPOOL_CORRUPT", `${MARKER_FILE} in ${stateDir} is not what the agent wrote.`);
  }
  return marker;
}

function parseMarker(text: string): FormatRecord | null {
  try {
    const value: Partial<FormatRecord> | null = JSON.parse(text);
    if (typeof value !== "object" || value === null) return null;
    const { formatVersion, createdMs } = value;
    if (typeof formatVersion !== "number" || typeof createdMs !== "number") return null;
    return { formatVersion, createdMs };
  } catch {
    return null;
  }
}

/** Durable when it resolves: written beside, synced, renamed, directory synced. */
export async function writeMarker(stateDir: string, format: FormatRecord): Promise<void> {
  const path = join(stateDir, MARKER_FILE);
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(format)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  const directory = await open(stateDir, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
