/**
 * The two clocks of an outage: when the server purges what the agent still needs, and when the spool
 * is full at the pace of the last minutes. Looked at rarely, and never a reason to stop anything.
 */
import type { Checkpoint } from "./change.ts";
import { AgentError, asError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import type { BinlogRunwayFacts, RunwayFacts } from "./observe/facts.ts";
import type { SpoolStats } from "./ports.ts";
import { binlogRunway, bytesWritten, type Retention } from "./source/retention.ts";

export interface RunwayWatchParts {
  readonly readRetention: () => Promise<Retention>;
  readonly spool: { checkpoint(): Checkpoint | null; stats(): SpoolStats };
  readonly clock: Clock;
  readonly log: Log;
}

/** How often the spool is looked at; the server is asked at every sixth look. */
const LOOK_MS = 10_000;
const LOOKS_PER_QUESTION = 6;
/** How far back the spool's growth is measured, and the least that says anything. */
const SAMPLES_MAX = 60;
const GROWTH_MIN_MS = 60_000;

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

export class RunwayWatch {
  readonly #parts: RunwayWatchParts;
  #retention: { readonly value: Retention; readonly atMs: number } | null = null;
  #bytesPerSecond: number | null = null;
  #binlog: BinlogRunwayFacts | null = null;
  #failedCode: string | null = null;
  readonly #samples: Sample[] = [];

  constructor(parts: RunwayWatchParts) {
    this.#parts = parts;
  }

  facts(): RunwayFacts {
    return { binlog: this.#binlog, spoolHours: this.#spoolHours() };
  }

  /** Until the signal aborts. Never rejects: a server that cannot be asked is asked again. */
  async run(signal: AbortSignal): Promise<void> {
    for (let look = 0; !signal.aborted; look += 1) {
      this.#sampleSpool();
      // Without a position nothing is needed of the server yet; the first one comes within seconds.
      if (look % LOOKS_PER_QUESTION === 0 || this.#binlog === null) await this.look();
      await this.#parts.clock.sleep(LOOK_MS, signal);
    }
  }

  /** Asks the server once. */
  async look(): Promise<void> {
    const { spool, clock, log } = this.#parts;
    try {
      const value = await this.#parts.readRetention();
      const atMs = clock.wallMs();
      const before = this.#retention;
      if (before !== null && atMs > before.atMs) {
        this.#bytesPerSecond = (bytesWritten(before.value, value) / (atMs - before.atMs)) * 1000;
      }
      this.#retention = { value, atMs };
      this.#failedCode = null;
      const checkpoint = spool.checkpoint();
      if (checkpoint === null) return;
      this.#binlog = { ...binlogRunway(value, checkpoint, this.#bytesPerSecond, atMs), measuredAtMs: atMs };
    } catch (thrown) {
      const code = thrown instanceof AgentError ? thrown.code : "BUG";
      if (code === this.#failedCode) return;
      this.#failedCode = code;
      log.info("the server's binlog retention cannot be asked for now", {
        code,
        reason: asError(thrown).message,
      });
    }
  }

  #sampleSpool(): void {
    const { spool, clock } = this.#parts;
    this.#samples.push({ atMs: clock.monotonicMs(), bytes: spool.stats().bytes });
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
  }

  /** Null while too little was seen; Infinity while the backlog does not grow. */
  #spoolHours(): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.atMs - first.atMs < GROWTH_MIN_MS) return null;
    const bytesPerMs = (last.bytes - first.bytes) / (last.atMs - first.atMs);
    if (bytesPerMs <= 0) return Infinity;
    const { bytesMax, directoryBytes, freeBytes, diskFreeMin } = this.#parts.spool.stats();
    const room = Math.max(0, Math.min(bytesMax - directoryBytes, freeBytes - diskFreeMin));
    return room / bytesPerMs / 3_600_000;
  }
}
