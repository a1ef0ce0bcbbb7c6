import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";

/**
 * A directory of the cache that outlives a checkout: built servers and data directory templates.
 * Made if missing. Nothing in it is precious: everything is rebuilt when it is gone.
 */
export function cacheDirectory(...parts: readonly string[]): string {
  const base = process.env["XDG_CACHE_HOME"];
  const root = base === undefined || base === "" ? join(homedir(), ".cache") : base;
  const directory = join(root, "magento-edge-agent", ...parts);
  mkdirSync(directory, { recursive: true });
  return directory;
}

/**
 * Puts a built program into the cache as the only file of its directory: whole or not at all, also
 * when the process is killed in between.
 */
export function keepBuilt(built: string, binary: string): void {
  const directory = dirname(binary);
  const partial = join(dirname(directory), `partial-${process.pid}`);
  mkdirSync(partial, { recursive: true });
  cpSync(built, join(partial, basename(binary)));
  rmSync(directory, { recursive: true, force: true });
  renameSync(partial, directory);
}

/**
 * A name for what is built from the files of a directory on this kind of machine: it changes with
 * any of them. Names that begin with a dot do not count.
 */
export function directoryHash(directory: string): string {
  const hash = createHash("sha256");
  for (const file of filesOf(directory).sort()) {
    hash.update(`${file.slice(directory.length)}\0`);
    hash.update(readFileSync(file));
  }
  return `${hash.digest("hex").slice(0, 16)}-${process.arch}`;
}

function filesOf(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith(".")) return [];
    const path = join(directory, entry.name);
    return entry.isDirectory() ? filesOf(path) : [path];
  });
}
