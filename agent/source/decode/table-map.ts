/**
 * TABLE_MAP events: the shape of a table's rows at the time of the event. Both servers' optional
 * metadata (binlog_row_metadata FULL, MINIMAL, and MariaDB's NO_LOG, which has none) are read.
 */
import { AgentError } from "../../kernel/errors.ts";
import { BINARY_COLLATION, columnType, unreadable } from "./wire.ts";

/** One column as the stream describes it; null where the stream does not say. */
export interface MappedColumn {
  /** Real type: ENUM and SET are told apart from CHAR. */
  readonly type: number;
  /**
   * What the type's metadata says: maximal bytes of CHAR and VARCHAR, length bytes of BLOB, JSON
   * and GEOMETRY, bytes of ENUM and SET, number of bits of BIT, precision of DECIMAL, digits of a
   * second's fraction of TIME, DATETIME and TIMESTAMP.
   */
  readonly size: number;
  /** Scale of DECIMAL, else 0. */
  readonly scale: number;
  readonly nullable: boolean;
  readonly unsigned: boolean | null;
  readonly collation: number | null;
  /** Members of ENUM and SET, in the column's character set. */
  readonly members: readonly Buffer[] | null;
}

export interface TableMap {
  readonly tableId: number;
  readonly schema: string;
  readonly table: string;
  readonly columns: readonly MappedColumn[];
  /** Names, with FULL metadata only. */
  readonly columnNames: readonly string[] | null;
  /** Indices of the primary key's columns, with FULL metadata only. */
  readonly primaryKey: readonly number[] | null;
}

type Draft = { -readonly [K in keyof MappedColumn]: MappedColumn[K] };

/** A bounded reader: every read past the end throws. */
class Bytes {
  readonly #buffer: Buffer;
  readonly end: number;
  offset: number;

  constructor(buffer: Buffer, offset: number, end: number) {
    this.#buffer = buffer;
    this.offset = offset;
    this.end = end;
  }

  get atEnd(): boolean {
    return this.offset >= this.end;
  }

  take(length: number): Buffer {
    const from = this.offset;
    if (from + length > this.end) {
      throw unreadable("a table map event ends too early");
    }
    this.offset = from + length;
    return this.#buffer.subarray(from, from + length);
  }

  uint(length: number): number {
    return this.take(length).readUIntLE(0, length);
  }

  /** MySQL's length-encoded integer. */
  packed(): number {
    const first = this.uint(1);
    if (first < 251) {
      return first;
    }
    if (first === 252) {
      return this.uint(2);
    }
    if (first === 253) {
      return this.uint(3);
    }
    throw unreadable("a table map event holds a length that cannot be");
  }

  /** The next `length` bytes as a reader of their own. */
  part(length: number): Bytes {
    const from = this.offset;
    this.take(length);
    return new Bytes(this.#buffer, from, from + length);
  }
}

/**
 * Reads the body of a TABLE_MAP event (without the 19 byte header and without checksum). Throws
 * SOURCE_UNREADABLE when it is damaged or holds a type that is not known. Nothing of the result
 * refers to `body`'s memory.
 */
export function parseTableMap(body: Buffer): TableMap {
  const bytes = new Bytes(body, 0, body.length);
  const tableId = bytes.uint(6);
  bytes.take(2);
  const schema = bytes.take(bytes.uint(1)).toString("utf8");
  bytes.take(1);
  const table = bytes.take(bytes.uint(1)).toString("utf8");
  bytes.take(1);
  try {
    const types = bytes.take(bytes.packed());
    const metadata = bytes.part(bytes.packed());
    const columns = Array.from(types, (type) => readColumn(type, metadata));
    if (!metadata.atEnd) {
      throw unreadable("column metadata of a table map event has bytes left over");
    }
    const nullable = bytes.take((columns.length + 7) >> 3);
    columns.forEach((column, index) => {
      column.nullable = bitLsb(nullable, index);
    });
    return { tableId, schema, table, columns, ...readOptional(bytes, columns) };
  } catch (error) {
    const text = error instanceof AgentError ? error.message : "its table map event is damaged";
    throw new AgentError("SOURCE_UNREADABLE", `table ${schema}.${table}: ${text}`, { cause: error });
  }
}

function readColumn(wireType: number, metadata: Bytes): Draft {
  const column: Draft = {
    type: wireType,
    size: 0,
    scale: 0,
    nullable: true,
    unsigned: null,
    collation: null,
    members: null,
  };
  const t = columnType;
  switch (wireType) {
    case t.decimal:
    case t.tiny:
    case t.short:
    case t.int24:
    case t.long:
    case t.longlong:
    case t.year:
    case t.date:
    case t.newDate:
    case t.time:
    case t.datetime:
    case t.timestamp:
      return column;
    case t.float:
    case t.double:
    case t.tinyBlob:
    case t.mediumBlob:
    case t.longBlob:
    case t.blob:
    case t.blobCompressed:
    case t.json:
    case t.geometry:
    case t.vector:
    case t.timestamp2:
    case t.datetime2:
    case t.time2:
      column.size = metadata.uint(1);
      return column;
    case t.varchar:
    case t.varcharCompressed:
      column.size = metadata.uint(2);
      return column;
    case t.bit:
      column.size = metadata.uint(1);
      column.size += metadata.uint(1) * 8;
      return column;
    case t.newDecimal:
      column.size = metadata.uint(1);
      column.scale = metadata.uint(1);
      return column;
    case t.string:
    case t.enum:
    case t.set:
      return readStringColumn(column, metadata);
    default:
      throw unreadable(`column type ${wireType} is not known`);
  }
}

/** CHAR hides two bits of its length in the type byte, because 255 was not enough. */
function readStringColumn(column: Draft, metadata: Bytes): Draft {
  const first = metadata.uint(1);
  const second = metadata.uint(1);
  column.type = first | 0x30;
  column.size = second | (((first & 0x30) ^ 0x30) << 4);
  const { type } = column;
  if (type !== columnType.string && type !== columnType.enum && type !== columnType.set) {
    throw unreadable(`string column type ${type} is not known`);
  }
  return column;
}

const numericTypes: ReadonlySet<number> = new Set([
  columnType.tiny,
  columnType.short,
  columnType.int24,
  columnType.long,
  columnType.longlong,
  columnType.newDecimal,
  columnType.decimal,
  columnType.float,
  columnType.double,
  columnType.year,
]);
/** Types whose values are in a collation, `binary` being one. */
export const characterTypes: ReadonlySet<number> = new Set([
  columnType.string,
  columnType.varchar,
  columnType.varString,
  columnType.tinyBlob,
  columnType.mediumBlob,
  columnType.longBlob,
  columnType.blob,
  columnType.blobCompressed,
  columnType.varcharCompressed,
]);

interface Optional {
  columnNames: string[] | null;
  primaryKey: number[] | null;
}

function readOptional(bytes: Bytes, columns: readonly Draft[]): Optional {
  const found: Optional = { columnNames: null, primaryKey: null };
  const of = (wanted: (type: number) => boolean): Draft[] => columns.filter((c) => wanted(c.type));
  const isMembered = (type: number): boolean => type === columnType.enum || type === columnType.set;
  while (!bytes.atEnd) {
    const field = bytes.uint(1);
    const part = bytes.part(bytes.packed());
    switch (field) {
      case 1:
        readSignedness(
          part,
          of((type) => numericTypes.has(type)),
        );
        break;
      case 2:
        readCollations(part, columns, true);
        break;
      case 3:
        readCollations(part, columns, false);
        break;
      case 4:
        found.columnNames = readNames(part, columns.length);
        break;
      case 5:
        readMembers(
          part,
          of((type) => type === columnType.set),
        );
        break;
      case 6:
        readMembers(
          part,
          of((type) => type === columnType.enum),
        );
        break;
      case 8:
        found.primaryKey = readPrimaryKey(part, false);
        break;
      case 9:
        found.primaryKey = readPrimaryKey(part, true);
        break;
      case 10:
        readDefaultCharset(part, of(isMembered));
        break;
      case 11:
        readColumnCharsets(part, of(isMembered));
        break;
      default:
        // Geometry kinds, visibility, vector sizes and fields of later servers: no value depends
        // on them.
        part.take(part.end - part.offset);
    }
    if (!part.atEnd) {
      throw unreadable(`optional metadata ${field} of its table map event does not fit its columns`);
    }
  }
  return found;
}

function readSignedness(part: Bytes, columns: readonly Draft[]): void {
  const bits = part.take((columns.length + 7) >> 3);
  columns.forEach((column, index) => {
    column.unsigned = ((bits[index >> 3] ?? 0) & (0x80 >> (index & 7))) !== 0;
  });
}

/**
 * Collations of the text columns. MariaDB counts GEOMETRY columns among them (as binary), MySQL
 * does not, and the event does not say whose it is. So each way of counting that fits the bytes is
 * tried; a column on which they differ gets none, and the schema has to say (`needsSchema`).
 */
function readCollations(part: Bytes, columns: readonly Draft[], isDefaultFirst: boolean): void {
  const from = part.offset;
  const fitting: Map<Draft, number>[] = [];
  for (const extra of [[], [columnType.geometry], [columnType.vector]]) {
    const isExtra = ({ type }: Draft): boolean => extra.some((wanted) => wanted === type);
    const counted = columns.filter((column) => characterTypes.has(column.type) || isExtra(column));
    part.offset = from;
    const given = isDefaultFirst ? givenByDefault(part, counted) : givenEach(part, counted);
    if (
      given !== null &&
      counted.every((column) => !isExtra(column) || given.get(column) === BINARY_COLLATION)
    ) {
      fitting.push(given);
    }
  }
  const [first, ...others] = fitting;
  if (first === undefined) {
    throw unreadable("the collations in its table map event do not fit its columns");
  }
  for (const column of columns.filter(({ type }) => characterTypes.has(type))) {
    const collation = first.get(column) ?? null;
    column.collation = others.every((other) => other.get(column) === collation) ? collation : null;
  }
  part.offset = part.end;
}

function givenByDefault(part: Bytes, columns: readonly Draft[]): Map<Draft, number> | null {
  const byDefault = part.packed();
  const given = new Map(columns.map((column) => [column, byDefault]));
  while (!part.atEnd) {
    const column = columns[part.packed()];
    const collation = part.packed();
    if (column === undefined) {
      return null;
    }
    given.set(column, collation);
  }
  return given;
}

function givenEach(part: Bytes, columns: readonly Draft[]): Map<Draft, number> | null {
  const given = new Map<Draft, number>();
  for (const column of columns) {
    if (part.atEnd) {
      return null;
    }
    given.set(column, part.packed());
  }
  return part.atEnd ? given : null;
}

function readDefaultCharset(part: Bytes, columns: readonly Draft[]): void {
  for (const [column, collation] of givenByDefault(part, columns) ?? []) {
    column.collation = collation;
  }
}

function readColumnCharsets(part: Bytes, columns: readonly Draft[]): void {
  for (const [column, collation] of givenEach(part, columns) ?? []) {
    column.collation = collation;
  }
}

function readNames(part: Bytes, count: number): string[] {
  const names: string[] = [];
  while (!part.atEnd) {
    names.push(part.take(part.packed()).toString("utf8"));
  }
  if (names.length !== count) {
    throw unreadable(`its table map event names ${names.length} columns but has ${count}`);
  }
  return names;
}

function readMembers(part: Bytes, columns: readonly Draft[]): void {
  for (const column of columns) {
    const members: Buffer[] = [];
    for (let left = part.packed(); left > 0; left--) {
      members.push(Buffer.from(part.take(part.packed())));
    }
    column.members = members;
  }
}

function readPrimaryKey(part: Bytes, withPrefix: boolean): number[] {
  const key: number[] = [];
  while (!part.atEnd) {
    key.push(part.packed());
    if (withPrefix) {
      part.packed();
    }
  }
  return key;
}

function bitLsb(bits: Buffer, index: number): boolean {
  return ((bits[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}
