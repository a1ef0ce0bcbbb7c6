/**
 * A plan says how to read the rows of one table map: the length of every column, and a reader for
 * each followed one. It is compiled once for each distinct table map and then reused.
 */
import type { FollowedTable } from "../../change.ts";
import { AgentError } from "../../kernel/errors.ts";
import { charsetOfCollation } from "./collations.ts";
import { fits, type SchemaColumn } from "./column-definition.ts";
import {
  isAmbiguousTemporal,
  type PlannedColumn,
  storedWidth,
  type ValueReader,
  valueReader,
} from "./column-readers.ts";
import { characterTypes, type TableMap } from "./table-map.ts";
import { columnType } from "./wire.ts";

export interface TablePlan {
  /** Index into the list of followed tables. */
  readonly table: number;
  /** Name without prefix, for counters. */
  readonly tableName: string;
  /** `schema.table` as the server has it, for messages. */
  readonly fullName: string;
  /** All columns of the server's table, in its order. */
  readonly columnNames: readonly string[];
  /** Followed columns that the server's table does not have. */
  readonly missingColumns: readonly string[];
  /** Stored length by column: n bytes, or -n for a value behind a length of n bytes. */
  readonly widths: Int32Array;
  /** By column: index into `FollowedTable.columns`, or -1 for a column nobody follows. */
  readonly slots: Int32Array;
  /** By followed column; null for a missing one. */
  readonly readers: readonly (ValueReader | null)[];
  /** Followed columns (indices) that make the entity's key. */
  readonly keySlots: readonly number[];
  /** Offsets of the followed values of the row in hand; start -1 is NULL. Reused for each row. */
  readonly scratch: PlanScratch;
}

export interface PlanScratch {
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  readonly oldStarts: Int32Array;
  readonly oldEnds: Int32Array;
}

/**
 * Whether the stream alone does not say enough and `compileTablePlan` wants the table's columns
 * from information_schema: no names (metadata MINIMAL or NO_LOG), temporal columns in a format of
 * before MySQL 5.6 (MariaDB 5.3's look the same but have other lengths), BINARY(4) and BINARY(16)
 * columns (MariaDB's INET4, INET6 and UUID look the same), or text columns whose collation is
 * unknown or in doubt.
 */
export function needsSchema(map: TableMap): boolean {
  return (
    map.columnNames === null ||
    map.columns.some(({ type, size, collation }) => {
      if (!characterTypes.has(type)) {
        return isAmbiguousTemporal(type);
      }
      const charset = collation === null ? null : charsetOfCollation(collation);
      const mayBeAddress = type === columnType.string && (size === 4 || size === 16);
      return charset === null || (mayBeAddress && charset === "binary");
    })
  );
}

/**
 * Compiles the plan. `columns` are today's columns from information_schema, or null; where the
 * stream carries names they only settle what `needsSchema` names. Throws SCHEMA_UNKNOWN when they
 * are needed and missing or do not fit the table map, SOURCE_UNREADABLE when a column cannot be
 * read without loss.
 */
export function compileTablePlan(
  map: TableMap,
  followed: FollowedTable,
  tableIndex: number,
  columns: readonly SchemaColumn[] | null,
): TablePlan {
  const fullName = `${map.schema}.${map.table}`;
  const planned = map.columnNames === null ? byOrdinal(map, columns) : byName(map, map.columnNames, columns);
  const columnNames = map.columnNames ?? planned.map(({ schema }) => schema?.name ?? "");
  const slotByName = new Map(followed.columns.map((name, slot) => [name.toLowerCase(), slot]));
  const slots = new Int32Array(planned.length).fill(-1);
  const widths = new Int32Array(planned.length);
  const readers: (ValueReader | null)[] = followed.columns.map(() => null);
  planned.forEach((column, index) => {
    const name = columnNames[index] ?? "";
    const slot = slotByName.get(name.toLowerCase());
    try {
      widths[index] = storedWidth(column);
      if (slot !== undefined) {
        slots[index] = slot;
        readers[slot] = valueReader(column);
      }
    } catch (error) {
      throw located(error, `table ${fullName}, column ${name}`);
    }
  });
  const count = followed.columns.length;
  return {
    table: tableIndex,
    tableName: followed.table,
    fullName,
    columnNames,
    missingColumns: followed.columns.filter((_, slot) => readers[slot] === null),
    widths,
    slots,
    readers,
    keySlots: followed.keyColumns,
    scratch: {
      starts: new Int32Array(count),
      ends: new Int32Array(count),
      oldStarts: new Int32Array(count),
      oldEnds: new Int32Array(count),
    },
  };
}

/** Names the place in an error of the readers. */
export function located(error: unknown, place: string): unknown {
  return error instanceof AgentError
    ? new AgentError(error.code, `${place}: ${error.message}`, { cause: error, hint: error.hint })
    : error;
}

function schemaUnknown(map: TableMap, what: string): AgentError {
  return new AgentError("SCHEMA_UNKNOWN", `table ${map.schema}.${map.table}: ${what}`);
}

/** Without names in the stream: every column must fit the one in its place. */
function byOrdinal(map: TableMap, columns: readonly SchemaColumn[] | null): PlannedColumn[] {
  if (columns === null) {
    throw schemaUnknown(map, "the binlog does not name its columns and the schema was not given");
  }
  if (columns.length !== map.columns.length) {
    throw schemaUnknown(
      map,
      `it has ${columns.length} columns now, and had ${map.columns.length} at the time of the event`,
    );
  }
  return map.columns.map((mapped, index) => {
    const schema = columns[index];
    if (schema === undefined || !isSameColumn({ mapped, schema })) {
      throw schemaUnknown(
        map,
        `column ${index + 1} is ${schema?.name ?? "?"} ${schema?.columnType ?? "?"} now, and was something else ` +
          `(type ${mapped.type}, size ${mapped.size}) at the time of the event`,
      );
    }
    return { mapped, schema };
  });
}

/** With names in the stream: today's column of the same name helps where it fits. */
function byName(
  map: TableMap,
  names: readonly string[],
  columns: readonly SchemaColumn[] | null,
): PlannedColumn[] {
  const known = new Map(columns?.map((column) => [column.name, column]));
  return map.columns.map((mapped, index) => {
    const name = names[index] ?? "";
    const schema = known.get(name) ?? null;
    if (schema !== null && isSameColumn({ mapped, schema })) {
      return { mapped, schema };
    }
    if (isAmbiguousTemporal(mapped.type)) {
      throw schemaUnknown(map, `the format of column ${name} is not known without the schema of its time`);
    }
    return { mapped, schema: null };
  });
}

function isSameColumn({
  mapped,
  schema,
}: {
  mapped: PlannedColumn["mapped"];
  schema: SchemaColumn;
}): boolean {
  if (!fits(mapped, schema)) {
    return false;
  }
  const streamed = mapped.collation === null ? null : charsetOfCollation(mapped.collation);
  if (streamed === null) {
    return true;
  }
  const today = schema.charset === "utf8" ? "utf8mb3" : (schema.charset ?? "binary");
  return streamed === today;
}
