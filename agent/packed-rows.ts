/**
 * Rows of a chunk as bytes. A snapshot holds hundreds of values a row and thousands of rows at a time:
 * as JavaScript values each would be an object that outlives a collection or two, and collecting them
 * would cost more than reading them. Here all values of all rows lie in one buffer, and who encodes
 * them copies bytes.
 */
import { isUtf8 } from "node:buffer";
import type { PackedRows, Row, Value } from "./change.ts";
import { assert } from "./kernel/assert.ts";

/** What a cell is: `number` and `text` lie in the bytes, as digits and as UTF-8; `other` is a value apart. */
export const cellKinds = { missing: 0, null: 1, number: 2, text: 3, other: 4 } as const;

const FIRST_BYTES = 64 * 1024;
const FIRST_CELLS = 4096;
/** A buffer that grew beyond this is given back. */
const KEPT_BYTES = 2 * 1024 * 1024;
/** A text with more bytes stays where it came, so that the buffer does not grow by it. */
const TEXT_BYTES_MAX = 64 * 1024;

/** A text that was not copied: bytes of UTF-8 in a buffer that nobody writes to any more. */
interface LargeText {
  readonly utf8: Buffer;
}

/** Takes rows cell by cell, each with as many cells as the table has followed columns, in their order. */
export class RowPacker implements PackedRows {
  #width: number;
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #ends = new Uint32Array(FIRST_CELLS);
  #kinds = new Uint8Array(FIRST_CELLS);
  #cells = 0;
  #used = 0;
  readonly #others = new Map<number, Value | LargeText>();

  /** @param width cells of each row, at least one */
  constructor(width: number) {
    assert(width > 0, "a row has columns");
    this.#width = width;
  }

  /** Begins anew, in the same memory: every row so far becomes invalid. */
  reset(width: number): void {
    assert(width > 0, "a row has columns");
    this.#width = width;
    this.#cells = 0;
    this.#used = 0;
    this.#others.clear();
    if (this.#bytes.length > KEPT_BYTES) this.#bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  }

  get width(): number {
    return this.#width;
  }

  /** Whole rows. */
  get length(): number {
    return Math.floor(this.#cells / this.#width);
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  // --- writing --------------------------------------------------------------------------------

  /** The shop's table has no such column. */
  missing(): void {
    this.#end(cellKinds.missing);
  }

  null(): void {
    this.#end(cellKinds.null);
  }

  /** A number in the form that JSON has of it and JavaScript prints: `12`, `-0.5`, `1e+21`. */
  number(from: Uint8Array, start: number, end: number): void {
    this.#copy(from, start, end);
    this.#end(cellKinds.number);
  }

  /** ASCII without a need for a check: digits of a decimal, a date. */
  ascii(from: Uint8Array, start: number, end: number): void {
    this.#copy(from, start, end);
    this.#end(cellKinds.text);
  }

  /** A date and a time of day, `2026-01-31 23:59:59` with or without a fraction, as RFC 3339 in UTC. */
  moment(from: Uint8Array, start: number, end: number): void {
    this.#copy(from, start, end);
    this.#bytes[this.#used - (end - start) + 10] = 0x54;
    this.#room(1);
    this.#bytes[this.#used++] = 0x5a;
    this.#end(cellKinds.text);
  }

  /** Text in UTF-8. False, and nothing taken, where the bytes are not that. `from` stays as it is. */
  utf8(from: Buffer, start: number, end: number): boolean {
    if (!isAscii(from, start, end) && !isUtf8(from.subarray(start, end))) return false;
    if (end - start > TEXT_BYTES_MAX) {
      this.#other({ utf8: from.subarray(start, end) });
    } else {
      this.#copy(from, start, end);
      this.#end(cellKinds.text);
    }
    return true;
  }

  /** Any value, in its own form. */
  value(value: Value | undefined): void {
    if (value === undefined) return this.missing();
    if (value === null) return this.null();
    const text = typeof value === "number" ? numberText(value) : value;
    if (typeof text !== "string" || text.length * 3 > TEXT_BYTES_MAX || !text.isWellFormed())
      return this.#other(value);
    this.#room(text.length * 3);
    this.#used += this.#bytes.write(text, this.#used);
    this.#end(typeof value === "number" ? cellKinds.number : cellKinds.text);
  }

  /** A whole row of values. */
  add(row: Row): void {
    for (let column = 0; column < this.#width; column += 1) this.value(row[column]);
  }

  /** A whole row of others. */
  copy(rows: PackedRows, row: number): void {
    for (let column = 0; column < this.#width; column += 1) {
      const kind = rows.kindOf(row, column);
      if (kind === cellKinds.other) this.value(rows.valueOf(row, column));
      else {
        this.#copy(rows.bytes, rows.startOf(row, column), rows.endOf(row, column));
        this.#end(kind);
      }
    }
  }

  #copy(from: Uint8Array, start: number, end: number): void {
    const length = end - start;
    this.#room(length);
    const bytes = this.#bytes;
    const used = this.#used;
    // Most are a few bytes long: shorter than the way into the runtime and back.
    if (length < 32) for (let at = 0; at < length; at += 1) bytes[used + at] = from[start + at] ?? 0;
    else bytes.set(from.subarray(start, end), used);
    this.#used = used + length;
  }

  #room(bytes: number): void {
    if (this.#used + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * this.#bytes.length, this.#used + bytes));
    this.#bytes.copy(larger, 0, 0, this.#used);
    this.#bytes = larger;
  }

  #other(value: Value | LargeText): void {
    this.#others.set(this.#cells, value);
    this.#end(cellKinds.other);
  }

  #end(kind: number): void {
    const cell = this.#cells;
    if (cell === this.#ends.length) this.#growCells();
    this.#ends[cell] = this.#used;
    this.#kinds[cell] = kind;
    this.#cells = cell + 1;
  }

  #growCells(): void {
    const ends = new Uint32Array(2 * this.#ends.length);
    ends.set(this.#ends);
    this.#ends = ends;
    const kinds = new Uint8Array(ends.length);
    kinds.set(this.#kinds);
    this.#kinds = kinds;
  }

  // --- reading --------------------------------------------------------------------------------

  /** One of `cellKinds`. */
  kindOf(row: number, column: number): number {
    return this.#kinds[row * this.#width + column] ?? cellKinds.missing;
  }

  /** Where in `bytes` the cell begins. */
  startOf(row: number, column: number): number {
    const cell = row * this.#width + column;
    return cell === 0 ? 0 : (this.#ends[cell - 1] ?? 0);
  }

  endOf(row: number, column: number): number {
    return this.#ends[row * this.#width + column] ?? 0;
  }

  valueOf(row: number, column: number): Value | undefined {
    const cell = row * this.#width + column;
    switch (this.kindOf(row, column)) {
      case cellKinds.null:
        return null;
      case cellKinds.number:
        return Number(this.#bytes.latin1Slice(this.startOf(row, column), this.endOf(row, column)));
      case cellKinds.text:
        return this.#bytes.utf8Slice(this.startOf(row, column), this.endOf(row, column));
      case cellKinds.other:
        return this.#otherAt(cell);
      default:
        return undefined;
    }
  }

  /** The row as values; with `columns` these alone, the others undefined. */
  rowOf(row: number, columns?: readonly number[]): Row {
    const values: (Value | undefined)[] = [];
    if (columns === undefined)
      for (let column = 0; column < this.#width; column += 1) values.push(this.valueOf(row, column));
    else for (const column of columns) values[column] = this.valueOf(row, column);
    return values;
  }

  *[Symbol.iterator](): Generator<Row> {
    for (let row = 0; row < this.length; row += 1) yield this.rowOf(row);
  }

  #otherAt(cell: number): Value | undefined {
    const value = this.#others.get(cell);
    return typeof value === "object" && value !== null && "utf8" in value
      ? value.utf8.utf8Slice(0, value.utf8.length)
      : value;
  }
}

/** Rows of so many columns that are values already. */
export function packRows(width: number, rows: Iterable<Row>): PackedRows {
  const packer = new RowPacker(width);
  for (const row of rows) packer.add(row);
  return packer;
}

/** A number in the shortest form that reads back the same; minus zero keeps its sign. */
function numberText(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

function isAscii(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start > 64) return false;
  for (let at = start; at < end; at += 1) if ((bytes[at] ?? 0) >= 0x80) return false;
  return true;
}
