/**
 * The few operations that the spool needs of its database, and LevelDB set up for them. The only
 * file that imports `level`.
 */
import { Level } from "level";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import { BatchMemory } from "./write-batch.ts";
import { syncDirectory } from "./sync-directory.ts";

export interface WriteBatch {
  /** Copies both at once: the caller may reuse the buffers. */
  put(key: Buffer, value: Buffer): unknown;
  del(key: Buffer): unknown;
  write(options: { readonly sync: boolean }): Promise<void>;
}

export interface KeyRange {
  readonly gte: Buffer;
  readonly lte: Buffer;
  readonly limit: number;
  readonly reverse: boolean;
  readonly fillCache: boolean;
  /** A step of the iterator ends when it holds more than this. */
  readonly highWaterMarkBytes: number;
}

export interface RecordIterator {
  nextv(size: number): Promise<[Buffer, Buffer][]>;
  close(): Promise<void>;
}

export interface ReadOptions {
  /** Whether the block stays in LevelDB's cache; false for what is read once. */
  readonly fillCache?: boolean;
}

export interface Database {
  open(): Promise<void>;
  close(): Promise<void>;
  get(key: Buffer, options?: ReadOptions): Promise<Buffer | undefined>;
  batch(): WriteBatch;
  iterator(range: KeyRange): RecordIterator;
  compactRange(from: Buffer, to: Buffer): Promise<void>;
}

/**
 * LevelDB for the spool.
 * - Snappy on, for what is not compressed already (record.ts): live changes that come one by one, and
 *   the index. The disk is the database's, so bytes count more than the processor's time.
 * - Two write buffers of 4 MB are held at most.
 * - Tables of 2 MB bound what a compaction of a few keys rewrites: tables of ten times that.
 * - 74 open files bound the tables that are mapped at a time (10 are LevelDB's own).
 */
export function levelDatabase(path: string, options: { readonly createIfMissing: boolean }): Database {
  return new LevelDatabase(path, options.createIfMissing);
}

/** Touches the directory only from `open` to `close`: `level` itself opens as soon as it is made. */
class LevelDatabase implements Database {
  readonly #path: string;
  readonly #createIfMissing: boolean;
  #level: (Level<Buffer, Buffer> & Pick<Database, "compactRange">) | null = null;
  readonly #batches = new BatchMemory((operations, options) => this.#opened.batch(operations, options));

  constructor(path: string, createIfMissing: boolean) {
    this.#path = path;
    this.#createIfMissing = createIfMissing;
  }

  async open(): Promise<void> {
    const level = new Level<Buffer, Buffer>(this.#path, {
      keyEncoding: "buffer",
      valueEncoding: "buffer",
      createIfMissing: this.#createIfMissing,
      compression: true,
      cacheSize: 8 * 1024 * 1024,
      writeBufferSize: 4 * 1024 * 1024,
      maxFileSize: 2 * 1024 * 1024,
      maxOpenFiles: 74,
    });
    assert(canCompact(level), "level is classic-level on Node");
    this.#level = level;
    await level.open();
    // LevelDB renames CURRENT last, and syncs no directory after that. Its first MANIFEST it does not
    // sync at all: where the rename is lost, a database made a moment ago could not be opened again.
    await syncDirectory(this.#path);
  }

  async close(): Promise<void> {
    await this.#level?.close();
  }

  get(key: Buffer, options: ReadOptions = {}): Promise<Buffer | undefined> {
    return this.#opened.get(key, options);
  }

  batch(): WriteBatch {
    return this.#batches.batch();
  }

  iterator(range: KeyRange): RecordIterator {
    return this.#opened.iterator(range);
  }

  compactRange(from: Buffer, to: Buffer): Promise<void> {
    return this.#opened.compactRange(from, to);
  }

  get #opened() {
    assert(this.#level !== null, "the database is open");
    return this.#level;
  }
}

/** The types of `level` know only what browsers have too. */
function canCompact<T extends object>(level: T): level is T & Pick<Database, "compactRange"> {
  return "compactRange" in level;
}

/**
 * Makes a damaged database one that can be opened, of all that can be read in its files. What it
 * could not read, or no longer needs, it leaves in `lost` beside them.
 */
export async function repairDatabase(path: string): Promise<void> {
  const level: unknown = Level;
  assert(canRepair(level), "level is classic-level on Node");
  await level.repair(path);
}

function canRepair(level: unknown): level is { repair(path: string): Promise<void> } {
  return typeof level === "function" && "repair" in level;
}

/** Walks a range in small steps, so that memory does not depend on its length. */
export async function* entriesOf(
  database: Database,
  range: Pick<KeyRange, "gte" | "lte"> & Partial<KeyRange>,
): AsyncGenerator<[Buffer, Buffer]> {
  const iterator = database.iterator({
    limit: -1,
    reverse: false,
    fillCache: false,
    highWaterMarkBytes: 256 * 1024,
    ...range,
  });
  try {
    for (;;) {
      const entries = await iterator.nextv(1000);
      if (entries.length === 0) return;
      yield* entries;
    }
  } finally {
    await iterator.close();
  }
}

/** A failed open, by its code. */
export function openError(error: unknown, path: string): AgentError {
  switch (causeCode(error)) {
    case "LEVEL_LOCKED":
      return new AgentError("SPOOL_LOCKED", `Another process has the spool in ${path} open.`, {
        cause: error,
      });
    case "LEVEL_CORRUPTION":
      return new AgentError("SPOOL_CORRUPT", `The spool's database in ${path} is damaged.`, {
        cause: error,
      });
    default:
      return new AgentError("SPOOL_IO", `The spool in ${path} cannot be opened.`, { cause: rootOf(error) });
  }
}

/** The words of whoever failed first: LevelDB's name file and system error. */
function rootOf(error: unknown): unknown {
  let root = error;
  while (root instanceof Error && root.cause instanceof Error) root = root.cause;
  return root;
}

/** A failed read, by its code: damage found by LevelDB itself, or the disk. */
export function isCorruption(error: unknown): boolean {
  return causeCode(error) === "LEVEL_CORRUPTION";
}

function causeCode(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const code = "code" in at ? at.code : null;
    if (typeof code === "string" && code !== "LEVEL_DATABASE_NOT_OPEN") return code;
  }
  return "";
}
