/**
 * Rows events: walks the stored rows by the plan's lengths and decodes the followed columns only.
 * Whatever does not fit to the last byte throws SOURCE_UNREADABLE; a wrong value is never given.
 */
import type { RowKind, Value } from "../../change.ts";
import { AgentError } from "../../kernel/errors.ts";
import { inflateRows } from "./inflate.ts";
import { located, type TablePlan } from "./table-plan.ts";
import { type Oddity, type OddityNotes, unreadable } from "./wire.ts";

/** Takes the rows of an event, one after the other. The arrays are the sink's to keep. */
export interface RowSink {
  /** As in RowChange: `row` in the order of the followed columns, `old` sparse, update only. */
  row(kind: RowKind, row: readonly (Value | undefined)[], old: readonly (Value | undefined)[] | null): void;
  /** A value that is not what it seems: counted, once for each decoded value. */
  oddity(what: Oddity, table: string): void;
}

interface EventShape {
  readonly kind: RowKind;
  readonly hasExtraData: boolean;
  readonly isCompressed: boolean;
}

/** Numbers of events that carry rows in a form that is read here. */
const shapes = new Map<number, EventShape>();
for (const [index, kind] of (["insert", "update", "delete"] as const).entries()) {
  shapes.set(23 + index, { kind, hasExtraData: false, isCompressed: false });
  shapes.set(30 + index, { kind, hasExtraData: true, isCompressed: false });
  shapes.set(166 + index, { kind, hasExtraData: false, isCompressed: true });
  shapes.set(169 + index, { kind, hasExtraData: true, isCompressed: true });
}

/**
 * Decodes all rows of an event and hands them to the sink. `body` is the event without its 19 byte
 * header and without checksum. Returns the number of rows. When it throws, the sink may have got
 * the rows before the damage: the caller drops them. A cut exactly between two rows of one event
 * looks like its end; the caller's check of the event's length or checksum guards against that.
 */
export function decodeRows(plan: TablePlan, eventType: number, body: Buffer, sink: RowSink): number {
  const notes: OddityNotes = { note: (what) => sink.oddity(what, plan.tableName) };
  return guarded(plan, () => {
    const { shape, rows, start } = openEvent(plan, eventType, body);
    const { starts, ends, oldStarts, oldEnds } = plan.scratch;
    let at = start;
    let count = 0;
    while (at < rows.length) {
      if (shape.kind === "update") {
        at = walkRow(plan, rows, at, [oldStarts, oldEnds]);
        at = walkRow(plan, rows, at, [starts, ends]);
        const row = readRow(plan, rows, notes);
        sink.row("update", row, readOld(plan, rows, row, notes));
      } else {
        at = walkRow(plan, rows, at, [starts, ends]);
        sink.row(shape.kind, readRow(plan, rows, notes), null);
      }
      count++;
    }
    return count;
  });
}

/** Number of rows of an event, by lengths alone: nothing is decoded, and the same is refused. */
export function countRows(plan: TablePlan, eventType: number, body: Buffer): number {
  return guarded(plan, () => {
    const { shape, rows, start } = openEvent(plan, eventType, body);
    const { starts, ends } = plan.scratch;
    let at = start;
    let count = 0;
    while (at < rows.length) {
      at = walkRow(plan, rows, at, [starts, ends]);
      if (shape.kind === "update") {
        at = walkRow(plan, rows, at, [starts, ends]);
      }
      count++;
    }
    return count;
  });
}

function guarded(plan: TablePlan, read: () => number): number {
  try {
    return read();
  } catch (error) {
    if (error instanceof AgentError && error.code === "SOURCE_UNREADABLE") {
      throw located(error, `table ${plan.fullName}`);
    }
    if (error instanceof RangeError) {
      throw located(unreadable("a rows event is damaged"), `table ${plan.fullName}`);
    }
    throw error;
  }
}

interface OpenEvent {
  readonly shape: EventShape;
  readonly rows: Buffer;
  readonly start: number;
}

function openEvent(plan: TablePlan, eventType: number, body: Buffer): OpenEvent {
  const shape = shapes.get(eventType);
  if (shape === undefined) {
    throw unreadable(
      `events of type ${eventType} are not read`,
      eventType === 39 ? "Set binlog_row_value_options='' on the server." : undefined,
    );
  }
  // Table id and flags.
  let at = 8;
  if (shape.hasExtraData) {
    const length = body.readUInt16LE(at);
    if (length < 2) {
      throw unreadable("a rows event has extra data of an impossible length");
    }
    at += length;
  }
  let columns = body.readUInt8(at++);
  if (columns === 252) {
    columns = body.readUInt16LE(at);
    at += 2;
  }
  if (columns !== plan.widths.length) {
    throw unreadable(`a rows event has ${columns} columns, its table map ${plan.widths.length}`);
  }
  for (let image = shape.kind === "update" ? 2 : 1; image > 0; image--) {
    at = requireFullImage(body, at, columns);
  }
  const rows = shape.isCompressed ? inflateRows(body, at) : body;
  const start = shape.isCompressed ? 0 : at;
  if (start >= rows.length) {
    throw unreadable("a rows event holds no row");
  }
  return { shape, rows, start };
}

function requireFullImage(body: Buffer, start: number, columns: number): number {
  for (let column = 0; column < columns; column++) {
    if ((body.readUInt8(start + (column >> 3)) & (1 << (column & 7))) === 0) {
      throw unreadable(
        "a rows event lacks columns (a row image other than FULL)",
        "Set binlog_row_image=FULL on the server, for all its connections.",
      );
    }
  }
  return start + ((columns + 7) >> 3);
}

/**
 * Notes where the followed values of one stored row stand, and returns its end. This is the inner
 * loop of capture: a shop's rows are wide, and few of their columns are followed.
 */
function walkRow(
  plan: TablePlan,
  rows: Buffer,
  from: number,
  [starts, ends]: readonly [Int32Array, Int32Array],
): number {
  const { widths, slots } = plan;
  const columns = widths.length;
  const limit = rows.length;
  let at = from + ((columns + 7) >> 3);
  let nulls = 0;
  for (let column = 0; column < columns; column++) {
    if ((column & 7) === 0) {
      nulls = rows[from + (column >> 3)] ?? 0;
    }
    const slot = slots[column] ?? -1;
    if ((nulls & (1 << (column & 7))) !== 0) {
      if (slot >= 0) {
        starts[slot] = -1;
      }
      continue;
    }
    let width = widths[column] ?? 0;
    if (width < 0) {
      const lengthBytes = -width;
      // Bytes past the end read as 0 here; the check of `at` below refuses the row then.
      width = rows[at] ?? 0;
      if (lengthBytes > 1) {
        width = longerWidth(rows, at, lengthBytes);
      }
      at += lengthBytes;
    }
    if (slot >= 0) {
      starts[slot] = at;
      ends[slot] = at + width;
    }
    at += width;
    if (at > limit) {
      throw unreadable("a row goes beyond the end of its event");
    }
  }
  if (at > limit) {
    throw unreadable("a row goes beyond the end of its event");
  }
  return at;
}

function longerWidth(rows: Buffer, at: number, lengthBytes: number): number {
  const two = (rows[at] ?? 0) | ((rows[at + 1] ?? 0) << 8);
  return lengthBytes === 2
    ? two
    : two + ((rows[at + 2] ?? 0) + (lengthBytes === 4 ? (rows[at + 3] ?? 0) : 0) * 256) * 65_536;
}

function readRow(plan: TablePlan, rows: Buffer, notes: OddityNotes): (Value | undefined)[] {
  const { readers } = plan;
  const { starts, ends } = plan.scratch;
  const row: (Value | undefined)[] = [];
  for (let slot = 0; slot < readers.length; slot++) {
    const read = readers[slot] ?? null;
    const start = starts[slot] ?? -1;
    if (read === null) {
      row.push(undefined);
    } else {
      row.push(start < 0 ? null : read(rows, start, ends[slot] ?? 0, notes));
    }
  }
  return row;
}

/** Old values of the columns whose bytes differ; of all when one of them belongs to the key. */
function readOld(
  plan: TablePlan,
  rows: Buffer,
  row: readonly (Value | undefined)[],
  notes: OddityNotes,
): (Value | undefined)[] {
  const { readers } = plan;
  const { oldStarts, oldEnds } = plan.scratch;
  const isComplete = plan.keySlots.some((slot) => readers[slot] !== null && !isSame(plan, rows, slot));
  const old: (Value | undefined)[] = [];
  for (let slot = 0; slot < readers.length; slot++) {
    const read = readers[slot] ?? null;
    if (read === null) {
      old.push(undefined);
    } else if (isSame(plan, rows, slot)) {
      old.push(isComplete ? row[slot] : undefined);
    } else {
      const start = oldStarts[slot] ?? -1;
      old.push(start < 0 ? null : read(rows, start, oldEnds[slot] ?? 0, notes));
    }
  }
  return old;
}

function isSame(plan: TablePlan, rows: Buffer, slot: number): boolean {
  const { starts, ends, oldStarts, oldEnds } = plan.scratch;
  const start = starts[slot] ?? -1;
  const oldStart = oldStarts[slot] ?? -1;
  if (start < 0 || oldStart < 0) {
    return start === oldStart;
  }
  const length = (ends[slot] ?? 0) - start;
  if ((oldEnds[slot] ?? 0) - oldStart !== length) {
    return false;
  }
  if (length > 64) {
    return rows.compare(rows, oldStart, oldStart + length, start, start + length) === 0;
  }
  for (let index = 0; index < length; index++) {
    if (rows[start + index] !== rows[oldStart + index]) {
      return false;
    }
  }
  return true;
}
