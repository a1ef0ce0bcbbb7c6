/** What the figures were measured on: machine, versions, and the disk's own fsync. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  readonly fsyncMs: Percentiles;
}

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export function percentiles(samples: readonly number[]): Percentiles {
  const sorted = [...samples].sort((one, other) => one - other);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99), max: sorted.at(-1) ?? Number.NaN };
}

/** Appends 4 KiB and waits for the disk, on the volume where the state directories of the runs lie. */
function measureFsync(times: number): Percentiles {
  const directory = mkdtempSync(join(tmpdir(), "mea-fsync-"));
  const file = openSync(join(directory, "probe"), "a");
  const block = Buffer.alloc(4096, 1);
  const samples: number[] = [];
  for (let time = 0; time < times; time += 1) {
    const started = performance.now();
    writeSync(file, block);
    fdatasyncSync(file);
    samples.push(performance.now() - started);
  }
  closeSync(file);
  rmSync(directory, { recursive: true, force: true });
  return percentiles(samples);
}

export function describeMachine(): Machine {
  const processors = cpus();
  return {
    cpu: processors[0]?.model ?? "unknown",
    cores: processors.length,
    memoryGib: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    fsyncMs: measureFsync(200),
  };
}
