/**
 * Opens the state, and heals what LevelDB itself cannot: a database that cannot be opened or read
 * is repaired from its own files; one that is gone, or beyond that, is put aside as evidence and
 * made anew from the marker's checkpoint, up to which everything was delivered. Either way nothing
 * is taken for sound that was not proven, and what is missing is read again from the binlog.
 */
import { existsSync, writeFileSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { STATE_FORMAT_VERSION } from "../change.ts";
import type { Checkpoint, SnapshotJob } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock, Log } from "../kernel/service.ts";
import { withAsked } from "../snapshot-jobs.ts";
import { openError, repairDatabase } from "./database.ts";
import { damagedTables, disarmTables, missingFile, tableBytes } from "./database-files.ts";
import type { Database } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import { readMarker, writeMarker } from "./marker.ts";
import type { FoundMarker, Marker } from "./marker.ts";
import type { Mark } from "./marks.ts";
import type { Queues } from "./queue.ts";
import { RecordEncoder } from "./record.ts";
import { readError, restoreQueues } from "./restoring.ts";
import type { CoherentState, FoundDamage } from "./restoring.ts";
import type { Segments } from "./segments.ts";
import { formatKey, marksKey, progressKey, readState, refuseOther } from "./state.ts";
import { syncDirectory } from "./sync-directory.ts";
import type { FormatRecord, MarksRecord, ProgressRecord, StoredState } from "./state.ts";

/** Where the database lies in the state directory. */
export function databasePath(stateDir: string): string {
  return join(stateDir, "spool");
}

/** A note for the next start: a write met a damaged table, which only a repair takes away. */
function repairNotePath(stateDir: string): string {
  return join(stateDir, "repair-at-start");
}

/** There while the spool is open, so also after a process that did not close it. */
function inUsePath(stateDir: string): string {
  return join(stateDir, "in-use");
}

export interface OpeningTuning {
  /**
   * Tables of at most so much are proven at every start, which takes a fraction of a second; of more only
   * after a process that did not close them. A damaged table can end the process that reads it: no
   * damage ends two of them.
   */
  readonly provenBytesMax: number;
}

export const openingTuning: OpeningTuning = { provenBytesMax: 64 * 1024 * 1024 };

export interface OpenedState extends CoherentState {
  readonly format: FormatRecord;
  readonly marks: readonly Mark[];
  readonly damages: readonly FoundDamage[];
  /** Values that the marker keeps a copy of. */
  readonly values: Readonly<Record<string, unknown>>;
  /** Jobs that the marker keeps (asked-jobs.ts). */
  readonly asked: readonly SnapshotJob[];
  /** What had to be done to the database, if anything. */
  readonly healed: "repaired" | "made anew" | null;
  /** LevelDB dropped bytes of its log when it recovered, with what it said. */
  readonly lossesAtOpen: readonly string[];
}

export interface OpeningParts {
  readonly stateDir: string;
  readonly database: Database;
  /** Whether it is LevelDB's, in files of the directory. */
  readonly hasFiles: boolean;
  readonly queues: Queues;
  readonly segments: Segments;
  readonly evidence: Evidence;
  readonly clock: Clock;
  readonly log: Log;
  readonly tuning?: Partial<OpeningTuning>;
}

/**
 * Makes the directory when there is none, opens the database in it and restores the queues. Throws
 * SPOOL_LOCKED, SPOOL_FORMAT, SPOOL_IO, or STATE_LOST when damage left nothing to go on from.
 */
export async function openState(parts: OpeningParts): Promise<OpenedState> {
  return await new Opening(parts, await prepareDirectory(parts.stateDir)).run();
}

async function prepareDirectory(stateDir: string): Promise<FoundMarker> {
  try {
    await mkdir(databasePath(stateDir), { recursive: true, mode: 0o700 });
    const marker = await readMarker(stateDir);
    if (typeof marker === "object") refuseOther(marker.formatVersion);
    return marker;
  } catch (error) {
    if (error instanceof AgentError) throw error;
    throw new AgentError("SPOOL_IO", `The state directory ${stateDir} cannot be used.`, {
      cause: error,
      hint: "The agent's user needs to own STATE_DIR and to be able to write there.",
    });
  }
}

type Sound = Omit<OpenedState, "healed" | "values" | "asked">;

/** Why the database cannot be used as it is, and whether a repair of its files can help. */
class Trouble {
  readonly what: string;
  readonly repairable: boolean;

  constructor(what: string, repairable: boolean) {
    this.what = what;
    this.repairable = repairable;
  }
}

class Opening {
  readonly #parts: OpeningParts;
  readonly #path: string;
  readonly #foundMarker: FoundMarker;
  readonly #marker: Marker | null;

  constructor(parts: OpeningParts, marker: FoundMarker) {
    this.#parts = parts;
    this.#path = databasePath(parts.stateDir);
    this.#foundMarker = marker;
    this.#marker = typeof marker === "object" ? marker : null;
  }

  async run(): Promise<OpenedState> {
    const { log, stateDir } = this.#parts;
    const note = repairNotePath(stateDir);
    const values = this.#marker?.values ?? {};
    let healed: OpenedState["healed"] = null;
    let state = existsSync(note) ? new Trouble("a write met a damaged table", true) : await this.#attempt();
    if (state instanceof Trouble && state.repairable) {
      log.error("the spool's database is damaged; it is repaired from its own files", { what: state.what });
      state = await this.#repair();
      healed = "repaired";
    }
    await rm(note, { force: true });
    if (state instanceof Trouble) {
      log.error("the spool's database cannot be used; it is made anew from its marker", { what: state.what });
      state = await this.#makeAnew(state);
      healed = "made anew";
    }
    await noteUse(stateDir);
    for (const line of state.lossesAtOpen) log.warn("the database dropped bytes when it recovered", { line });
    return { ...state, values, asked: this.#marker?.asked ?? [], healed };
  }

  async #attempt(): Promise<Sound | Trouble> {
    const { database, hasFiles, queues, segments, evidence, stateDir } = this.#parts;
    try {
      const trouble = hasFiles ? await this.#ofFiles() : null;
      if (trouble !== null) return trouble;
      await database.open();
      const stored = await readState(database).catch((error: unknown) => {
        throw readError(error);
      });
      const state = await this.#coherent(stored);
      if (state instanceof Trouble) return await this.#closed(state);
      await this.#raiseFormat(state.format);
      queues.clear();
      segments.clear();
      const damages = await restoreQueues(queues, state, { database, evidence, segments });
      return { ...state, damages, lossesAtOpen: await recoveryLosses(this.#path) };
    } catch (error) {
      const known = error instanceof AgentError ? error : openError(error, stateDir);
      await database.close().catch(() => undefined);
      if (known.code !== "SPOOL_CORRUPT") throw known;
      return new Trouble(known.message, true);
    }
  }

  /** Before anything of this format is written: an agent that cannot read that refuses the state by its name. */
  async #raiseFormat(format: FormatRecord): Promise<void> {
    if (format.formatVersion === STATE_FORMAT_VERSION) return;
    await putNow(this.#parts.database, [[formatKey, { ...format, formatVersion: STATE_FORMAT_VERSION }]]);
  }

  async #ofFiles(): Promise<Trouble | null> {
    const missing = await missingFile(this.#path);
    if (missing === "all") return this.#foundMarker === "none" ? null : new Trouble("it is gone", false);
    if (missing !== null) return new Trouble(`${missing} is missing`, true);
    const { provenBytesMax } = { ...openingTuning, ...this.#parts.tuning };
    const wasClosed = !existsSync(inUsePath(this.#parts.stateDir));
    if (wasClosed && (await tableBytes(this.#path)) > provenBytesMax) return null;
    for await (const { name, what } of damagedTables(this.#path))
      return new Trouble(`${name}: ${what}`, true);
    return null;
  }

  async #closed(trouble: Trouble): Promise<Trouble> {
    await this.#parts.database.close();
    return trouble;
  }

  /** The stored parts as one state; what one of them lacks comes from another where it can. */
  async #coherent(stored: StoredState): Promise<Trouble | (CoherentState & Pick<Sound, "format" | "marks">)> {
    const { log } = this.#parts;
    const { format, cursors } = stored;
    const marker = this.#marker;
    for (const record of stored.damaged) log.warn("a record of the spool's state is damaged", { record });
    if (format === null) {
      const isFirst = this.#foundMarker === "none" && stored.damaged.length === 0 && stored.progress === null;
      return isFirst ? await this.#first() : new Trouble("its format record is missing", true);
    }
    const ids = [marker?.createdMs, stored.progress?.stateId, cursors?.stateId];
    if (ids.some((id) => id !== undefined && id !== format.createdMs)) {
      return new Trouble("it holds files of two states", false);
    }
    const marks = stored.marks?.marks ?? [];
    let progress = stored.progress;
    if (progress === null) {
      const newest = marks.at(-1);
      if (newest !== undefined) {
        const checkpoint = this.#withAsked(newest.checkpoint);
        progress = progressOf({ ...newest, checkpoint }, format.createdMs);
      } else if (stored.damaged.length > 0 || (marker?.checkpoint ?? null) !== null)
        return new Trouble("its checkpoint is missing", true);
    }
    const queues = stored.queues ?? { names: marker?.names ?? [] };
    const known = new Set(queues.names.map(([tag, lane]) => `${tag} ${lane}`));
    const named = [...(progress?.ends ?? []), ...(cursors?.acked ?? [])];
    if (named.some(([tag, lane]) => !known.has(`${tag} ${lane}`)))
      return new Trouble("its table of queues is missing", true);
    return {
      format,
      queues,
      progress,
      cursors: cursors ?? { stateId: format.createdMs, acked: [], uncompactedSinceMs: null },
      cursorsLost: cursors === null,
      marks,
      segments: stored.segments,
    };
  }

  /** An earlier checkpoint takes nothing back of what was asked for since. */
  #withAsked(checkpoint: Checkpoint): Checkpoint {
    const snapshot = withAsked(checkpoint.snapshot, this.#marker?.asked ?? []);
    return snapshot === undefined ? checkpoint : { ...checkpoint, snapshot };
  }

  /** The state of a first start. */
  async #first(): Promise<CoherentState & Pick<Sound, "format" | "marks">> {
    const { database, stateDir, clock } = this.#parts;
    const format = { formatVersion: STATE_FORMAT_VERSION, createdMs: clock.wallMs() };
    await putNow(database, [[formatKey, format]]);
    await writeMarker(stateDir, { ...format, epoch: 0, checkpoint: null, names: [], values: {} });
    const cursors = { stateId: format.createdMs, acked: [], uncompactedSinceMs: null };
    return {
      format,
      queues: { names: [] },
      progress: null,
      cursors,
      cursorsLost: false,
      marks: [],
      segments: null,
    };
  }

  async #repair(): Promise<Sound | Trouble> {
    const { evidence } = this.#parts;
    try {
      await disarmTables(this.#path);
      await repairDatabase(this.#path);
    } catch (error) {
      return new Trouble(`it cannot be repaired (${openError(error, this.#path).message})`, false);
    }
    await evidence.takeDirectory(join(this.#path, "lost"), "lost");
    const state = await this.#attempt();
    return state instanceof Trouble ? new Trouble(state.what, false) : state;
  }

  /** From the marker's checkpoint: everything before it was delivered, the rest is read again. */
  async #makeAnew(trouble: Trouble): Promise<Sound> {
    const { stateDir, database, evidence, clock } = this.#parts;
    const marker = this.#marker;
    if (marker === null) {
      throw new AgentError(
        "STATE_LOST",
        `The spool's database in ${stateDir}: ${trouble.what}. Nor is there a marker.`,
      );
    }
    await evidence.takeDirectory(this.#path, "database");
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
    await database.open();
    const createdMs = Math.max(clock.wallMs(), marker.createdMs + 1);
    const format = { formatVersion: STATE_FORMAT_VERSION, createdMs };
    // What was published last has the newest epoch: what is read again must not sort before it.
    const checkpoint =
      marker.checkpoint === null
        ? null
        : this.#withAsked({
            ...marker.checkpoint,
            epoch: Math.max(marker.epoch, marker.checkpoint.epoch),
          });
    const mark = checkpoint === null ? null : { checkpoint, ends: [] };
    const marks: MarksRecord = { marks: mark === null ? [] : [mark] };
    const progress = mark === null ? null : progressOf(mark, createdMs);
    await putNow(database, [
      [formatKey, format],
      ...(progress === null ? [] : [[progressKey, progress] as const, [marksKey, marks] as const]),
    ]);
    await writeMarker(stateDir, { ...marker, ...format, names: [] });
    const cursors = { stateId: createdMs, acked: [], uncompactedSinceMs: null };
    this.#parts.queues.clear();
    this.#parts.segments.clear();
    return {
      format,
      queues: { names: [] },
      progress,
      cursors,
      ...marks,
      segments: null,
      cursorsLost: false,
      damages: [],
      lossesAtOpen: [],
    };
  }
}

function progressOf(mark: Mark, stateId: number): ProgressRecord {
  return {
    stateId,
    checkpoint: mark.checkpoint,
    // What its records wait for in the other lane, and where the last barrier stood, a mark does not say.
    ends: mark.ends.map(([tag, lane, last]) => [tag, lane, last, 0, last, last]),
  };
}

async function putNow(
  database: Database,
  records: ReadonlyArray<readonly [key: Buffer, value: unknown]>,
): Promise<void> {
  const batch = database.batch();
  const encoder = new RecordEncoder();
  for (const [key, value] of records) batch.put(key, encoder.json(key, value));
  try {
    await batch.write({ sync: true });
  } catch (cause) {
    throw new AgentError("SPOOL_IO", "A write of the spool failed.", { cause });
  }
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

/** Asks the next start for a repair. Best effort: the process is about to end, on a disk that fails. */
export function noteRepair(stateDir: string): void {
  try {
    writeFileSync(repairNotePath(stateDir), "", { mode: 0o600 });
  } catch {
    // Without the note the next start meets the same table at its first compaction.
  }
}

async function noteUse(stateDir: string): Promise<void> {
  try {
    await writeFile(inUsePath(stateDir), "", { mode: 0o600 });
    await syncDirectory(stateDir);
  } catch {
    // A full disk must not keep the agent from sending what is on it.
  }
}

/** The database was closed in good order. */
export async function noteClosed(stateDir: string): Promise<void> {
  await rm(inUsePath(stateDir), { force: true });
}
