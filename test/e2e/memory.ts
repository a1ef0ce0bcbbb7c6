/**
 * Memory of a process as the product promises it: anonymous memory sampled from /proc, and a run in
 * a memory cgroup with a hard limit. Where no cgroup can be made, it says why and fails.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const mib = 1024 * 1024;

/** Anonymous memory of a process in bytes: heap, buffers, tables; not the files that it maps. */
export function anonymousBytes(pid: number): number {
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  if (line === null) throw new Error(`/proc/${pid}/status has no RssAnon`);
  return Number(line[1]) * 1024;
}

/** Samples a process until stopped; its end in between is no error. */
export class MemorySampler {
  readonly #timer: NodeJS.Timeout;
  #peak = 0;

  constructor(pid: number, intervalMs = 50) {
    const take = (): void => {
      try {
        this.#peak = Math.max(this.#peak, anonymousBytes(pid));
      } catch {
        // The process has ended; the peak stays what it was.
      }
    };
    take();
    this.#timer = setInterval(take, intervalMs);
    this.#timer.unref();
  }

  /** Highest anonymous memory seen so far, in MiB. */
  get peakMib(): number {
    return this.#peak / mib;
  }

  stop(): number {
    clearInterval(this.#timer);
    return this.peakMib;
  }
}

/** A memory cgroup with a hard limit; a process is moved into it and stays there. */
export interface MemoryCgroup {
  readonly description: string;
  add(pid: number): void;
  /** Highest charge in MiB: anonymous memory, page cache that could be reclaimed, kernel's part. */
  peakMib(): number;
  /** Whether the limit has killed a process of it. */
  killed(): boolean;
  remove(): void;
}

interface Files {
  readonly directory: string;
  readonly limit: string;
  readonly peak: string;
  readonly kills: string;
}

function ownGroup(controller: string): string | null {
  for (const line of readFileSync("/proc/self/cgroup", "utf8").split("\n")) {
    const [, controllers, path] = line.split(":");
    if (controllers !== undefined && path !== undefined && controllers.split(",").includes(controller))
      return path;
  }
  return null;
}

/** Below the group of this process, so that whoever limits or ends this one also does the new one. */
function placeOf(name: string): Files {
  const unified = "/sys/fs/cgroup";
  if (existsSync(join(unified, "cgroup.controllers"))) {
    const controllers = readFileSync(join(unified, "cgroup.controllers"), "utf8");
    if (!controllers.includes("memory"))
      throw new Error("cgroup v2 is mounted without its memory controller");
    // A v2 group with processes of its own may have no limited children: beside this one, then.
    const own = ownGroup("") ?? "/";
    const directory = own === "/" ? join(unified, name) : join(unified, own, "..", name);
    return { directory, limit: "memory.max", peak: "memory.peak", kills: "memory.events" };
  }
  const own = ownGroup("memory");
  if (own === null) throw new Error("this kernel has no memory cgroup controller");
  const directory = join(unified, "memory", own, name);
  return {
    directory,
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
  };
}

/** Throws with the reason where this machine allows no memory cgroup: run as root, or under systemd with delegation. */
export function makeMemoryCgroup(limitMib: number): MemoryCgroup {
  const name = `magento-edge-agent-test-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
  const files = placeOf(name);
  const file = (which: string): string => join(files.directory, which);
  try {
    mkdirSync(files.directory);
    writeFileSync(file(files.limit), String(limitMib * mib));
  } catch (thrown) {
    throw new Error(
      `no memory cgroup can be made at ${files.directory}; the test needs root or a delegated group`,
      {
        cause: thrown,
      },
    );
  }
  return {
    description: `${files.directory}, limit ${limitMib} MiB`,
    add: (pid) => writeFileSync(file("cgroup.procs"), String(pid)),
    peakMib: () => Number(readFileSync(file(files.peak), "utf8")) / mib,
    killed: () => Number(/^oom_kill (\d+)$/m.exec(readFileSync(file(files.kills), "utf8"))?.[1] ?? 0) > 0,
    remove: () => rmdirSync(files.directory),
  };
}
