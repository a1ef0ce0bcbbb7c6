/**
 * A column as information_schema.COLUMNS shows it (COLUMN_TYPE), taken apart, and the check that
 * it can be the column that a table map describes.
 */
import { bytesPerCharacter } from "./collations.ts";
import type { MappedColumn } from "./table-map.ts";
import { columnType } from "./wire.ts";

/** What the caller reads from information_schema, in ordinal order. */
export interface SchemaColumn {
  readonly name: string;
  /** COLUMN_TYPE, as in `int(10) unsigned`. */
  readonly columnType: string;
  readonly charset: string | null;
  readonly collation: string | null;
  /** Whether it may be NULL, and of a generated column its expression: what else decides about its values. */
  readonly isNullable?: boolean;
  readonly generatedAs?: string;
}

export interface ColumnDefinition {
  /** First word: `int`, `varchar`, `datetime`. */
  readonly word: string;
  /** Numbers in the brackets; empty for ENUM and SET. */
  readonly numbers: readonly number[];
  readonly unsigned: boolean;
  readonly isCompressed: boolean;
  /** Members of ENUM and SET. */
  readonly members: readonly string[];
}

/** Takes a COLUMN_TYPE apart. Anything after what is understood is left alone. */
export function parseColumnType(text: string): ColumnDefinition {
  const word = /^[a-z0-9]+/i.exec(text)?.[0].toLowerCase() ?? "";
  const isMembered = word === "enum" || word === "set";
  const numbers = isMembered ? null : /^\w+\(([\d,]+)\)/.exec(text);
  return {
    word,
    numbers: numbers?.[1]?.split(",").map(Number) ?? [],
    unsigned: !isMembered && /\b(unsigned|zerofill)\b/i.test(text),
    isCompressed: !isMembered && /\bcompressed\b/i.test(text),
    members: isMembered ? parseMembers(text.slice(word.length)) : [],
  };
}

const escapes: Readonly<Record<string, string>> = {
  "0": "\0",
  n: "\n",
  r: "\r",
  t: "\t",
  b: "\b",
  Z: "\x1a",
};

/** `('a','it''s')`: quotes are doubled, control characters escaped by a backslash. */
function parseMembers(text: string): string[] {
  const members: string[] = [];
  for (let at = 0; at < text.length && text[at] !== ")"; at++) {
    if (text[at] !== "'") {
      continue;
    }
    let member = "";
    for (at++; at < text.length; at++) {
      const character = text.charAt(at);
      if (character === "'") {
        if (text[at + 1] !== "'") {
          break;
        }
        at++;
        member += "'";
      } else if (character === "\\") {
        at++;
        member += escapes[text.charAt(at)] ?? text.charAt(at);
      } else {
        member += character;
      }
    }
    members.push(member);
  }
  return members;
}

const t = columnType;
const integerTypes: Readonly<Record<string, number>> = {
  tinyint: t.tiny,
  smallint: t.short,
  mediumint: t.int24,
  int: t.long,
  bigint: t.longlong,
  float: t.float,
  double: t.double,
};
const blobLengths: Readonly<Record<string, number>> = {
  tinyblob: 1,
  tinytext: 1,
  blob: 2,
  text: 2,
  mediumblob: 3,
  mediumtext: 3,
  longblob: 4,
  longtext: 4,
};
const temporalTypes: Readonly<Record<string, readonly [number, number]>> = {
  time: [t.time2, t.time],
  datetime: [t.datetime2, t.datetime],
  timestamp: [t.timestamp2, t.timestamp],
};
const fixedBytes: Readonly<Record<string, number>> = { inet4: 4, inet6: 16, uuid: 16 };
const geometryWords = new Set([
  "geometry",
  "point",
  "linestring",
  "polygon",
  "multipoint",
  "multilinestring",
  "multipolygon",
  "geometrycollection",
  "geomcollection",
]);

/** Whether `schema` can be the definition of the mapped column. Unknown types never fit. */
export function fits(mapped: MappedColumn, schema: SchemaColumn): boolean {
  const definition = parseColumnType(schema.columnType);
  const [first = 0, second = 0] = definition.numbers;
  const { word } = definition;
  const integer = integerTypes[word];
  if (integer !== undefined) {
    return mapped.type === integer && (mapped.unsigned === null || mapped.unsigned === definition.unsigned);
  }
  const temporal = temporalTypes[word];
  if (temporal !== undefined) {
    return mapped.type === temporal[1] || (mapped.type === temporal[0] && mapped.size === first);
  }
  switch (word) {
    case "decimal":
      return mapped.type === t.newDecimal && mapped.size === first && mapped.scale === second;
    case "bit":
      return mapped.type === t.bit && mapped.size === first;
    case "year":
      return mapped.type === t.year;
    case "date":
      return mapped.type === t.date || mapped.type === t.newDate;
    case "enum":
      return mapped.type === t.enum && mapped.size === (definition.members.length > 255 ? 2 : 1);
    case "set":
      return mapped.type === t.set && mapped.size === setBytes(definition.members.length);
    case "json":
      return mapped.type === t.json;
    default:
      return fitsBytes(mapped, schema, definition);
  }
}

function setBytes(members: number): number {
  const bytes = (members + 7) >> 3;
  return bytes > 4 ? 8 : bytes;
}

function fitsBytes(mapped: MappedColumn, schema: SchemaColumn, definition: ColumnDefinition): boolean {
  const { word, isCompressed } = definition;
  const [first = 0] = definition.numbers;
  const width = schema.charset === null ? 1 : bytesPerCharacter(schema.charset);
  switch (word) {
    case "char":
    case "binary":
      return mapped.type === t.string && mapped.size === first * width;
    case "varchar":
    case "varbinary":
      // A COMPRESSED column has a byte more for its header.
      return isCompressed
        ? mapped.type === t.varcharCompressed && mapped.size === first * width + 1
        : mapped.type === t.varchar && mapped.size === first * width;
    case "vector":
      return mapped.type === t.vector || mapped.type === t.varchar;
    default:
  }
  const fixed = fixedBytes[word];
  if (fixed !== undefined) {
    return mapped.type === t.string && mapped.size === fixed;
  }
  if (geometryWords.has(word)) {
    return mapped.type === t.geometry;
  }
  const blob = blobLengths[word];
  return (
    blob !== undefined && mapped.type === (isCompressed ? t.blobCompressed : t.blob) && mapped.size === blob
  );
}
