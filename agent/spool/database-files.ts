/**
 * The files of the database, looked at before LevelDB opens them: it makes a new database where it
 * finds none, maps what it is told is there, and does not read the checksums of its tables.
 */
import { open, readdir, readFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { liveTables } from "./live-tables.ts";
import { disarm, faultsOf } from "./table-blocks.ts";

/** A damaged table file, and what of it. */
export interface DamagedTable {
  readonly name: string;
  readonly what: string;
}

/**
 * A database that lacks what names its tables would be opened as a new one, and its tables deleted:
 * so this is asked before. "all": there is no database; null: it is there.
 */
export async function missingFile(path: string): Promise<string | null> {
  const names = await readdir(path);
  if (!names.some((name) => /^(CURRENT|MANIFEST-\d+|\d+\.(ldb|sst|log))$/.test(name))) return "all";
  if (!names.includes("CURRENT")) return "CURRENT";
  return names.includes(await manifestOf(path)) ? null : "the MANIFEST";
}

/** Bytes of the tables that belong to the database. Throws what reading its directory throws. */
export async function tableBytes(path: string): Promise<number> {
  return (await tablesOf(path)).reduce((sum, { bytes }) => sum + bytes, 0);
}

/**
 * Every damaged table of the database, one file after another; `paced` is awaited before each with
 * its bytes. Memory is that of the largest table. A file that is not there is left to LevelDB, which
 * deletes files while it is open, and does not open without one that it needs.
 */
export async function* damagedTables(
  path: string,
  paced: (bytes: number) => Promise<void> = () => Promise.resolve(),
): AsyncGenerator<DamagedTable> {
  const reader = new TableReader();
  for (const { name, bytes } of await tablesOf(path)) {
    await paced(bytes);
    const table = await reader.read(join(path, name));
    if (table === null) continue;
    if (table.length < bytes) yield { name, what: "its end is missing" };
    else {
      const [fault] = faultsOf(table.subarray(0, bytes));
      if (fault !== undefined) yield { name, what: sentenceOf(fault.block) };
    }
  }
}

/**
 * Before a repair, which reads every table in the directory: where a block is damaged, LevelDB is
 * made to see it. All else of the table it then saves, and the file itself it leaves in `lost`.
 */
export async function disarmTables(path: string): Promise<void> {
  const reader = new TableReader();
  for (const name of await readdir(path)) {
    if (!/\.(ldb|sst)$/.test(name)) continue;
    const table = await reader.read(join(path, name));
    if (table === null) continue;
    const faults = [...faultsOf(table)];
    if (faults.length === 0) continue;
    for (const fault of faults) disarm(table, fault);
    const file = await open(join(path, name), "r+");
    try {
      await file.write(table);
      await file.sync();
    } finally {
      await file.close();
    }
  }
}

/** By the MANIFEST; none where that cannot be read: LevelDB reports it. */
async function tablesOf(path: string): Promise<{ readonly name: string; readonly bytes: number }[]> {
  const names = await readdir(path);
  const live = await liveTables(join(path, await manifestOf(path)));
  return names.flatMap((name) => {
    const bytes = /\.(ldb|sst)$/.test(name) ? live?.get(Number.parseInt(name, 10)) : undefined;
    return bytes === undefined ? [] : [{ name, bytes }];
  });
}

async function manifestOf(path: string): Promise<string> {
  return (await readFile(join(path, "CURRENT"), "utf8")).trim();
}

function sentenceOf(block: { readonly offset: number; readonly size: number } | null): string {
  return block === null ? "its footer is damaged" : `the block at byte ${block.offset} is damaged`;
}

/** Reads whole files into one buffer: what a call returns is good until the next. */
class TableReader {
  #buffer: Buffer = Buffer.allocUnsafeSlow(0);

  /** Null: there is no such file. */
  async read(path: string): Promise<Buffer | null> {
    let file: FileHandle;
    try {
      file = await open(path, "r");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
      throw error;
    }
    try {
      const { size } = await file.stat();
      if (size > this.#buffer.length) this.#buffer = Buffer.allocUnsafeSlow(size + (size >> 2));
      let at = 0;
      while (at < size) {
        const { bytesRead } = await file.read({
          buffer: this.#buffer,
          offset: at,
          length: size - at,
          position: at,
        });
        if (bytesRead === 0) break;
        at += bytesRead;
      }
      return this.#buffer.subarray(0, at);
    } finally {
      await file.close();
    }
  }
}
