/**
 * Table maps: which table a row event belongs to and how its rows are read. Only followed tables
 * get a plan; a table map that comes again with equal bytes costs one comparison.
 */
import type { FollowedTable } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { SchemaColumn } from "./decode/column-definition.ts";
import { parseTableMap, type TableMap } from "./decode/table-map.ts";
import { compileTablePlan, needsSchema, type TablePlan } from "./decode/table-plan.ts";
import { HEADER_BYTES } from "./binlog-event.ts";

/** A followed table as one table map describes it. */
export interface TableShape {
  readonly plan: TablePlan;
  /** No row image is shorter. */
  readonly rowBytesMin: number;
}

/** The plan needs the table's columns from information_schema; nothing was taken. */
export interface SchemaWanted {
  readonly table: string;
  readonly tableIndex: number;
}

interface Entry {
  /** Bytes that must come again: the whole body for followed tables, the names for others. */
  readonly bytes: Buffer;
  /** Null: nobody follows the table. */
  readonly shape: TableShape | null;
  /** Group in which the table map was last seen. */
  group: number;
}

/** Table ids grow with every reopened table; old ones never come back. */
const ENTRIES_MAX = 4_096;
/** Table id and flags. */
const NAMES_AT = 8;

export class TableShapes {
  readonly #database: string;
  readonly #followed: readonly FollowedTable[];
  readonly #indexByName = new Map<string, number>();
  readonly #entries = new Map<number, Entry>();
  readonly #columns = new Map<number, readonly SchemaColumn[]>();
  readonly #onPlan: (plan: TablePlan) => void;

  constructor(
    names: { readonly database: string; readonly tablePrefix: string },
    followed: readonly FollowedTable[],
    onPlan: (plan: TablePlan) => void,
  ) {
    this.#database = names.database;
    this.#followed = followed;
    this.#onPlan = onPlan;
    for (const [index, { table }] of followed.entries()) {
      this.#indexByName.set(`${names.tablePrefix}${table}`, index);
    }
  }

  /** Takes a table map event whose bytes came before; false when they are new. */
  takeKnown(buffer: Buffer, start: number, end: number, group: number): boolean {
    const body = start + HEADER_BYTES;
    const known = this.#entries.get(tableId(buffer, body));
    if (known === undefined || !isSame(known, buffer, body, end)) return false;
    known.group = group;
    return true;
  }

  /** Takes a new table map. Null when taken, else what must be provided before it is given again. */
  takeNew(buffer: Buffer, start: number, end: number, group: number): SchemaWanted | null {
    const body = start + HEADER_BYTES;
    const id = tableId(buffer, body);
    const name = this.#followedName(buffer, body);
    if (name === null) {
      this.#set(id, {
        bytes: Buffer.from(buffer.subarray(body + NAMES_AT, namesEnd(buffer, body))),
        shape: null,
        group,
      });
      return null;
    }
    const bytes = Buffer.from(buffer.subarray(body, end));
    const map = parseTableMap(bytes);
    const tableIndex = this.#indexByName.get(name) ?? -1;
    const columns = this.#columns.get(tableIndex) ?? null;
    if (columns === null && needsSchema(map)) return { table: name, tableIndex };
    this.#set(id, { bytes, shape: this.#compile(map, tableIndex, columns), group });
    return null;
  }

  /** Shape of the row event's table; null when nobody follows it. */
  find(buffer: Buffer, body: number, group: number): TableShape | null {
    const id = tableId(buffer, body);
    const entry = this.#entries.get(id);
    if (entry !== undefined && entry.group === group) return entry.shape;
    if (isDummyId(id)) return null;
    throw new AgentError(
      "SOURCE_UNREADABLE",
      `a rows event refers to table id ${id}, which no table map named`,
    );
  }

  /** Columns of a table as information_schema has them now. */
  provide(tableIndex: number, columns: readonly SchemaColumn[]): void {
    this.#columns.set(tableIndex, columns);
  }

  /** The table's columns may have changed: plans and columns of it are made anew. */
  drop(tableIndex: number): void {
    this.#columns.delete(tableIndex);
    for (const [id, entry] of this.#entries) {
      if (entry.shape?.plan.table === tableIndex) this.#entries.delete(id);
    }
  }

  /** Another connection, perhaps to a restarted server: table ids begin anew. */
  clear(): void {
    this.#entries.clear();
    this.#columns.clear();
  }

  #set(id: number, entry: Entry): void {
    if (this.#entries.size >= ENTRIES_MAX) {
      for (const [oldId, old] of this.#entries) if (old.group !== entry.group) this.#entries.delete(oldId);
    }
    this.#entries.set(id, entry);
  }

  /** Full name of the table when it is followed. */
  #followedName(buffer: Buffer, body: number): string | null {
    const schemaLength = buffer[body + NAMES_AT] ?? 0;
    const schemaAt = body + NAMES_AT + 1;
    if (buffer.toString("utf8", schemaAt, schemaAt + schemaLength) !== this.#database) return null;
    const tableAt = schemaAt + schemaLength + 2;
    const name = buffer.toString("utf8", tableAt, tableAt + (buffer[tableAt - 1] ?? 0));
    return this.#indexByName.has(name) ? name : null;
  }

  #compile(map: TableMap, tableIndex: number, columns: readonly SchemaColumn[] | null): TableShape {
    const followed = this.#followed[tableIndex];
    if (followed === undefined) throw new AgentError("BUG", `no followed table has the index ${tableIndex}`);
    let plan: TablePlan;
    try {
      plan = compileTablePlan(map, followed, tableIndex, columns);
    } catch (thrown) {
      // What information_schema said does not fit; it is asked again.
      this.#columns.delete(tableIndex);
      throw thrown;
    }
    this.#onPlan(plan);
    return { plan, rowBytesMin: Math.max(1, (map.columns.length + 7) >> 3) };
  }
}

function isSame(entry: Entry, buffer: Buffer, body: number, end: number): boolean {
  const { bytes } = entry;
  if (entry.shape === null) {
    const at = body + NAMES_AT;
    return at + bytes.length <= end && bytes.compare(buffer, at, at + bytes.length) === 0;
  }
  return bytes.length === end - body && bytes.compare(buffer, body, end) === 0;
}

/** Behind the table's name. */
function namesEnd(buffer: Buffer, body: number): number {
  const tableLengthAt = body + NAMES_AT + 1 + (buffer[body + NAMES_AT] ?? 0) + 1;
  return tableLengthAt + 1 + (buffer[tableLengthAt] ?? 0);
}

function tableId(buffer: Buffer, body: number): number {
  return buffer.readUInt32LE(body) + buffer.readUInt16LE(body + 4) * 0x1_0000_0000;
}

/** An event without rows that only ends a statement names no table. */
function isDummyId(id: number): boolean {
  return id === 0xff_ffff || id === 0xffff_ffff_ffff;
}
