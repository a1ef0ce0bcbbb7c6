import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const prefix = "mea-";
const made = new Set<string>();
let swept = false;

/**
 * A new directory under the system's temporary one, removed by `removeDirectory`, at the latest when
 * this process ends. What a process left that was killed is removed by the next one that comes here.
 */
export function throwAwayDirectory(what: string): string {
  if (!swept) {
    swept = true;
    sweep();
    process.on("exit", () => {
      for (const directory of made) removeDirectory(directory);
    });
  }
  const directory = mkdtempSync(join(tmpdir(), `${prefix}${what}-${process.pid}-`));
  made.add(directory);
  return directory;
}

export function removeDirectory(directory: string): void {
  made.delete(directory);
  try {
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
  } catch {
    // A server that was killed a moment ago may still write; the next sweep takes the rest.
  }
}

function sweep(): void {
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${prefix}[a-z-]+-(\\d+)-\\w{6}$`).exec(name)?.[1];
    if (pid !== undefined && !lives(Number(pid))) removeDirectory(join(tmpdir(), name));
  }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    return thrown instanceof Error && "code" in thrown && thrown.code === "EPERM";
  }
}
