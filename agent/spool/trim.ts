/**
 * Gives back the room of acknowledged records: deletes their keys a few at a time within writes
 * that happen anyway, and forces LevelDB to compact what was deleted, or the bytes would stay.
 */
import type { Clock } from "../kernel/service.ts";
import type { Database, WriteBatch } from "./database.ts";
import { quarantineRoom, queueKey, QueueKeyWriter } from "./keys.ts";
import type { Queue, Queues } from "./queue.ts";

export interface TrimTuning {
  /** Compacts when so many trimmed bytes wait for it, and no fewer than bytes of events wait. */
  readonly compactStepBytes: number;
  /** Compacts what waits when all queues have been empty for so long. */
  readonly compactIdleMs: number;
  /** Compacts what waits after so long, whatever it is: delivered personal data has to go. */
  readonly compactAgeMs: number;
}

export const trimTuning: TrimTuning = {
  compactStepBytes: 32 * 1024 * 1024,
  compactIdleMs: 5_000,
  compactAgeMs: 60 * 60 * 1000,
};

export interface TrimOptions {
  readonly clock: Clock;
  readonly tuning: TrimTuning;
  readonly uncompactedSinceMs: number | null;
  /** A compaction ended; the directory may be smaller now. */
  readonly compacted: () => void;
  readonly failed: (error: unknown) => void;
}

/** Records deleted by one write: some tenths of a millisecond. */
export const DELETES_PER_WRITE = 512;
/** Below this an idle spool is left as it is until the age asks for it. */
const IDLE_WORTH_BYTES = 1024 * 1024;

export class Trim {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #queues: Queues;
  readonly #options: TrimOptions;
  readonly #keys = new QueueKeyWriter();
  /** Bytes of deleted records that no compaction has removed yet; an estimate. */
  #uncompactedBytes = 0;
  #uncompactedSinceMs: number | null;
  #quarantineShrank = false;
  #deletedWhileCompacting = false;
  #lastWorkMs: number;
  #compacting: Promise<void> | null = null;

  constructor(database: Database, queues: Queues, options: TrimOptions) {
    this.#database = database;
    this.#queues = queues;
    this.#clock = options.clock;
    this.#options = options;
    this.#uncompactedSinceMs = options.uncompactedSinceMs;
    this.#lastWorkMs = options.clock.monotonicMs();
  }

  /** Wall time since when deleted records wait to be compacted away; kept on disk. */
  get uncompactedSinceMs(): number | null {
    return this.#uncompactedSinceMs;
  }

  /** Records of acknowledged events only, which are still to be deleted. */
  get backlog(): number {
    let records = 0;
    for (const queue of this.#queues.all) records += queue.trimmableRecords;
    return records;
  }

  /**
   * Adds deletes to a write. The cursors must go into the same write: a record that is gone while
   * its acknowledgement was lost would look like a gap.
   */
  addDeletes(batch: WriteBatch): void {
    let left = DELETES_PER_WRITE;
    for (const queue of this.#queues.all) {
      if (!queue.hasTrimmable) continue;
      const events = queue.trim(left, (first) => {
        batch.del(this.#keys.key(queue, first));
        left -= 1;
      });
      this.#noteDeleted(queue, events);
      if (left === 0) return;
    }
  }

  quarantineShrank(): void {
    this.#quarantineShrank = true;
    this.#noteDue();
  }

  /** Somebody appended: the spool is not idle. */
  worked(): void {
    this.#lastWorkMs = this.#clock.monotonicMs();
  }

  /** Starts a compaction when one is due. `pressed`: the intake waits for room. */
  compactIfDue(pressed: boolean): void {
    if (this.#compacting !== null || !this.#isDue(pressed)) return;
    this.#compacting = this.#compact()
      .catch(this.#options.failed)
      .finally(() => {
        this.#compacting = null;
        this.#options.compacted();
      });
  }

  /** Resolves when no compaction runs. */
  async settled(): Promise<void> {
    await this.#compacting;
  }

  #noteDeleted(queue: Queue, events: number): void {
    const meanBytes = queue.acked === 0 ? 0 : queue.ackedBytes / queue.acked;
    this.#uncompactedBytes += meanBytes * events;
    this.#noteDue();
    this.#lastWorkMs = this.#clock.monotonicMs();
  }

  #noteDue(): void {
    this.#uncompactedSinceMs ??= this.#clock.wallMs();
    this.#deletedWhileCompacting = true;
  }

  #isDue(pressed: boolean): boolean {
    if (this.#uncompactedSinceMs === null) return false;
    if (pressed) return true;
    // A step costs by what is left, not by what it frees: LevelDB rewrites tables in which both lie.
    // So steps grow with the backlog; what is deleted takes no more room than what waits.
    const stepBytes = Math.max(this.#options.tuning.compactStepBytes, this.#queues.pendingBytes());
    if (this.#uncompactedBytes >= stepBytes) return true;
    const ageMs = this.#clock.wallMs() - this.#uncompactedSinceMs;
    // A clock that was set back must not keep personal data: then the age is unknown.
    if (ageMs >= this.#options.tuning.compactAgeMs || ageMs < 0) return true;
    const idleMs = this.#clock.monotonicMs() - this.#lastWorkMs;
    return this.#uncompactedBytes >= IDLE_WORTH_BYTES && idleMs >= this.#options.tuning.compactIdleMs;
  }

  /**
   * Compacts what lies before each queue's cursor. Tables that hold only deleted records vanish;
   * what was compacted before costs nothing again. Runs beside reads and writes.
   */
  async #compact(): Promise<void> {
    const bytes = this.#uncompactedBytes;
    const quarantine = this.#quarantineShrank;
    this.#quarantineShrank = false;
    this.#deletedWhileCompacting = false;
    // What is deleted from here on is younger, and may or may not be caught by this run. A crash in
    // between leaves the older time on disk, so nothing is forgotten.
    const startedMs = this.#clock.wallMs();
    for (const queue of this.#queues.all) {
      if (queue.trimmed === 0) continue;
      await this.#database.compactRange(queueKey(queue, 0), queueKey(queue, queue.trimmed));
    }
    if (quarantine) await this.#database.compactRange(quarantineRoom.gte, quarantineRoom.lte);
    this.#uncompactedBytes = Math.max(0, this.#uncompactedBytes - bytes);
    this.#uncompactedSinceMs = this.#deletedWhileCompacting ? startedMs : null;
  }
}
