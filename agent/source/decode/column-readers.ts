/** For each column: how long a stored value is, and the function that reads it. */
import type { Value } from "../../change.ts";
import { jsonText } from "./binary-json.ts";
import { charsetOfCollation } from "./collations.ts";
import { type ColumnDefinition, parseColumnType, type SchemaColumn } from "./column-definition.ts";
import { inflateColumn } from "./inflate.ts";
import * as numbers from "./numbers.ts";
import type { MappedColumn } from "./table-map.ts";
import * as temporal from "./temporal.ts";
import { textReader } from "./text.ts";
import { BINARY_COLLATION, columnType as t, type OddityNotes, unreadable } from "./wire.ts";

/** Reads one stored value between two offsets. The caller has checked that they lie inside. */
export type ValueReader = (buffer: Buffer, start: number, end: number, notes: OddityNotes) => Value;

/** A column as the stream maps it, with what today's schema says about it where that is known. */
export interface PlannedColumn {
  readonly mapped: MappedColumn;
  readonly schema: SchemaColumn | null;
}

/** True for the old temporal types, which MariaDB 5.3's formats with a fraction share. */
export function isAmbiguousTemporal(type: number): boolean {
  return type === t.time || type === t.datetime || type === t.timestamp;
}

/**
 * Stored length of a column: n > 0 for n bytes, -n for a value behind a length of n bytes. Throws
 * SOURCE_UNREADABLE where no length can be known, because nothing after it could be found then.
 */
export function storedWidth(column: PlannedColumn): number {
  const { type, size, scale } = column.mapped;
  switch (type) {
    case t.tiny:
    case t.year:
      return 1;
    case t.short:
      return 2;
    case t.int24:
    case t.date:
    case t.newDate:
      return 3;
    case t.long:
    case t.float:
      return 4;
    case t.longlong:
    case t.double:
      return 8;
    case t.newDecimal:
      return numbers.decimalLength(size, scale);
    case t.bit:
      return (size + 7) >> 3;
    case t.enum:
    case t.set:
      return size;
    case t.timestamp2:
      return 4 + temporal.fractionLength(size);
    case t.datetime2:
      return 5 + temporal.fractionLength(size);
    case t.time2:
      return 3 + temporal.fractionLength(size);
    case t.time:
    case t.datetime:
    case t.timestamp:
      return oldTemporal(column).width;
    case t.string:
    case t.varchar:
    case t.varcharCompressed:
      return size > 255 ? -2 : -1;
    case t.tinyBlob:
    case t.mediumBlob:
    case t.longBlob:
    case t.blob:
    case t.blobCompressed:
    case t.json:
    case t.geometry:
    case t.vector:
      if (size < 1 || size > 4) {
        throw unreadable(`column type ${type} with a length of ${size} bytes cannot be`);
      }
      return -size;
    default:
      throw unreadable(`column type ${type} has no length that is known`);
  }
}

interface OldTemporal {
  readonly width: number;
  readonly read: temporal.TemporalReader;
}

function oldTemporal({ mapped, schema }: PlannedColumn): OldTemporal {
  const digits = schema === null ? 0 : (parseColumnType(schema.columnType).numbers[0] ?? 0);
  switch (mapped.type) {
    case t.time:
      return digits === 0
        ? { width: 3, read: temporal.readTime }
        : { width: temporal.hiresLength("time", digits), read: temporal.hiresTimeReader(digits) };
    case t.datetime:
      return digits === 0
        ? { width: 8, read: temporal.readDatetime }
        : { width: temporal.hiresLength("datetime", digits), read: temporal.hiresDatetimeReader(digits) };
    default:
      return digits === 0
        ? { width: 4, read: temporal.readTimestamp }
        : { width: temporal.hiresLength("timestamp", digits), read: temporal.hiresTimestampReader(digits) };
  }
}

/** The reader of a followed column. Throws SOURCE_UNREADABLE where none would be lossless. */
export function valueReader(column: PlannedColumn): ValueReader {
  const { mapped, schema } = column;
  const definition = schema === null ? null : parseColumnType(schema.columnType);
  switch (mapped.type) {
    case t.tiny:
    case t.short:
    case t.int24:
    case t.long:
    case t.longlong:
      return integerReader(mapped.type, isUnsigned(mapped, definition));
    case t.float:
      return numbers.floatNumber;
    case t.double:
      return numbers.doubleNumber;
    case t.newDecimal:
      return numbers.decimalReader(mapped.size, mapped.scale);
    case t.year:
      return (buffer, start) => (buffer[start] === 0 ? 0 : 1900 + (buffer[start] ?? 0));
    case t.bit:
      return mapped.size > 53
        ? numbers.bigEndianText
        : (buffer, start, end) => Number(numbers.bigEndianText(buffer, start, end));
    case t.enum:
      return enumReader(memberTexts(column, definition));
    case t.set:
      return setReader(memberTexts(column, definition));
    case t.json:
      return (buffer, start, end) => ({ json: jsonText(buffer.subarray(start, end)) });
    case t.geometry:
    case t.vector:
      return readBase64;
    case t.string:
    case t.varchar:
    case t.varcharCompressed:
    case t.tinyBlob:
    case t.mediumBlob:
    case t.longBlob:
    case t.blob:
    case t.blobCompressed:
      return bytesReader(column, definition);
    default:
      return withoutEnd(temporalReader(column));
  }
}

function temporalReader(column: PlannedColumn): temporal.TemporalReader {
  const { type, size } = column.mapped;
  switch (type) {
    case t.date:
    case t.newDate:
      return temporal.readDate;
    case t.time:
    case t.datetime:
    case t.timestamp:
      return oldTemporal(column).read;
    case t.time2:
      return temporal.time2Reader(size);
    case t.datetime2:
      return temporal.datetime2Reader(size);
    case t.timestamp2:
      return temporal.timestamp2Reader(size);
    default:
      throw unreadable(`column type ${type} cannot be decoded`);
  }
}

function withoutEnd(read: temporal.TemporalReader): ValueReader {
  return (buffer, start, _end, notes) => read(buffer, start, notes);
}

function isUnsigned(mapped: MappedColumn, definition: ColumnDefinition | null): boolean {
  const unsigned = mapped.unsigned ?? definition?.unsigned;
  if (unsigned === undefined) {
    throw unreadable("nothing says whether an integer column is signed");
  }
  return unsigned;
}

function integerReader(type: number, unsigned: boolean): ValueReader {
  switch (type) {
    case t.tiny:
      return unsigned
        ? (buffer, start) => buffer[start] ?? null
        : (buffer, start) => ((buffer[start] ?? 0) << 24) >> 24;
    case t.short:
      return unsigned
        ? (buffer, start) => (buffer[start] ?? 0) | ((buffer[start + 1] ?? 0) << 8)
        : (buffer, start) => (((buffer[start] ?? 0) << 16) | ((buffer[start + 1] ?? 0) << 24)) >> 16;
    case t.int24:
      return unsigned
        ? (buffer, start) => buffer.readUIntLE(start, 3)
        : (buffer, start) => buffer.readIntLE(start, 3);
    case t.long:
      return unsigned
        ? (buffer, start) => buffer.readUInt32LE(start)
        : (buffer, start) => buffer.readInt32LE(start);
    default:
      return unsigned ? numbers.bigintUnsignedText : numbers.bigintText;
  }
}

/** The column's character set: the stream's word first, it is of the event's own time. */
function charsetOf({ mapped, schema }: PlannedColumn): string {
  const streamed = mapped.collation === null ? null : charsetOfCollation(mapped.collation);
  if (streamed !== null) {
    return streamed;
  }
  if (schema === null) {
    throw unreadable(
      mapped.collation === null
        ? "nothing names the character set of a text column"
        : `collation ${mapped.collation} is not known`,
    );
  }
  return schema.charset ?? "binary";
}

function memberTexts(column: PlannedColumn, definition: ColumnDefinition | null): readonly string[] {
  const { members } = column.mapped;
  if (members === null) {
    if (definition === null) {
      throw unreadable("nothing names the members of an ENUM or SET column");
    }
    return definition.members;
  }
  const charset = charsetOf(column);
  if (charset === "binary") {
    return members.map((member) => member.toString("latin1"));
  }
  const read = knownTextReader(charset);
  const ignored: OddityNotes = { note: () => undefined };
  return members.map((member) => {
    const text = read(member, 0, member.length, ignored);
    if (typeof text !== "string") {
      throw unreadable("a member of an ENUM or SET column is no valid text");
    }
    return text;
  });
}

function knownTextReader(charset: string): ValueReader & ReturnType<typeof textReader> {
  const read = textReader(charset);
  if (read === null) {
    throw unreadable(`character set ${charset} is not known`);
  }
  return read;
}

function enumReader(members: readonly string[]): ValueReader {
  return (buffer, start, end) => {
    const index = buffer.readUIntLE(start, end - start);
    // Index 0 is the server's mark of a value that was refused; it shows as an empty string.
    const text = index === 0 ? "" : members[index - 1];
    if (text === undefined) {
      throw unreadable("a stored ENUM has no such member");
    }
    return text;
  };
}

function setReader(members: readonly string[]): ValueReader {
  return (buffer, start, end) => {
    let text = "";
    for (let bit = 0; bit < (end - start) * 8; bit++) {
      if (((buffer[start + (bit >> 3)] ?? 0) & (1 << (bit & 7))) === 0) {
        continue;
      }
      const member = members[bit];
      if (member === undefined) {
        throw unreadable("a stored SET has no such member");
      }
      text += text === "" ? member : `,${member}`;
    }
    return text;
  };
}

const readBase64: ValueReader = (buffer, start, end) => buffer.base64Slice(start, end);

function bytesReader(column: PlannedColumn, definition: ColumnDefinition | null): ValueReader {
  const { type, size } = column.mapped;
  const charset = charsetOf(column);
  if (charset === "binary" || column.mapped.collation === BINARY_COLLATION) {
    if (type === t.string) {
      return fixedBytesReader(size, definition?.word ?? "binary");
    }
    return unwrapped(type, readBase64);
  }
  return unwrapped(type, knownTextReader(charset));
}

/** COMPRESSED columns are inflated first. */
function unwrapped(type: number, read: ValueReader): ValueReader {
  if (type !== t.varcharCompressed && type !== t.blobCompressed) {
    return read;
  }
  return (buffer, start, end, notes) => {
    const value = inflateColumn(buffer, start, end);
    return read(value, 0, value.length, notes);
  };
}

/** BINARY(n) and MariaDB's address and UUID types: the stream cuts zero bytes at the end off. */
function fixedBytesReader(size: number, word: string): ValueReader {
  const print = fixedPrinters[word] ?? ((bytes: Buffer) => bytes.toString("base64"));
  return (buffer, start, end) => {
    if (end - start > size) {
      throw unreadable("a stored BINARY is longer than its column");
    }
    const bytes = Buffer.alloc(size);
    buffer.copy(bytes, 0, start, end);
    return print(bytes);
  };
}

const fixedPrinters: Readonly<Record<string, (bytes: Buffer) => string>> = {
  uuid: uuidText,
  inet4: (bytes) => bytes.join("."),
  inet6: inet6Text,
};

function uuidText(bytes: Buffer): string {
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** As the server prints it: RFC 5952, embedded IPv4 addresses with dots. */
function inet6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2));
  const isPrefixZero = groups.slice(0, 5).every((group) => group === 0);
  if (isPrefixZero && groups[5] === 0xffff) {
    return `::ffff:${bytes.subarray(12).join(".")}`;
  }
  if (isPrefixZero && groups[5] === 0 && groups[6] !== 0) {
    return `::${bytes.subarray(12).join(".")}`;
  }
  const gap = longestZeros(groups);
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(":");
  return gap.length < 2 ? hex(0, 8) : `${hex(0, gap.start)}::${hex(gap.start + gap.length, 8)}`;
}

function longestZeros(groups: readonly number[]): { start: number; length: number } {
  const best = { start: 0, length: 0 };
  let start = 0;
  for (let at = 0; at <= groups.length; at++) {
    if (at < groups.length && groups[at] === 0) {
      continue;
    }
    if (at - start > best.length) {
      best.start = start;
      best.length = at - start;
    }
    start = at + 1;
  }
  return best;
}
