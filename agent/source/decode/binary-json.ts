/**
 * MySQL's binary JSON as the text that the server prints: members in stored order, ", " and ": "
 * between them, numbers exact, dates and times as strings, bytes as "base64:type<n>:...".
 * (MariaDB's JSON is plain text and never comes here.)
 */
import { decimalLength, decimalReader } from "./numbers.ts";
import { columnType, unreadable } from "./wire.ts";

const kinds = {
  smallObject: 0,
  largeObject: 1,
  smallArray: 2,
  largeArray: 3,
  literal: 4,
  int16: 5,
  uint16: 6,
  int32: 7,
  uint32: 8,
  int64: 9,
  uint64: 10,
  double: 11,
  string: 12,
  opaque: 15,
} as const;

/** The server itself refuses documents that are nested deeper. */
const DEPTH_MAX = 100;

/** Where one container stands and how wide its numbers are. */
interface Container {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  readonly isLarge: boolean;
  readonly depth: number;
}

/** JSON text of a stored document. Throws SOURCE_UNREADABLE on anything that cannot be. */
export function jsonText(document: Buffer): string {
  // The server stores nothing at all for the default of a NOT NULL column that was never set.
  if (document.length === 0) {
    return "null";
  }
  try {
    return valueText(document, document.readUInt8(0), 1, 0);
  } catch (error) {
    if (error instanceof RangeError) {
      throw unreadable("a stored JSON document is damaged");
    }
    throw error;
  }
}

function valueText(buffer: Buffer, kind: number, at: number, depth: number): string {
  switch (kind) {
    case kinds.smallObject:
    case kinds.largeObject:
      return objectText(container(buffer, at, kind === kinds.largeObject, depth));
    case kinds.smallArray:
    case kinds.largeArray:
      return arrayText(container(buffer, at, kind === kinds.largeArray, depth));
    case kinds.literal:
      return literalText(buffer.readUInt8(at));
    case kinds.int16:
      return String(buffer.readInt16LE(at));
    case kinds.uint16:
      return String(buffer.readUInt16LE(at));
    case kinds.int32:
      return String(buffer.readInt32LE(at));
    case kinds.uint32:
      return String(buffer.readUInt32LE(at));
    case kinds.int64:
      return buffer.readBigInt64LE(at).toString();
    case kinds.uint64:
      return buffer.readBigUInt64LE(at).toString();
    case kinds.double:
      return doubleText(buffer.readDoubleLE(at));
    case kinds.string: {
      const { from, to } = sized(buffer, at);
      return JSON.stringify(buffer.utf8Slice(from, to));
    }
    case kinds.opaque:
      return opaqueText(buffer, at);
    default:
      throw unreadable(`a stored JSON document holds a value of the unknown kind ${kind}`);
  }
}

function literalText(literal: number): string {
  const text = ["null", "true", "false"][literal];
  if (text === undefined) {
    throw unreadable("a stored JSON document holds an unknown literal");
  }
  return text;
}

/** The server marks a double without fraction by ".0". */
function doubleText(value: number): string {
  if (!Number.isFinite(value)) {
    throw unreadable("a stored JSON document holds a double that is no number");
  }
  const text = Object.is(value, -0) ? "-0" : String(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

function container(buffer: Buffer, start: number, isLarge: boolean, depth: number): Container {
  if (depth > DEPTH_MAX) {
    throw unreadable("a stored JSON document is nested too deep");
  }
  const size = isLarge ? buffer.readUInt32LE(start + 4) : buffer.readUInt16LE(start + 2);
  if (start + size > buffer.length) {
    throw unreadable("a stored JSON document ends too early");
  }
  return { buffer, start, end: start + size, isLarge, depth };
}

function uint(of: Container, at: number): number {
  return of.isLarge ? of.buffer.readUInt32LE(at) : of.buffer.readUInt16LE(at);
}

function objectText(of: Container): string {
  const width = of.isLarge ? 4 : 2;
  const count = uint(of, of.start);
  const keys = of.start + 2 * width;
  const values = keys + count * (width + 2);
  requireInside(of, values + count * (width + 1));
  const members: string[] = [];
  for (let index = 0; index < count; index++) {
    const entry = keys + index * (width + 2);
    const from = of.start + uint(of, entry);
    const to = from + of.buffer.readUInt16LE(entry + width);
    requireInside(of, to);
    const key = JSON.stringify(of.buffer.utf8Slice(from, to));
    members.push(`${key}: ${entryText(of, values + index * (width + 1))}`);
  }
  return `{${members.join(", ")}}`;
}

function arrayText(of: Container): string {
  const width = of.isLarge ? 4 : 2;
  const count = uint(of, of.start);
  const values = of.start + 2 * width;
  requireInside(of, values + count * (width + 1));
  const items: string[] = [];
  for (let index = 0; index < count; index++) {
    items.push(entryText(of, values + index * (width + 1)));
  }
  return `[${items.join(", ")}]`;
}

function requireInside(of: Container, end: number): void {
  if (end > of.end) {
    throw unreadable("a stored JSON document points outside of itself");
  }
}

/** A value entry: its kind, and then the value itself where it fits or the place where it is. */
function entryText(of: Container, at: number): string {
  const kind = of.buffer.readUInt8(at);
  const isSmall = kind === kinds.literal || kind === kinds.int16 || kind === kinds.uint16;
  if (isSmall || (of.isLarge && (kind === kinds.int32 || kind === kinds.uint32))) {
    return valueText(of.buffer, kind, at + 1, of.depth + 1);
  }
  const place = of.start + uint(of, at + 1);
  requireInside(of, place + 1);
  return valueText(of.buffer, kind, place, of.depth + 1);
}

/** The bytes behind a length of 7 bits a byte. */
function sized(buffer: Buffer, at: number): { from: number; to: number } {
  let length = 0;
  let from = at;
  for (let shift = 0; ; shift += 7) {
    const byte = buffer.readUInt8(from++);
    length += (byte & 0x7f) * 2 ** shift;
    if ((byte & 0x80) === 0) {
      break;
    }
    if (shift > 28) {
      throw unreadable("a stored JSON document holds a length that cannot be");
    }
  }
  if (from + length > buffer.length) {
    throw unreadable("a stored JSON document ends too early");
  }
  return { from, to: from + length };
}

function opaqueText(buffer: Buffer, at: number): string {
  const type = buffer.readUInt8(at);
  const { from, to } = sized(buffer, at + 1);
  switch (type) {
    case columnType.newDecimal: {
      const precision = buffer.readUInt8(from);
      const scale = buffer.readUInt8(from + 1);
      if (from + 2 + decimalLength(precision, scale) > to) {
        throw unreadable("a stored JSON document holds a decimal that ends too early");
      }
      return decimalReader(precision, scale)(buffer, from + 2);
    }
    case columnType.date:
    case columnType.datetime:
    case columnType.timestamp:
      return datetimeText(buffer.readBigInt64LE(from), type === columnType.date);
    case columnType.time:
      return timeText(buffer.readBigInt64LE(from));
    default:
      return `"base64:type${type}:${buffer.base64Slice(from, to)}"`;
  }
}

/** The server's packed DATETIME: year * 13 + month, day, hour, minute, second, microsecond. */
function datetimeText(packed: bigint, isDate: boolean): string {
  const bits = (from: bigint, count: bigint): number => Number((packed >> from) & ((1n << count) - 1n));
  const yearMonth = Number(packed >> 46n);
  const date = `${digits(Math.floor(yearMonth / 13), 4)}-${digits(yearMonth % 13, 2)}-${digits(bits(41n, 5n), 2)}`;
  if (isDate) {
    return `"${date}"`;
  }
  const time = `${digits(bits(36n, 5n), 2)}:${digits(bits(30n, 6n), 2)}:${digits(bits(24n, 6n), 2)}`;
  return `"${date} ${time}.${digits(bits(0n, 24n), 6)}"`;
}

function timeText(packed: bigint): string {
  const absolute = packed < 0n ? -packed : packed;
  const bits = (from: bigint, count: bigint): number => Number((absolute >> from) & ((1n << count) - 1n));
  const time = `${digits(bits(36n, 10n), 2)}:${digits(bits(30n, 6n), 2)}:${digits(bits(24n, 6n), 2)}`;
  return `"${packed < 0n ? "-" : ""}${time}.${digits(bits(0n, 24n), 6)}"`;
}

function digits(value: number, width: number): string {
  return String(value).padStart(width, "0");
}
