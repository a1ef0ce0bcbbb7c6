/**
 * Values of a SELECT in the forms that the binlog's values have (change.ts, Value), so that a row
 * that was read and the same row from the stream are the same. Everything comes as the bytes of the
 * text protocol, text in its column's own character set: `SET character_set_results = NULL`,
 * `time_zone = '+00:00'` and an empty `sql_mode` are owed by the caller.
 */
import type { Value } from "../../change.ts";
import { parseColumnType, type SchemaColumn } from "../decode/column-definition.ts";
import * as numbers from "../decode/numbers.ts";
import { dateText } from "../decode/temporal.ts";
import { textReader } from "../decode/text.ts";
import { type OddityNotes, unreadable } from "../decode/wire.ts";

export type SelectedReader = (bytes: Buffer, notes: OddityNotes) => Value;

/** How a column is asked for, and how its bytes are read. */
export interface SelectedColumn {
  readonly expression: string;
  readonly read: SelectedReader;
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
      return { ...plain, read: readNumber };
    case "bigint":
      return { ...plain, read: unsigned ? readUnpadded : readAscii };
    case "decimal":
      return { ...plain, read: unsigned ? readUnpadded : readAscii };
    // As text a FLOAT has six digits, and a number of decimals cuts a DOUBLE: as a product it has all.
    case "float":
      return { ...plain, expression: `(${quoted} * 1e0)`, read: readFloat };
    case "double":
      return { ...plain, expression: `(${quoted} * 1e0)`, read: readNumber };
    case "bit":
      return { ...plain, read: (sizes[0] ?? 1) > 53 ? readBits : (bytes) => Number(readBits(bytes)) };
    case "date":
      return { ...plain, read: readDate };
    case "datetime":
    case "timestamp":
      return { ...plain, read: readMoment };
    case "time":
    case "uuid":
    case "inet4":
    case "inet6":
      return { ...plain, read: readAscii };
    case "json":
      return { ...plain, read: (bytes) => ({ json: compactJson(bytes.toString("utf8")) }) };
    default:
  }
  if (textWords.has(word) && column.charset !== null && column.charset !== "binary") {
    return { ...plain, read: textOf(column.charset) };
  }
  if (word === "enum" || word === "set")
    return { ...plain, read: (bytes) => bytes.latin1Slice(0, bytes.length) };
  // Geometry comes as the bytes that it is stored as: number of the reference system, then WKB.
  if (binaryWords.has(word) || textWords.has(word) || column.charset === null) {
    return { ...plain, read: (bytes) => bytes.base64Slice(0, bytes.length) };
  }
  throw unreadable(`column ${column.name} is of type ${column.columnType}, which is not read`);
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll("`", "``")}\``;
}

const readNumber: SelectedReader = (bytes) => Number(bytes.latin1Slice(0, bytes.length));
const readAscii: SelectedReader = (bytes) => bytes.latin1Slice(0, bytes.length);

/** ZEROFILL shows digits that are not stored; only unsigned columns have it. */
const readUnpadded: SelectedReader = (bytes) => {
  const text = bytes.latin1Slice(0, bytes.length);
  return text.startsWith("0") ? text.replace(/^0+(?=\d)/, "") : text;
};

const scratch = Buffer.alloc(4);

const readFloat: SelectedReader = (bytes) => {
  scratch.writeFloatLE(Number(bytes.latin1Slice(0, bytes.length)));
  return numbers.floatNumber(scratch, 0);
};

function readBits(bytes: Buffer): string {
  return numbers.bigEndianText(bytes, 0, bytes.length);
}

function textOf(charset: string): SelectedReader {
  const read = textReader(charset);
  if (read === null) throw unreadable(`character set ${charset} is not known`);
  return (bytes, notes) => read(bytes, 0, bytes.length, notes);
}

/** Dates that no calendar has are null, as in the stream. */
function dateOf(text: string, notes: OddityNotes): string | null {
  return dateText(Number(text.slice(0, 4)), Number(text.slice(5, 7)), Number(text.slice(8, 10)), notes);
}

const readDate: SelectedReader = (bytes, notes) => dateOf(bytes.latin1Slice(0, bytes.length), notes);

const readMoment: SelectedReader = (bytes, notes) => {
  const text = bytes.latin1Slice(0, bytes.length);
  const date = dateOf(text, notes);
  return date === null ? null : `${date}T${text.slice(11)}Z`;
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
