/** The ten followed tables as the random writer sees them, and the helpers that it needs beside them. */
import type { Connection } from "mysql2/promise";
import { readColumns, type TableShape } from "./dml-values.ts";
import { entities } from "./entities.ts";

/** Second unique keys of Magento's schema; REPLACE and ON DUPLICATE KEY also meet rows through them. */
const uniqueKeys: Readonly<Record<string, readonly string[]>> = {
  customer_entity: ["email", "website_id"],
  sales_order: ["increment_id", "store_id"],
  cataloginventory_stock_item: ["product_id", "stock_id"],
  inventory_source_item: ["source_code", "sku"],
  salesrule_coupon: ["code"],
};

const primaryKeys: Readonly<Record<string, string>> = {
  sales_order_item: "item_id",
  cataloginventory_stock_item: "item_id",
  inventory_source_item: "source_item_id",
  salesrule_coupon: "coupon_id",
};

/** A table that no mapping follows and no transaction can roll back. */
export const myisamTable = "oracle_untransactional";

export async function readTables(
  connection: Connection,
  database: string,
  prefix: string,
): Promise<readonly TableShape[]> {
  const shapes: TableShape[] = [];
  for (const spec of entities) {
    shapes.push({
      table: spec.table,
      sql: `\`${database}\`.\`${prefix}${spec.table}\``,
      primaryKey: primaryKeys[spec.table] ?? "entity_id",
      unique: uniqueKeys[spec.table] ?? [],
      columns: await readColumns(connection, database, `${prefix}${spec.table}`),
      mapped: new Set([...spec.keyColumns, ...spec.fields.map((field) => field.column)]),
    });
  }
  return shapes;
}

/** The untransactional table; call once before writing. */
export async function createHelpers(connection: Connection, database: string): Promise<void> {
  await connection.query(
    `CREATE TABLE IF NOT EXISTS \`${database}\`.\`${myisamTable}\` (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(60))
     ENGINE=MyISAM`,
  );
}
