/**
 * Marks: places to go back to. A mark is a checkpoint together with where every queue ended then,
 * so what the checkpoint covers lies at or before those ends. When a record behind the ends is
 * damaged, capture that starts again at the mark's checkpoint brings everything that was lost.
 *
 * They are sparse, and kept only as far back as something waits to be delivered.
 */
import type { Checkpoint, Lane, Seq } from "../change.ts";
import type { Queue, Queues } from "./queue.ts";

export interface Mark {
  readonly checkpoint: Checkpoint;
  readonly ends: readonly (readonly [tag: number, lane: Lane, last: Seq])[];
}

export interface MarkTuning {
  /** A mark is due when so much was appended since the last one, or so much time has passed. */
  readonly everyBytes: number;
  readonly everyMs: number;
}

export const markTuning: MarkTuning = { everyBytes: 8 * 1024 * 1024, everyMs: 30_000 };

/** More of them are thinned out: a rewind then reads more again, nothing else. */
const MARKS_MAX = 48;

export class Marks {
  readonly #queues: Queues;
  readonly #tuning: MarkTuning;
  /** Oldest first. */
  #marks: Mark[] = [];
  #bytesSince = 0;
  #lastMs = -Infinity;

  constructor(queues: Queues, tuning: Partial<MarkTuning>) {
    this.#queues = queues;
    this.#tuning = { ...markTuning, ...tuning };
  }

  get all(): readonly Mark[] {
    return this.#marks;
  }

  restore(marks: readonly Mark[]): void {
    this.#marks = [...marks];
  }

  wrote(bytes: number): void {
    this.#bytesSince += bytes;
  }

  /** Whether the checkpoint that is about to be written should be a mark too. */
  isDue(checkpoint: Checkpoint, nowMs: number): boolean {
    const newest = this.#marks.at(-1);
    if (newest === undefined || newest.checkpoint.epoch !== checkpoint.epoch) return true;
    if (this.#bytesSince >= this.#tuning.everyBytes) return true;
    return nowMs - this.#lastMs >= this.#tuning.everyMs && !isSame(newest.checkpoint, checkpoint);
  }

  /** Adds the mark of a write: all that the checkpoint covers is in it or before it. */
  add(checkpoint: Checkpoint, nowMs: number): void {
    this.#bytesSince = 0;
    this.#lastMs = nowMs;
    const ends = this.#queues.all.map(({ tag, lane, assigned }) => [tag, lane, assigned] as const);
    this.#marks.push({ checkpoint, ends });
    const safe = this.safe();
    if (safe !== null) this.#marks.splice(0, this.#marks.indexOf(safe));
    if (this.#marks.length > MARKS_MAX) {
      const last = this.#marks.length - 1;
      this.#marks = this.#marks.filter((_, at) => at % 2 === 0 || at === last);
    }
  }

  /** The newest mark that everything before it was delivered; null when there is none. */
  safe(): Mark | null {
    const isDone = (mark: Mark): boolean =>
      mark.ends.every(([tag, lane, last]) => last <= (this.#queues.byTag(tag, lane)?.acked ?? Infinity));
    return this.#marks.findLast(isDone) ?? null;
  }

  /** The newest mark before the event. The way back ends where the source's history began anew. */
  before(queue: Queue, seq: Seq): Mark | null {
    const mark = this.#marks.findLast((one) => endOf(one, queue) < seq) ?? null;
    return mark?.checkpoint.epoch === this.#marks.at(-1)?.checkpoint.epoch ? mark : null;
  }

  /** The oldest mark that covers the event. */
  covering(queue: Queue, seq: Seq): Mark | null {
    return this.#marks.find((mark) => endOf(mark, queue) >= seq) ?? null;
  }

  /** Forgets those behind it: what they cover is read again, and gets other numbers. */
  dropAfter(mark: Mark): void {
    this.#marks.splice(this.#marks.indexOf(mark) + 1);
  }
}

function endOf(mark: Mark, { tag, lane }: Queue): Seq {
  return mark.ends.find(([one, its]) => one === tag && its === lane)?.[2] ?? 0;
}

function isSame(left: Checkpoint, right: Checkpoint): boolean {
  return left.file === right.file && left.position === right.position && left.partial === right.partial;
}
