import { mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

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
