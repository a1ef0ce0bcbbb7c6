/**
 * Gives back the room of acknowledged records: deletes their keys a few at a time within writes
 * that happen anyway, and forces LevelDB to compact what was deleted, or the bytes would stay.
 */
import type { Clock } from "../kernel/service.ts";
import type { Database, WriteBatch } from "./database.ts";
import { type KeyBounds, quarantineRoom, QueueKeyWriter } from "./keys.ts";
import type { Queues } from "./queue.ts";
import type { Segment, Segments } from "./segments.ts";
import { segmentsRange } from "./segments.ts";

export interface TrimTuning {
  /**
   * Compacts when so many deleted bytes, and no fewer than bytes of events wait, lie in segments where
   * little or nothing else is left.
   */
  readonly compactStepBytes: number;
  /** Compacts what waits when all queues have been empty for so long. */
  readonly compactIdleMs: number;
  /** Compacts what waits after so long, whatever it is: delivered personal data has to go. */
  readonly compactAgeMs: number;
}

export const trimTuning: TrimTuning = {
  compactStepBytes: 64 * 1024 * 1024,
  compactIdleMs: 5_000,
  compactAgeMs: 60 * 60 * 1000,
};

export interface TrimOptions {
  readonly clock: Clock;
  readonly tuning?: Partial<TrimTuning>;
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
  readonly #segments: Segments;
  readonly #options: TrimOptions;
  readonly #tuning: TrimTuning;
  readonly #keys = new QueueKeyWriter();
  #quarantineShrankMs: number | null = null;
  #lastWorkMs: number;
  #compacting: Promise<void> | null = null;

  constructor(
    database: Database,
    { queues, segments }: { readonly queues: Queues; readonly segments: Segments },
    options: TrimOptions,
  ) {
    this.#database = database;
    this.#queues = queues;
    this.#segments = segments;
    this.#clock = options.clock;
    this.#options = options;
    this.#tuning = { ...trimTuning, ...options.tuning };
    this.#lastWorkMs = options.clock.monotonicMs();
  }

  /**
   * Takes up what the state says at a start: since when deleted records wait, if any do. Which of them
   * were compacted already it does not say; those are counted again.
   */
  restore(uncompactedSinceMs: number | null): void {
    this.#quarantineShrankMs = uncompactedSinceMs;
    for (const queue of this.#queues.all) {
      for (const { segment: number, first } of queue.segments.starts) {
        const last = queue.segments.endIn(number, queue.assigned);
        const trimmed = Math.max(first - 1, Math.min(queue.trimmed, last));
        const mean = queue.meanEventBytes;
        this.#segments.found(
          number,
          (last - trimmed) * mean,
          (trimmed - first + 1) * mean,
          uncompactedSinceMs,
        );
      }
    }
  }

  /** Wall time since when deleted records wait to be compacted away; kept on disk. */
  get uncompactedSinceMs(): number | null {
    let sinceMs = this.#quarantineShrankMs;
    for (const { deadSinceMs } of this.#segments.all) {
      if (deadSinceMs !== null) sinceMs = Math.min(sinceMs ?? deadSinceMs, deadSinceMs);
    }
    return sinceMs;
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
      const nowMs = this.#clock.wallMs();
      left -= queue.trim(left, (first, last) => {
        const segment = queue.segments.of(first);
        batch.del(this.#keys.key(segment, queue, first));
        this.#segments.deleted(segment, (last - first + 1) * queue.meanEventBytes, nowMs);
      });
      this.#lastWorkMs = this.#clock.monotonicMs();
      if (left === 0) return;
    }
  }

  quarantineShrank(): void {
    this.#quarantineShrankMs ??= this.#clock.wallMs();
  }

  /** Somebody appended: the spool is not idle. */
  worked(): void {
    this.#lastWorkMs = this.#clock.monotonicMs();
  }

  /** Starts a compaction when one is due. `pressed`: the intake waits for room. */
  compactIfDue(pressed: boolean): void {
    if (this.#compacting !== null) return;
    const due = this.#isAllDue(pressed) ? this.#dead() : this.#worn();
    const quarantine = due.isAll && this.#quarantineShrankMs !== null;
    if (due.segments.length === 0 && !quarantine) return;
    this.#compacting = this.#compact(due, quarantine)
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

  /** Whatever was deleted has to go now. */
  #isAllDue(pressed: boolean): boolean {
    const sinceMs = this.uncompactedSinceMs;
    if (sinceMs === null) return false;
    if (pressed) return true;
    const ageMs = this.#clock.wallMs() - sinceMs;
    // A clock that was set back must not keep personal data: then the age is unknown.
    if (ageMs >= this.#tuning.compactAgeMs || ageMs < 0) return true;
    const idleMs = this.#clock.monotonicMs() - this.#lastWorkMs;
    return idleMs >= this.#tuning.compactIdleMs && deadBytes(this.#segments.all) >= IDLE_WORTH_BYTES;
  }

  #dead(): Due {
    return { isAll: true, segments: this.#segments.all.filter(({ deadSinceMs }) => deadSinceMs !== null) };
  }

  /**
   * Segments of which nothing is needed: their tables vanish unread by anyone else. And those that a
   * topic on hold keeps from that, once nearly all in them is deleted: the rest is rewritten. Nothing
   * where a step is not worth it yet.
   */
  #worn(): Due {
    const current = this.#segments.current;
    const needed = this.#needed();
    const worn = this.#segments.all.filter(
      (one) => one !== current && (!needed.has(one.number) || isMostlyDead(one)),
    );
    // A step costs by what else is in the tables that it meets, not by what it frees. So steps grow with
    // the backlog; what is deleted takes no more room than what waits.
    const stepBytes = Math.max(this.#tuning.compactStepBytes, this.#queues.pendingBytes());
    return { isAll: false, segments: deadBytes(worn) >= stepBytes ? worn : [] };
  }

  /** Numbers of the segments in which a record stands that is not deleted. */
  #needed(): ReadonlySet<number> {
    const needed = new Set<number>();
    for (const queue of this.#queues.all) {
      for (const { segment } of queue.segments.starts) {
        if (queue.segments.endIn(segment, queue.assigned) > queue.trimmed) needed.add(segment);
      }
    }
    return needed;
  }

  /** Runs beside reads and writes. */
  async #compact({ isAll, segments: due }: Due, quarantine: boolean): Promise<void> {
    // What is deleted from here on may or may not be caught by this run. A crash in between leaves
    // the older time on disk, so nothing is forgotten.
    const startedMs = this.#clock.wallMs();
    const before = due.map((segment) => ({ segment, bytes: segment.deadBytes }));
    const quarantineShrankMs = this.#quarantineShrankMs;
    const ranges = runsOf(due).map(({ first, last }) => segmentsRange(first, last));
    if (quarantine) ranges.push(quarantineRoom);
    for (const range of ranges) await this.#database.compactRange(range.gte, range.lte);
    if (isAll) for (const range of ranges) await this.#compactAgain(range);
    if (quarantine && this.#quarantineShrankMs === quarantineShrankMs) this.#quarantineShrankMs = null;
    for (const { segment, bytes } of before) {
      segment.deadBytes -= bytes;
      segment.deadSinceMs = segment.deadBytes > 0 ? startedMs : null;
    }
    // As it is now: what was current when this began may have taken records, and given way to a newer one.
    const { current } = this.#segments;
    const needed = this.#needed();
    const isGone = (one: Segment): boolean => one.deadSinceMs === null && !needed.has(one.number);
    this.#forget(due.filter((one) => one !== current && isGone(one)));
  }

  /**
   * A value and its deletion that were in memory together came into one table, which a compaction leaves
   * alone where it lies lowest. Newer deletions over its range, of nothing, make LevelDB go through it.
   */
  async #compactAgain({ gte, lte }: KeyBounds): Promise<void> {
    const batch = this.#database.batch();
    batch.del(gte);
    batch.del(lte);
    await batch.write({ sync: false });
    await this.#database.compactRange(gte, lte);
  }

  #forget(gone: readonly Segment[]): void {
    for (const { number } of gone) for (const queue of this.#queues.all) queue.segments.forget(number);
    this.#segments.drop(new Set(gone.map(({ number }) => number)));
  }
}

interface Due {
  readonly isAll: boolean;
  readonly segments: readonly Segment[];
}

function deadBytes(segments: readonly Segment[]): number {
  return segments.reduce((sum, one) => sum + one.deadBytes, 0);
}

/** Less than that is better waited for: what is being delivered is soon deleted as well. */
function isMostlyDead({ liveBytes, deadBytes: dead }: Segment): boolean {
  return dead > 3 * liveBytes;
}

/** Neighbours together: one compaction does what several would. */
function runsOf(segments: readonly Segment[]): { readonly first: number; last: number }[] {
  const runs: { readonly first: number; last: number }[] = [];
  for (const { number } of segments) {
    const run = runs.at(-1);
    if (run?.last === number - 1) run.last = number;
    else runs.push({ first: number, last: number });
  }
  return runs;
}
