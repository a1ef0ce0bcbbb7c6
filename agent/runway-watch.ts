/**
 * The two clocks of an outage: when the server purges what the agent still needs, and when the spool
 * is full at the pace of the last minutes. Looked at rarely, and never a reason to stop anything.
 */
import type { Checkpoint } from "./change.ts";
import { AgentError, asError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import { clocksText, isBinlogShort, RUNWAY_HOURS_MIN } from "./observe/clocks.ts";
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
  readonly directoryBytes: number;
}

/** A clock that runs out is said again so often. */
const SAY_AGAIN_MS = 3_600_000;
/** A shorter look back is good for a figure, and for an alarm only where little more time is left. */
const ALARM_GROWTH_MS = 300_000;
const ALARM_TIMES = 3;

export class RunwayWatch {
  readonly #parts: RunwayWatchParts;
  #retention: { readonly value: Retention; readonly atMs: number } | null = null;
  #bytesPerSecond: number | null = null;
  #binlog: BinlogRunwayFacts | null = null;
  #failedCode: string | null = null;
  readonly #samples: Sample[] = [];
  /** By clock: when the log last said that it runs out. */
  readonly #saidAtMs = new Map<string, number>();

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
      this.#warn();
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

  /** One line while there is time to act, and one when it is over. */
  #warn(): void {
    const nowMs = this.#parts.clock.wallMs();
    const facts = this.facts();
    const hours = facts.spoolHours ?? Infinity;
    const sampledMs = this.#sampledMs();
    const isSure = sampledMs >= ALARM_GROWTH_MS || hours * 3_600_000 < ALARM_TIMES * sampledMs;
    const isSpoolShort = hours < RUNWAY_HOURS_MIN && isSure;
    const clocks = clocksText(facts, nowMs);
    this.#say("binlog", isBinlogShort(facts.binlog, nowMs), {
      clocks,
      hint: "Keep binlogs longer (binlog_expire_logs_seconds), or let the agent read: status names what holds it.",
    });
    this.#say("spool", isSpoolShort, {
      clocks,
      hint: "Bring the cluster back, or give the spool more room (SPOOL_BYTES_MAX). Full, it makes reading wait, and nothing is lost as long as the server keeps its binlogs.",
    });
  }

  #say(
    clock: "binlog" | "spool",
    isShort: boolean,
    more: { readonly clocks: string; readonly hint: string },
  ): void {
    const { log } = this.#parts;
    const nowMs = this.#parts.clock.monotonicMs();
    const saidAtMs = this.#saidAtMs.get(clock);
    if (!isShort) {
      if (this.#saidAtMs.delete(clock))
        log.notice("the clock does not run out any more", { clock, clocks: more.clocks });
      return;
    }
    if (saidAtMs !== undefined && nowMs - saidAtMs < SAY_AGAIN_MS) return;
    this.#saidAtMs.set(clock, nowMs);
    const what =
      clock === "binlog"
        ? "the server may soon purge binlog that is still needed"
        : "the spool will soon be full";
    log.warn(what, more);
  }

  /** How far back the samples reach. */
  #sampledMs(): number {
    return (this.#samples.at(-1)?.atMs ?? 0) - (this.#samples[0]?.atMs ?? 0);
  }

  #sampleSpool(): void {
    const { spool, clock } = this.#parts;
    const { bytes, directoryBytes } = spool.stats();
    this.#samples.push({ atMs: clock.monotonicMs(), bytes, directoryBytes });
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
  }

  /** Null while too little was seen; Infinity while the backlog does not grow. */
  #spoolHours(): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.atMs - first.atMs < GROWTH_MIN_MS) return null;
    const grown = grownBytes(first, last);
    if (grown <= 0) return Infinity;
    const bytesPerMs = grown / (last.atMs - first.atMs);
    const { bytesMax, directoryBytes, freeBytes, diskFreeMin } = this.#parts.spool.stats();
    const room = Math.max(0, Math.min(bytesMax - directoryBytes, freeBytes - diskFreeMin));
    return room / bytesPerMs / 3_600_000;
  }
}

/** What the backlog took: on disk it is compressed, and what was delivered leaves the disk later. */
function grownBytes(first: Sample, last: Sample): number {
  const bytes = last.bytes - first.bytes;
  const onDisk = last.directoryBytes - first.directoryBytes;
  return onDisk > 0 ? Math.min(bytes, onDisk) : bytes;
}
