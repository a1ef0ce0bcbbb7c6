/** The SELECTs that read a table in chunks, in the order of its primary key. */
import type { FollowedTable, SnapshotScope } from "../../change.ts";
import { AgentError } from "../../kernel/errors.ts";
import { type ControlConnection, textOf } from "../control-connection.ts";
import { parseColumnType, type SchemaColumn } from "../decode/column-definition.ts";
import { readColumns } from "../server-facts.ts";
import type { SourceSettings } from "../settings.ts";
import { quoteName, selectedColumn, type ValuePacker } from "./selected-values.ts";

/** A column that the rows are ordered by. */
interface OrderColumn {
  readonly name: string;
  readonly literalOf: (bytes: Buffer) => string;
}

/** How one table is read. Compiled anew for each chunk's table when its columns may have changed. */
export interface TableReading {
  /** Columns of the primary key; their values come first in a selected row. */
  readonly order: readonly OrderColumn[];
  /** By followed column: null where the table has none. Behind the key the columns come in this order. */
  readonly packers: readonly (ValuePacker | null)[];
  /** What names and types the columns had: another text is another shape. */
  readonly shape: string;
  /** The same of all that decides about their values. */
  readonly definitions: string;
  readonly isIntegerKey: boolean;
  /** Rows behind `after`, at most `limit`. */
  select(limit: number, after: readonly string[] | null): string;
  /** Bytes of the large columns of the same rows; null where the table has none. */
  selectSizes(limit: number, after: readonly string[] | null): string | null;
}

const integerWords = new Set(["tinyint", "smallint", "mediumint", "int", "bigint"]);
const numberWords = new Set([...integerWords, "decimal", "year", "float", "double"]);

/**
 * Looks the table up. Null when it is not there. Throws SOURCE_UNSUITABLE where it has no primary
 * key, or where the scope does not fit its key; SOURCE_UNREADABLE for a column that cannot be read.
 */
export async function readTable(
  control: ControlConnection,
  settings: SourceSettings,
  followed: FollowedTable,
  scope: SnapshotScope,
): Promise<TableReading | null> {
  const table = `${settings.tablePrefix}${followed.table}`;
  const columns = await readColumns(control, settings.database, table);
  if (columns === null) return null;
  const byName = new Map(columns.map((column) => [column.name.toLowerCase(), column]));
  const names = await readOrder(control, settings, followed);
  const order = names.map((name) => orderColumn(table, byName.get(name)));
  if (order.length === 0) {
    throw new AgentError(
      "SOURCE_UNSUITABLE",
      `table ${table} has no primary key, so it cannot be read in chunks`,
      {
        hint: "Give the table a primary key, or leave its entity out of the mapping.",
      },
    );
  }
  return compile({ settings, table, followed, scope, byName, order });
}

/**
 * Columns of the index that gives the order: the unique one over exactly the entity's key, else the
 * primary key. In the order of another key a row could move from the unread to the read part by a
 * change that gives no event.
 */
async function readOrder(
  control: ControlConnection,
  settings: SourceSettings,
  { table, columns, keyColumns }: FollowedTable,
): Promise<readonly string[]> {
  const rows = await control.query(
    `SELECT INDEX_NAME AS index_name, COLUMN_NAME AS column_name, NULLABLE AS nullable, SUB_PART AS sub_part
     FROM information_schema.STATISTICS
     WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX`,
    [settings.database, `${settings.tablePrefix}${table}`],
  );
  const indexes = new Map<string, string[]>();
  const unfit = new Set<string>();
  for (const row of rows) {
    const name = textOf(row, "index_name");
    indexes.set(name, [...(indexes.get(name) ?? []), textOf(row, "column_name").toLowerCase()]);
    if (textOf(row, "nullable") === "YES" || row["sub_part"] !== null) unfit.add(name);
  }
  const key = new Set(keyColumns.map((index) => (columns[index] ?? "").toLowerCase()));
  for (const [name, ordered] of indexes) {
    if (!unfit.has(name) && ordered.length === key.size && ordered.every((column) => key.has(column)))
      return ordered;
  }
  return indexes.get("PRIMARY") ?? [];
}

/**
 * Tables whose deletes reach into this one by foreign keys, over others too: InnoDB does that without
 * a word in the binlog.
 */
export async function readParents(
  control: ControlConnection,
  settings: SourceSettings,
  table: string,
): Promise<ReadonlySet<string>> {
  const rows = await control.query(
    `SELECT TABLE_NAME AS child, REFERENCED_TABLE_NAME AS parent FROM information_schema.REFERENTIAL_CONSTRAINTS
     WHERE CONSTRAINT_SCHEMA = ? AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL'))`,
    [settings.database],
  );
  const parents = new Set<string>();
  const open = [`${settings.tablePrefix}${table}`];
  for (let child = open.pop(); child !== undefined; child = open.pop()) {
    for (const row of rows) {
      const parent = textOf(row, "parent");
      if (textOf(row, "child") !== child || parents.has(parent)) continue;
      parents.add(parent);
      open.push(parent);
    }
  }
  return parents;
}

interface Parts {
  readonly settings: SourceSettings;
  readonly table: string;
  readonly followed: FollowedTable;
  readonly scope: SnapshotScope;
  readonly byName: ReadonlyMap<string, SchemaColumn>;
  readonly order: readonly OrderColumn[];
}

function compile({ settings, table, followed, scope, byName, order }: Parts): TableReading {
  const expressions = order.map(({ name }) => quoteName(name));
  const large: string[] = [];
  const packers = followed.columns.map((name) => {
    const column = byName.get(name.toLowerCase());
    if (column === undefined) return null;
    const { expression, pack, mayBeLarge } = selectedColumn(column);
    expressions.push(expression);
    if (mayBeLarge) large.push(`COALESCE(OCTET_LENGTH(${quoteName(column.name)}), 0)`);
    return pack;
  });
  const keyColumns = followed.keyColumns.map((index) =>
    byName.get((followed.columns[index] ?? "").toLowerCase()),
  );
  const within = conditionOf(scope, table, keyColumns);
  const from = `FROM ${quoteName(settings.database)}.${quoteName(table)}`;
  const rest = (limit: number, after: readonly string[] | null): string => {
    const conditions = [...within, ...(after === null ? [] : [behind(order, after)])];
    const where = conditions.length === 0 ? "" : ` WHERE ${conditions.join(" AND ")}`;
    return `${from}${where} ORDER BY ${order.map(({ name }) => quoteName(name)).join(", ")} LIMIT ${limit}`;
  };
  const followedColumns = followed.columns.map((name) => byName.get(name.toLowerCase()));
  return {
    order,
    packers,
    shape: JSON.stringify(followedColumns.map((column) => column?.columnType ?? null)),
    definitions: JSON.stringify(followedColumns.map(definitionOf)),
    isIntegerKey: isIntegerKey(keyColumns),
    select: (limit, after) => `SELECT ${expressions.join(", ")} ${rest(limit, after)}`,
    selectSizes: (limit, after) =>
      large.length === 0 ? null : `SELECT ${large.join(" + ")} AS bytes ${rest(limit, after)}`,
  };
}

function definitionOf(column: SchemaColumn | undefined): unknown {
  if (column === undefined) return null;
  const { columnType, charset, isNullable, generatedAs } = column;
  return [columnType, charset, isNullable, generatedAs];
}

/** (a > 1) OR (a = 1 AND b > 2): what follows a key in the order of the index. */
function behind(order: readonly OrderColumn[], after: readonly string[]): string {
  const literals = order.map(({ literalOf }, index) => literalOf(Buffer.from(after[index] ?? "", "base64")));
  const names = order.map(({ name }) => quoteName(name));
  const alternatives = names.map((name, index) => {
    const same = names.slice(0, index).map((before, at) => `${before} = ${literals[at] ?? ""}`);
    return `(${[...same, `${name} > ${literals[index] ?? ""}`].join(" AND ")})`;
  });
  // The first column alone bounds the index scan; the server does not see that through the OR.
  const bound = names.length === 1 ? "" : `${names[0] ?? ""} >= ${literals[0] ?? ""} AND `;
  return `${bound}(${alternatives.join(" OR ")})`;
}

function isIntegerKey(columns: readonly (SchemaColumn | undefined)[]): boolean {
  const [first] = columns;
  return (
    columns.length === 1 && first !== undefined && integerWords.has(parseColumnType(first.columnType).word)
  );
}

function conditionOf(
  scope: SnapshotScope,
  table: string,
  key: readonly (SchemaColumn | undefined)[],
): string[] {
  if (scope.kind === "all") return [];
  const [first] = key;
  if (scope.kind === "range") {
    if (first === undefined || !isIntegerKey(key)) {
      throw new AgentError(
        "SOURCE_UNSUITABLE",
        `the key of ${table} is no single integer, so it has no range`,
        {
          hint: "Name its keys, or read the whole entity.",
        },
      );
    }
    return [`${quoteName(first.name)} BETWEEN ${integer(scope.from)} AND ${integer(scope.to)}`];
  }
  const one = (magentoId: string): string => {
    const parts = key.length === 1 ? [magentoId] : magentoId.split(":").map(decodeURIComponent);
    const equal = key.map((column, index) => {
      const name = quoteName(column?.name ?? "");
      return `${name} = ${keyLiteral(column, parts[index] ?? "", table)}`;
    });
    return `(${equal.join(" AND ")})`;
  };
  return [`(${scope.keys.map(one).join(" OR ")})`];
}

function integer(text: string): string {
  if (!/^-?\d{1,20}$/.test(text)) throw new AgentError("USAGE", `"${text}" is no integer`);
  return text;
}

function keyLiteral(column: SchemaColumn | undefined, text: string, table: string): string {
  if (column === undefined || !integerWords.has(parseColumnType(column.columnType).word))
    return utf8Literal(text);
  if (!/^-?\d{1,20}$/.test(text)) {
    throw new AgentError(
      "SOURCE_UNSUITABLE",
      `"${text}" is no key of ${table}: ${column.name} is an integer`,
    );
  }
  return text;
}

function utf8Literal(text: string): string {
  return text === "" ? "''" : `_utf8mb4 X'${Buffer.from(text, "utf8").toString("hex")}'`;
}

function orderColumn(table: string, column: SchemaColumn | undefined): OrderColumn {
  if (column === undefined)
    throw new AgentError("SOURCE_UNSUITABLE", `the primary key of ${table} has no columns`);
  const { word } = parseColumnType(column.columnType);
  const { name, charset } = column;
  if (word === "enum" || word === "set") {
    throw new AgentError("SOURCE_UNSUITABLE", `the primary key of ${table} has the ${word} column ${name}`, {
      hint: "Rows are not read in chunks in the order of such a column.",
    });
  }
  if (numberWords.has(word)) return { name, literalOf: numberLiteral };
  if (charset !== null && charset !== "binary") {
    return { name, literalOf: (bytes) => `_${charset} ${hexLiteral(bytes)}` };
  }
  const isBytes = /binary|blob|bit/.test(word);
  return { name, literalOf: isBytes ? hexLiteral : (bytes) => `'${plain(bytes)}'` };
}

const hexLiteral = (bytes: Buffer): string => `X'${bytes.toString("hex")}'`;

/** Numbers, dates and addresses hold nothing that would have to be escaped; anything else is damage. */
function plain(bytes: Buffer): string {
  const text = bytes.toString("latin1");
  if (!/^[0-9a-z:. -]*$/i.test(text))
    throw new AgentError("SPOOL_CORRUPT", "a key in the snapshot's progress is no key");
  return text;
}

function numberLiteral(bytes: Buffer): string {
  const text = plain(bytes);
  if (!/^-?[0-9.]+(e[+-]?\d+)?$/i.test(text))
    throw new AgentError("SPOOL_CORRUPT", `"${text}" in the snapshot's progress is no number`);
  return text;
}
