/**
 * Segments: stretches of the spool's life. A record's key begins with the segment in which it was
 * appended, so what came together lies together, whatever its queue. LevelDB then merges new tables
 * with few others, moves old ones without rewriting them, and drops the tables of a segment whose
 * records are all deleted. With the queue in front every table overlapped every other one, and each
 * byte was rewritten some ten times.
 *
 * Which segment holds an event is known by the first event that each lane has in each segment.
 */
import type { Lane, Seq } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import type { KeyBounds } from "./keys.ts";
import { MAX_SEQ, MAX_TAG, queueKey } from "./keys.ts";

export interface SegmentTuning {
  /** A segment ends behind the record that fills it. */
  readonly segmentBytes: number;
}

export const segmentTuning: SegmentTuning = { segmentBytes: 16 * 1024 * 1024 };

/** A large backlog has larger ones instead of more: the list of them is written anew with each. */
const SEGMENTS_OF_BACKLOG = 128;
/** No segment has this number: what is looked for in it is not there. */
const NOWHERE = 0;

interface Start {
  readonly segment: number;
  /** The lane's first event in it. */
  readonly first: Seq;
}

/** In which segments the records of one lane stand. */
export class LaneSegments {
  /** Both numbers rise. */
  readonly #starts: Start[] = [];

  get starts(): readonly Start[] {
    return this.#starts;
  }

  /** The segment in which the event's record begins; a record of lost events may begin in an earlier one. */
  of(seq: Seq): number {
    for (let at = this.#starts.length - 1; at >= 0; at--) {
      const start = this.#starts[at];
      if (start !== undefined && start.first <= seq) return start.segment;
    }
    return NOWHERE;
  }

  /** Its last event there, of those up to `last`. */
  endIn(segment: number, last: Seq): Seq {
    const next = this.#starts.find((start) => start.segment > segment);
    return next === undefined ? last : Math.min(last, next.first - 1);
  }

  /** The next record begins there. False where the lane had begun in that segment before. */
  begin(segment: number, first: Seq): boolean {
    const last = this.#starts.at(-1);
    if (last?.segment === segment) return false;
    assert(last === undefined || last.segment < segment, "records are appended to the newest segment");
    this.#starts.push({ segment, first });
    return true;
  }

  /** The lane ends there now. */
  cutTo(last: Seq): void {
    while ((this.#starts.at(-1)?.first ?? 0) > last) this.#starts.pop();
  }

  forget(segment: number): void {
    const at = this.#starts.findIndex((start) => start.segment === segment);
    if (at >= 0) this.#starts.splice(at, 1);
  }
}

/** A lane of a queue as its records' keys and its segments name it. */
export interface SegmentedLane {
  readonly tag: number;
  readonly lane: Lane;
  readonly segments: LaneSegments;
}

/** Key of the record that begins with the event. */
export function recordKey(queue: SegmentedLane, seq: Seq): Buffer {
  return queueKey(queue.segments.of(seq), queue, seq);
}

/** What a lane has in the segment, from its first event to the last that is named. */
export function laneRange(segment: number, queue: SegmentedLane, from: Seq, through: Seq): KeyBounds {
  return { gte: queueKey(segment, queue, from), lte: queueKey(segment, queue, through) };
}

/** Where records of the lane that begin in [from, through] stand, in their order. */
export function* laneRanges(queue: SegmentedLane, from: Seq, through: Seq): Generator<KeyBounds> {
  for (const { segment, first } of queue.segments.starts) {
    const end = queue.segments.endIn(segment, through);
    if (first <= through && end >= from) yield laneRange(segment, queue, Math.max(from, first), end);
  }
}

/** All records of a run of segments. */
export function segmentsRange(first: number, last: number): KeyBounds {
  return {
    gte: queueKey(first, { tag: 0, lane: "live" }, 0),
    lte: queueKey(last, { tag: MAX_TAG, lane: "bulk" }, MAX_SEQ),
  };
}

export interface Segment {
  readonly number: number;
  /** Of records that are not deleted, and of deleted ones that no compaction has removed: estimates. */
  liveBytes: number;
  deadBytes: number;
  /** Wall time since when deleted records wait for a compaction. */
  deadSinceMs: number | null;
}

/** As it stands in the database (state.ts). */
export interface SegmentsRecord {
  /** Those that may hold something, oldest first; the last is appended to. */
  readonly numbers: readonly number[];
  readonly lanes: readonly (readonly [
    tag: number,
    lane: Lane,
    starts: readonly (readonly [number, Seq])[],
  ])[];
}

export class Segments {
  readonly #tuning: SegmentTuning;
  readonly #pendingBytes: () => number;
  /** Oldest first. */
  readonly #all: Segment[] = [];
  #currentBytes = 0;
  /** A segment or a lane's first record in one is not on disk as such yet. */
  changed = false;

  /** `pendingBytes`: what waits in all queues. */
  constructor(pendingBytes: () => number, tuning: Partial<SegmentTuning>) {
    this.#tuning = { ...segmentTuning, ...tuning };
    this.#pendingBytes = pendingBytes;
  }

  get all(): readonly Segment[] {
    return this.#all;
  }

  /** The one that is appended to; null before the first record. */
  get current(): Segment | null {
    return this.#all.at(-1) ?? null;
  }

  /** Before the state is read once more. */
  clear(): void {
    this.#all.length = 0;
    this.#currentBytes = 0;
    this.changed = false;
  }

  /** As the state is to keep it. */
  record(queues: Iterable<SegmentedLane>): SegmentsRecord {
    const lanes: SegmentsRecord["lanes"][number][] = [];
    for (const { tag, lane, segments } of queues) {
      lanes.push([tag, lane, segments.starts.map(({ segment, first }) => [segment, first])]);
    }
    return { numbers: this.#all.map(({ number }) => number), lanes };
  }

  /** Adds one as the state names it. */
  restore(number: number): Segment {
    assert(number > (this.current?.number ?? NOWHERE), "segments have rising numbers");
    const segment: Segment = { number, liveBytes: 0, deadBytes: 0, deadSinceMs: null };
    this.#all.push(segment);
    return segment;
  }

  /** Segments from the one with this number on. */
  from(number: number): readonly Segment[] {
    return this.#all.filter((segment) => segment.number >= number);
  }

  /** The segment of the lane's next record, which begins with that event. */
  place(queue: SegmentedLane, first: Seq): number {
    let current = this.current;
    if (current === null || this.#isFull()) {
      current = this.restore((current?.number ?? NOWHERE) + 1);
      this.#currentBytes = 0;
      this.changed = true;
    }
    if (queue.segments.begin(current.number, first)) this.changed = true;
    return current.number;
  }

  #isFull(): boolean {
    if (this.#currentBytes < this.#tuning.segmentBytes) return false;
    return this.#currentBytes >= this.#pendingBytes() / SEGMENTS_OF_BACKLOG;
  }

  /** A record of so many bytes was appended. */
  wrote(bytes: number): void {
    const { current } = this;
    if (current === null) return;
    this.#currentBytes += bytes;
    current.liveBytes += bytes;
  }

  /** A lane has so many bytes in it, and had so many more that were deleted. */
  found(number: number, liveBytes: number, deletedBytes: number, uncompactedSinceMs: number | null): void {
    const segment = this.#all.find((one) => one.number === number);
    if (segment === undefined) return;
    segment.liveBytes += liveBytes;
    if (segment === this.current) this.#currentBytes += liveBytes + deletedBytes;
    if (uncompactedSinceMs === null || deletedBytes === 0) return;
    segment.deadBytes += deletedBytes;
    segment.deadSinceMs = uncompactedSinceMs;
  }

  /** Records of about so many bytes in it were deleted. */
  deleted(number: number, bytes: number, nowMs: number): void {
    const segment = this.#all.find((one) => one.number === number);
    if (segment === undefined) return;
    segment.liveBytes = Math.max(0, segment.liveBytes - bytes);
    segment.deadBytes += bytes;
    segment.deadSinceMs ??= nowMs;
  }

  /** Nothing is left of these. */
  drop(numbers: ReadonlySet<number>): void {
    const kept = this.#all.filter(({ number }) => !numbers.has(number));
    if (kept.length === this.#all.length) return;
    this.#all.splice(0, this.#all.length, ...kept);
    this.changed = true;
  }
}
