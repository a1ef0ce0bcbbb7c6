/**
 * The marker beside the database: `state.json`. It says that there is a state, so that a database
 * that was lost or emptied is not taken for a first start; it names the format before the database
 * is opened; and it keeps what a lost database is made anew from: a checkpoint up to which
 * everything was delivered, and the small values of the agent.
 */
import { open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Checkpoint, SnapshotJob } from "../change.ts";
import { asError } from "../kernel/errors.ts";
import type { Clock, Log } from "../kernel/service.ts";
import { AskedJobs } from "./asked-jobs.ts";
import type { FormatRecord, QueuesRecord } from "./state.ts";
import { syncDirectory } from "./sync-directory.ts";

const MARKER_FILE = "state.json";

export interface Marker extends FormatRecord, QueuesRecord {
  /** Newest one that anything was published with; 0 before the first checkpoint. */
  readonly epoch: number;
  /** Everything up to here was delivered; null before the first checkpoint. */
  readonly checkpoint: Checkpoint | null;
  /** Snapshots and resyncs that were asked for behind it; absent in what an earlier build wrote. */
  readonly asked?: readonly SnapshotJob[];
  /** Values of the meta room (meta-room.ts). */
  readonly values: Readonly<Record<string, unknown>>;
}

/** What stands there: nothing, something unreadable, or a marker. */
export type FoundMarker = Marker | "none" | "damaged";

export async function readMarker(stateDir: string): Promise<FoundMarker> {
  let text: string;
  try {
    text = await readFile(join(stateDir, MARKER_FILE), "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return "none";
    throw error;
  }
  return parseMarker(text) ?? "damaged";
}

interface Sealed {
  readonly crc32: number;
  readonly marker: Marker;
}

function parseMarker(text: string): Marker | null {
  try {
    const sealed: Partial<Sealed> | null = JSON.parse(text);
    const marker = sealed?.marker;
    if (marker === undefined || typeof marker.formatVersion !== "number") return null;
    return sealed?.crc32 === crc32(JSON.stringify(marker)) ? marker : null;
  } catch {
    return null;
  }
}

/** Durable when it resolves: written beside, synced, renamed, directory synced. */
export async function writeMarker(stateDir: string, marker: Marker): Promise<void> {
  const path = join(stateDir, MARKER_FILE);
  const sealed: Sealed = { crc32: crc32(JSON.stringify(marker)), marker };
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(`${JSON.stringify(sealed)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  await syncDirectory(stateDir);
}

export interface MarkerKeeperParts {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** What the marker should say now, beside the jobs that were asked for. */
  readonly current: () => Omit<Marker, "asked">;
}

/** Renewed at once when values change or something is asked for, else not more often than this. */
const RENEW_MS = 10_000;

/** Keeps the marker up to date. It is a second line of defence: that it cannot be written stops nothing. */
export class MarkerKeeper {
  readonly #parts: MarkerKeeperParts;
  readonly #asked = new AskedJobs();
  #written: Marker | null = null;
  #lastMs = -Infinity;

  constructor(parts: MarkerKeeperParts) {
    this.#parts = parts;
  }

  /** What the marker had, and the checkpoint of the state that was opened. */
  restore(asked: readonly SnapshotJob[], checkpoint: Checkpoint | null): void {
    this.#asked.restore(asked);
    if (checkpoint !== null) this.#asked.note(checkpoint);
  }

  /** The state has this checkpoint now. */
  note(checkpoint: Checkpoint): void {
    this.#asked.note(checkpoint);
  }

  #current(): Marker {
    const current = this.#parts.current();
    return { ...current, asked: this.#asked.behind(current.checkpoint) };
  }

  /** Durable when it resolves. */
  async renew(): Promise<void> {
    const marker = this.#current();
    this.#lastMs = this.#parts.clock.monotonicMs();
    await writeMarker(this.#parts.stateDir, marker);
    this.#written = marker;
  }

  async tick(): Promise<void> {
    const now = this.#current();
    const before = this.#written;
    const urgent =
      before === null ||
      before.epoch !== now.epoch ||
      before.names.length !== now.names.length ||
      before.asked !== now.asked ||
      before.values !== now.values;
    const dueMs = urgent ? 0 : RENEW_MS - (this.#parts.clock.monotonicMs() - this.#lastMs);
    if (dueMs > 0 || (!urgent && before.checkpoint === now.checkpoint)) return;
    try {
      await this.renew();
    } catch (error) {
      this.#written = before === null ? null : now;
      this.#parts.log.warn("the marker beside the spool cannot be written", {
        reason: asError(error).message,
      });
    }
  }
}
