/**
 * Source tables as a consumer should see them, rendered by the server itself: text as the bytes of
 * utf8mb4 in hexadecimal, numbers and times through CAST and DATE_FORMAT. Nothing of the agent's
 * decoder takes part.
 */
import type { Connection, RowDataPacket } from "mysql2/promise";
import type { EntitySpec, FieldSpec } from "./entities.ts";
import { uuidV5 } from "./uuid.ts";

export interface ShopIdentity {
  readonly shop: string;
  readonly namespace: string;
  readonly database: string;
  /** Prefix of the shop's tables, "" where it has none. */
  readonly prefix: string;
}

/** One source row in the form that a consumer should hold. */
export interface ExpectedEntity {
  readonly id: string;
  readonly magentoId: string | number;
  readonly fields: Record<string, unknown>;
}

type Rendering = "number" | "text" | "string";

interface RenderedColumn {
  readonly column: string;
  readonly rendering: Rendering;
  readonly sql: string;
}

export interface SourceShape {
  readonly spec: EntitySpec;
  readonly tableSql: string;
  /** The single-column primary key, by which the table is read in chunks. */
  readonly primaryKey: string;
  readonly columns: readonly RenderedColumn[];
}

function render(column: string, dataType: string): RenderedColumn {
  const name = `\`${column}\``;
  switch (dataType) {
    case "tinyint":
    case "smallint":
    case "mediumint":
    case "int":
      return { column, rendering: "number", sql: `CAST(${name} AS CHAR)` };
    case "bigint":
    case "decimal":
      return { column, rendering: "string", sql: `CAST(${name} AS CHAR)` };
    case "char":
    case "varchar":
    case "tinytext":
    case "text":
    case "mediumtext":
    case "longtext":
      return { column, rendering: "text", sql: `HEX(CONVERT(${name} USING utf8mb4))` };
    case "date":
      return { column, rendering: "string", sql: dated(name, "%Y-%m-%d") };
    case "datetime":
    case "timestamp":
      return { column, rendering: "string", sql: dated(name, "%Y-%m-%dT%H:%i:%sZ") };
    default:
      throw new Error(`the oracle has no rendering for ${dataType} (column ${column})`);
  }
}

/** Zero and partial dates are null for a consumer; the literal works whatever the sql_mode. */
function dated(name: string, format: string): string {
  return `IF(MONTH(${name}) = 0 OR DAYOFMONTH(${name}) = 0, NULL, DATE_FORMAT(${name}, '${format}'))`;
}

/** Reads the table's shape. Columns that this shop does not have are left out, as the agent does. */
export async function describeSource(
  connection: Connection,
  identity: ShopIdentity,
  spec: EntitySpec,
): Promise<SourceShape> {
  const table = `${identity.prefix}${spec.table}`;
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT COLUMN_NAME AS name, DATA_TYPE AS type, COLUMN_KEY AS keyed FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?`,
    [identity.database, table],
  );
  const types = new Map(rows.map((row) => [String(row["name"]), String(row["type"])]));
  const primary = rows.filter((row) => row["keyed"] === "PRI").map((row) => String(row["name"]));
  if (primary[0] === undefined || primary.length > 1)
    throw new Error(`${table} has no single-column primary key`);
  const wanted = new Set([...spec.keyColumns, ...spec.fields.map((field) => field.column)]);
  const columns = [...wanted].flatMap((column) => {
    const type = types.get(column);
    return type === undefined ? [] : [render(column, type)];
  });
  return { spec, tableSql: `\`${identity.database}\`.\`${table}\``, primaryKey: primary[0], columns };
}

type Cell = string | number | null;

function cellOf(column: RenderedColumn, raw: unknown): Cell {
  if (raw === null || raw === undefined) return null;
  if (typeof raw !== "string") throw new Error(`${column.column} was not rendered as text by the server`);
  if (column.rendering === "number") return Number(raw);
  return column.rendering === "text" ? Buffer.from(raw, "hex").toString("utf8") : raw;
}

function escapePart(part: Cell): string {
  return String(part).replaceAll("%", "%25").replaceAll(":", "%3A");
}

function magentoIdOf(spec: EntitySpec, cells: ReadonlyMap<string, Cell>): string | number {
  const parts = spec.keyColumns.map((column) => cells.get(column) ?? null);
  const [only] = parts;
  if (parts.length === 1 && typeof only === "number") return only;
  return parts.map(escapePart).join(":");
}

function addField(
  fields: Record<string, unknown>,
  field: FieldSpec,
  value: Cell,
  identity: ShopIdentity,
): void {
  if (field.references === null) {
    fields[field.field] = value;
    return;
  }
  const name = `${identity.shop}/${field.references}:${value}`;
  // Magento writes 0 where nothing is referred to; no entity has that key.
  fields[field.field] = value === null || value === 0 ? null : uuidV5(identity.namespace, name);
  fields[`magento_${field.field}`] = value;
}

function expectedOf(shape: SourceShape, row: RowDataPacket, identity: ShopIdentity): ExpectedEntity {
  const cells = new Map(shape.columns.map((column, at) => [column.column, cellOf(column, row[`c${at}`])]));
  const magentoId = magentoIdOf(shape.spec, cells);
  const fields: Record<string, unknown> = {};
  for (const field of shape.spec.fields) {
    const value = cells.get(field.column);
    if (value !== undefined) addField(fields, field, value, identity);
  }
  const id = uuidV5(identity.namespace, `${identity.shop}/${shape.spec.entity}:${magentoId}`);
  return { id, magentoId, fields };
}

/** Every row of the table by primary key, in chunks. The caller keeps writers away meanwhile. */
export async function* sourceRows(
  connection: Connection,
  shape: SourceShape,
  identity: ShopIdentity,
): AsyncGenerator<ExpectedEntity> {
  const chunkRows = 4000;
  const selected = shape.columns.map((column, at) => `${column.sql} AS c${at}`).join(", ");
  const key = `\`${shape.primaryKey}\``;
  let after = -1;
  await connection.query("SET time_zone = '+00:00'");
  while (true) {
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT ${key} AS pk, ${selected} FROM ${shape.tableSql} WHERE ${key} > ? ORDER BY ${key} LIMIT ${chunkRows}`,
      [after],
    );
    for (const row of rows) {
      after = Number(row["pk"]);
      yield expectedOf(shape, row, identity);
    }
    if (rows.length < chunkRows) return;
  }
}
