/**
 * Values of a SELECT in the forms that the binlog's values have (change.ts, Value), so that a row
 * that was read and the same row from the stream are the same. Everything comes as the bytes of the
 * text protocol, each as one character (latin1), text in its column's own character set: `SET character_set_results = NULL`,
 * `time_zone = '+00:00'` and an empty `sql_mode` are owed by the caller.
 */
import type { Value } from "../../change.ts";
import { parseColumnType, type SchemaColumn } from "../decode/column-definition.ts";
import * as numbers from "../decode/numbers.ts";
import { dateText } from "../decode/temporal.ts";
import { textReader } from "../decode/text.ts";
import { type OddityNotes, unreadable } from "../decode/wire.ts";

export type SelectedReader = (bytes: string, notes: OddityNotes) => Value;

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
      return { ...plain, read: (bytes) => ({ json: compactJson(bufferOf(bytes).toString("utf8")) }) };
    default:
  }
  if (textWords.has(word) && column.charset !== null && column.charset !== "binary") {
    return { ...plain, read: textOf(column.charset) };
  }
  if (word === "enum" || word === "set") return { ...plain, read: (bytes) => bytes };
  // Geometry comes as the bytes that it is stored as: number of the reference system, then WKB.
  if (binaryWords.has(word) || textWords.has(word) || column.charset === null) {
    return { ...plain, read: (bytes) => bufferOf(bytes).toString("base64") };
  }
  throw unreadable(`column ${column.name} is of type ${column.columnType}, which is not read`);
}

export function quoteName(name: string): string {
  return `\`${name.replaceAll("`", "``")}\``;
}

const readNumber: SelectedReader = (bytes) => Number(bytes);
const readAscii: SelectedReader = (bytes) => bytes;

/** ZEROFILL shows digits that are not stored; only unsigned columns have it. */
const readUnpadded: SelectedReader = (bytes) =>
  bytes.startsWith("0") ? bytes.replace(/^0+(?=\d)/, "") : bytes;

const scratch = Buffer.alloc(4);

const readFloat: SelectedReader = (bytes) => {
  scratch.writeFloatLE(Number(bytes));
  return numbers.floatNumber(scratch, 0);
};

function bufferOf(bytes: string): Buffer {
  return Buffer.from(bytes, "latin1");
}

function readBits(bytes: string): string {
  return numbers.bigEndianText(bufferOf(bytes), 0, bytes.length);
}

function textOf(charset: string): SelectedReader {
  const read = textReader(charset);
  if (read === null) throw unreadable(`character set ${charset} is not known`);
  const isAsciiAlike = asciiAlike.has(charset);
  return (bytes, notes) =>
    isAsciiAlike && !beyondAscii.test(bytes) ? bytes : read(bufferOf(bytes), 0, bytes.length, notes);
}

/** Sets in which an ASCII byte is that character, and the ones that shops have. */
const asciiAlike = new Set(["utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"]);
// oxlint-disable-next-line no-control-regex -- All of ASCII, control characters too.
const beyondAscii = /[^\x00-\x7f]/;

/** Dates that no calendar has are null, as in the stream. */
function dateOf(text: string, notes: OddityNotes): string | null {
  return dateText(Number(text.slice(0, 4)), Number(text.slice(5, 7)), Number(text.slice(8, 10)), notes);
}

const readDate: SelectedReader = (bytes, notes) => dateOf(bytes, notes);

const readMoment: SelectedReader = (bytes, notes) => {
  const date = dateOf(bytes, notes);
  return date === null ? null : `${date}T${bytes.slice(11)}Z`;
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
