/**
 * Values of a SELECT in the forms that the binlog's values have (change.ts, Value), so that a row
 * that was read and the same row from the stream are the same. Everything comes as the bytes of the
 * text protocol, text in its column's own character set: `SET character_set_results = NULL`,
 * `time_zone = '+00:00'` and an empty `sql_mode` are owed by the caller.
 */
import type { RowPacker } from "../../packed-rows.ts";
import { parseColumnType, type SchemaColumn } from "../decode/column-definition.ts";
import * as numbers from "../decode/numbers.ts";
import { dateText } from "../decode/temporal.ts";
import { textReader } from "../decode/text.ts";
import { type OddityNotes, unreadable } from "../decode/wire.ts";
import type { TextRow } from "./text-row.ts";

/** Puts the value under the cursor, which is not NULL, into the next cell. */
export type ValuePacker = (row: TextRow, into: RowPacker, notes: OddityNotes) => void;

/** How a column is asked for, and how its bytes are read. */
export interface SelectedColumn {
  readonly expression: string;
  readonly pack: ValuePacker;
  /** Whether a value can be larger than what fits into memory many times. */
  readonly mayBeLarge: boolean;
}

const largeWords = new Set(["mediumtext", "longtext", "mediumblob", "longblob", "json", "geometry"]);
const binaryWords = new Set(["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"]);
const textWords = new Set(["char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"]);

/** Throws SOURCE_UNREADABLE where a column cannot be read without loss. */
export function selectedColumn(column: SchemaColumn): SelectedColumn {
  const { word, unsigned, numbers: sizes } = parseColumnType(column.columnType);
  const quoted = quoteName(column.name);
  const plain = { expression: quoted, mayBeLarge: largeWords.has(word) };
  switch (word) {
    case "tinyint":
    case "smallint":
    case "mediumint":
    case "int":
    case "year":
      return { ...plain, pack: packInteger };
    case "bigint":
    case "decimal":
      return { ...plain, pack: unsigned ? packUnpadded : packAscii };
    // As text a FLOAT has six digits, and a number of decimals cuts a DOUBLE: as a product it has all.
    case "float":
      return { ...plain, expression: `(${quoted} * 1e0)`, pack: packFloat };
    case "double":
      return { ...plain, expression: `(${quoted} * 1e0)`, pack: packDouble };
    case "bit":
      return { ...plain, pack: (sizes[0] ?? 1) > 53 ? packManyBits : packBits };
    case "date":
      return { ...plain, pack: packDate };
    case "datetime":
    case "timestamp":
      return { ...plain, pack: packMoment };
    case "time":
    case "uuid":
    case "inet4":
    case "inet6":
      return { ...plain, pack: packAscii };
    case "json":
      return { ...plain, pack: packJson };
    default:
  }
  if (textWords.has(word) && column.charset !== null && column.charset !== "binary") {
    return { ...plain, pack: textPacker(column.charset) };
  }
  if (word === "enum" || word === "set") return { ...plain, pack: packLatin1 };
  // Geometry comes as the bytes that it is stored as: number of the reference system, then WKB.
  if (binaryWords.has(word) || textWords.has(word) || column.charset === null) {
    return { ...plain, pack: packBase64 };
  }
  throw unreadable(`column ${column.name} is of type ${column.columnType}, which is not read`);
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll("`", "``")}\``;
}

const packAscii: ValuePacker = ({ bytes, start, end }, into) => into.ascii(bytes, start, end);

/** ZEROFILL shows digits that are not stored; only unsigned columns have it. */
function firstDigit({ bytes, start, end }: TextRow): number {
  let at = start;
  while (at < end - 1 && bytes[at] === ZERO && isDigit(bytes[at + 1])) at += 1;
  return at;
}

const ZERO = 0x30;

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= ZERO + 9;
}

const packUnpadded: ValuePacker = (row, into) => into.ascii(row.bytes, firstDigit(row), row.end);
const packInteger: ValuePacker = (row, into) => into.number(row.bytes, firstDigit(row), row.end);
const packDouble: ValuePacker = (row, into) => into.value(Number(asciiOf(row)));

const scratch = Buffer.alloc(4);

const packFloat: ValuePacker = (row, into) => {
  scratch.writeFloatLE(Number(asciiOf(row)));
  into.value(numbers.floatNumber(scratch, 0));
};

function asciiOf({ bytes, start, end }: TextRow): string {
  return bytes.latin1Slice(start, end);
}

function bitsOf({ bytes, start, end }: TextRow): string {
  return numbers.bigEndianText(bytes, start, end);
}

const packManyBits: ValuePacker = (row, into) => into.value(bitsOf(row));
const packBits: ValuePacker = (row, into) => into.value(Number(bitsOf(row)));
const packLatin1: ValuePacker = (row, into) => into.value(asciiOf(row));
const packBase64: ValuePacker = ({ bytes, start, end }, into) => into.value(bytes.base64Slice(start, end));
const packJson: ValuePacker = ({ bytes, start, end }, into) =>
  into.value({ json: compactJson(bytes.utf8Slice(start, end)) });

function textPacker(charset: string): ValuePacker {
  const read = textReader(charset);
  if (read === null) throw unreadable(`character set ${charset} is not known`);
  const isUtf8 = utf8Sets.has(charset);
  return ({ bytes, start, end }, into, notes) => {
    if (!isUtf8 || !into.utf8(bytes, start, end)) into.value(read(bytes, start, end, notes));
  };
}

const utf8Sets = new Set(["utf8mb4", "utf8mb3", "utf8"]);

/** Dates that no calendar has are null, as in the stream. */
function isDate({ bytes, start }: TextRow, notes: OddityNotes): boolean {
  const year = digits(bytes, start) * 100 + digits(bytes, start + 2);
  return dateText(year, digits(bytes, start + 5), digits(bytes, start + 8), notes) !== null;
}

/** The number that two digits make. */
function digits(bytes: Buffer, at: number): number {
  return ((bytes[at] ?? ZERO) - ZERO) * 10 + (bytes[at + 1] ?? ZERO) - ZERO;
}

const packDate: ValuePacker = (row, into, notes) => {
  if (isDate(row, notes)) into.ascii(row.bytes, row.start, row.end);
  else into.null();
};

const packMoment: ValuePacker = (row, into, notes) => {
  if (isDate(row, notes)) into.moment(row.bytes, row.start, row.end);
  else into.null();
};

/** The server writes a blank behind each comma and colon; the stream's form has none. */
function compactJson(text: string): string {
  let made = "";
  let from = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (quoted) {
      if (unit === 0x5c) at += 1;
      else if (unit === 0x22) quoted = false;
    } else if (unit === 0x22) quoted = true;
    else if (unit === 0x20) {
      made += text.slice(from, at);
      from = at + 1;
    }
  }
  return made + text.slice(from);
}
