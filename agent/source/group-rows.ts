/**
 * The row events of one open group. They are kept as bytes until the group's end was read, or only
 * counted once the group is larger than a part (`BufferedRows`); a group that was proven to be
 * committed is read again and cut into parts (`ReplayedRows`).
 */
import type { PartialTransaction } from "../change.ts";
import { HEADER_BYTES, eventTypeAt, unreadableEvent } from "./binlog-event.ts";
import { countRows } from "./decode/rows.ts";
import type { TableShape } from "./table-shapes.ts";

/** Most of a group that is held, and most that one part holds. */
export interface PartLimits {
  readonly bytes: number;
  readonly rows: number;
}

export const partLimits: PartLimits = { bytes: 1024 * 1024, rows: 1_024 };

/** More savepoints or rolled-back stretches than this in one group are not kept apart. */
const MARKS_MAX = 10_000;
const SLAB_BYTES = 256 * 1024;

/** One row event of a followed table, not decoded. */
export interface KeptRows {
  readonly shape: TableShape;
  readonly type: number;
  /** Without header and checksum; memory of its own. */
  readonly body: Buffer;
  /** Number of its first row image in the group and among those of its table; -1: the next one. */
  readonly ordinal: number;
  readonly imageIndex: number;
  /** False once a ROLLBACK TO took it back; it is counted then, and not delivered. */
  live: boolean;
}

/**
 * Copies event bodies together. A slice of the network's buffer would keep all of it alive: a few
 * kept rows among much noise would hold many times their size.
 */
export class Slab {
  #buffer = Buffer.alloc(0);
  #used = 0;

  keep(buffer: Buffer, start: number, end: number): Buffer {
    const length = end - start;
    if (length > SLAB_BYTES / 4) {
      const own = Buffer.allocUnsafeSlow(length);
      buffer.copy(own, 0, start, end);
      return own;
    }
    if (this.#used + length > this.#buffer.length) {
      this.#buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#used = 0;
    }
    const at = this.#used;
    buffer.copy(this.#buffer, at, start, end);
    this.#used = at + length;
    return this.#buffer.subarray(at, this.#used);
  }
}

interface Mark {
  readonly name: string;
  /** Events before the savepoint, while they are kept. */
  readonly index: number;
  /** Row images before the savepoint; known once the group is large. */
  ordinal: number;
}

/** Rows of a group whose outcome is not known yet. */
export class BufferedRows {
  readonly #limits: PartLimits;
  readonly #slab: Slab;
  #events: KeptRows[] = [];
  #marks: Mark[] = [];
  #bytes = 0;
  /** Exact number of images of the first `#counted` events, and an upper bound for all. */
  #rows = 0;
  #rowsAtMost = 0;
  #counts: number[] = [];
  #isLarge = false;
  #rolledBack: (readonly [number, number])[] = [];

  constructor(limits: PartLimits, slab: Slab) {
    this.#limits = limits;
    this.#slab = slab;
  }

  /** Larger than a part: nothing is kept any more but counts. */
  get isLarge(): boolean {
    return this.#isLarge;
  }

  get isEmpty(): boolean {
    return this.#events.length === 0 && this.#rows === 0;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get rowsAtMost(): number {
    return this.#rowsAtMost;
  }

  /** The kept events in their order, those taken back among them. Empty when large. */
  get events(): readonly KeptRows[] {
    return this.#events;
  }

  /** Ranges of ordinals that were taken back; complete when large. */
  get rolledBack(): readonly (readonly [number, number])[] {
    return this.#rolledBack;
  }

  hasLiveRows(): boolean {
    if (!this.#isLarge) return this.#events.some((event) => event.live);
    let live = this.#rows;
    for (const [from, to] of this.#rolledBack) live -= to - from;
    return live > 0;
  }

  add(shape: TableShape, buffer: Buffer, start: number, end: number): void {
    const type = eventTypeAt(buffer, start);
    const bodyStart = start + HEADER_BYTES;
    if (type === 39) {
      throw unreadableEvent(
        "a followed table has partial JSON updates",
        "Set binlog_row_value_options='' on the server.",
      );
    }
    this.#bytes += end - bodyStart;
    if (this.#isLarge) {
      this.#rows += countRows(shape.plan, type, buffer.subarray(bodyStart, end));
      return;
    }
    const body = this.#slab.keep(buffer, bodyStart, end);
    this.#events.push({ shape, type, body, ordinal: -1, imageIndex: -1, live: true });
    // Compressed events say nothing about their rows before they are inflated.
    this.#rowsAtMost +=
      type >= 166 ? Number.MAX_SAFE_INTEGER / 2 : Math.ceil(body.length / shape.rowBytesMin);
    if (this.#rowsAtMost > this.#limits.rows) this.#countKept();
    if (this.#rowsAtMost > this.#limits.rows || this.#bytes > this.#limits.bytes) this.#becomeLarge();
  }

  savepoint(name: string): void {
    const same = this.#marks.findIndex((mark) => mark.name === name);
    if (same >= 0) this.#marks.splice(same, 1);
    if (this.#marks.length >= MARKS_MAX) throw unreadableEvent("a transaction has too many savepoints");
    this.#marks.push({ name, index: this.#events.length, ordinal: this.#rows });
  }

  /** Takes back everything since the savepoint; false when there is none of that name. */
  rollbackTo(name: string): boolean {
    const at = this.#marks.findIndex((mark) => mark.name === name);
    const mark = this.#marks[at];
    if (mark === undefined) return false;
    this.#marks.length = at + 1;
    if (this.#isLarge) this.#takeBack(mark.ordinal, this.#rows);
    else for (const event of this.#events.slice(mark.index)) event.live = false;
    return true;
  }

  #countKept(): void {
    for (let index = this.#counts.length; index < this.#events.length; index += 1) {
      const event = this.#events[index];
      if (event === undefined) break;
      const count = countRows(event.shape.plan, event.type, event.body);
      this.#counts.push(count);
      this.#rows += count;
    }
    this.#rowsAtMost = this.#rows;
  }

  #becomeLarge(): void {
    this.#countKept();
    const before = [0];
    for (const count of this.#counts) before.push((before.at(-1) ?? 0) + count);
    for (const mark of this.#marks) mark.ordinal = before[mark.index] ?? 0;
    for (const [index, event] of this.#events.entries()) {
      if (!event.live) this.#takeBack(before[index] ?? 0, before[index + 1] ?? 0);
    }
    this.#isLarge = true;
    this.#events = [];
    this.#counts = [];
  }

  /** Keeps the ranges sorted, apart from each other and as few as possible. */
  #takeBack(from: number, to: number): void {
    let first = from;
    while ((this.#rolledBack.at(-1)?.[1] ?? -1) >= first) {
      first = Math.min(first, this.#rolledBack.pop()?.[0] ?? first);
    }
    if (this.#rolledBack.length >= MARKS_MAX) {
      throw unreadableEvent("a transaction took too many stretches of rows back");
    }
    if (to > first) this.#rolledBack.push([first, to]);
  }
}

/** A part that was cut off: its events, and the ordinals before and behind it. */
export interface CutPart {
  readonly events: readonly KeptRows[];
  readonly bytes: number;
  readonly rows: number;
  readonly firstOrdinal: number;
  readonly nextOrdinal: number;
}

/**
 * Rows of a large group that is known to be committed, from its start. A part is closed when the
 * next event would make it larger than a part may be, so the boundaries depend on the group's
 * bytes alone, wherever the reading starts.
 */
export class ReplayedRows {
  readonly #partial: PartialTransaction;
  readonly #limits: PartLimits;
  readonly #slab: Slab;
  readonly #cut: (part: CutPart) => void;
  readonly #images = new Map<number, number>();
  #events: KeptRows[] = [];
  #bytes = 0;
  #rows = 0;
  #ordinal = 0;
  #firstOrdinal: number;
  #nextOrdinal: number;
  #range = 0;

  constructor(partial: PartialTransaction, limits: PartLimits, slab: Slab, cut: (part: CutPart) => void) {
    this.#partial = partial;
    this.#limits = limits;
    this.#slab = slab;
    this.#cut = cut;
    this.#firstOrdinal = partial.ordinal;
    this.#nextOrdinal = partial.ordinal;
  }

  add(shape: TableShape, buffer: Buffer, start: number, end: number): void {
    const type = eventTypeAt(buffer, start);
    const body = buffer.subarray(start + HEADER_BYTES, end);
    const count = countRows(shape.plan, type, body);
    const ordinal = this.#ordinal;
    const imageIndex = this.#images.get(shape.plan.table) ?? 0;
    this.#ordinal += count;
    this.#images.set(shape.plan.table, imageIndex + count);
    if (ordinal < this.#partial.ordinal || this.#wasTakenBack(ordinal)) return;
    const isFull = this.#bytes + body.length > this.#limits.bytes || this.#rows + count > this.#limits.rows;
    if (isFull && this.#events.length > 0) this.#cut(this.takePart());
    const kept = this.#slab.keep(buffer, start + HEADER_BYTES, end);
    this.#events.push({ shape, type, body: kept, ordinal, imageIndex, live: true });
    this.#bytes += kept.length;
    this.#rows += count;
    this.#nextOrdinal = this.#ordinal;
  }

  /** What was gathered since the last part. */
  takePart(): CutPart {
    const part: CutPart = {
      events: this.#events,
      bytes: this.#bytes,
      rows: this.#rows,
      firstOrdinal: this.#firstOrdinal,
      nextOrdinal: this.#nextOrdinal,
    };
    this.#events = [];
    this.#bytes = 0;
    this.#rows = 0;
    this.#firstOrdinal = this.#nextOrdinal;
    return part;
  }

  #wasTakenBack(ordinal: number): boolean {
    const ranges = this.#partial.rolledBack;
    while (this.#range < ranges.length && (ranges[this.#range]?.[1] ?? 0) <= ordinal) this.#range += 1;
    return (ranges[this.#range]?.[0] ?? Number.MAX_SAFE_INTEGER) <= ordinal;
  }
}
