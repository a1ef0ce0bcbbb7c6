import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { type DeclaredKey, differingKeys, relations } from "../../agent/transform/relations.ts";

/** The foreign keys of Magento's own schema. */
function magentoKeys(): DeclaredKey[] {
  const sql = readFileSync(
    join(import.meta.dirname, "..", "servers", "magento", "magento-ddl-fk.sql"),
    "utf8",
  );
  const pattern =
    /ALTER TABLE `(\w+)`.* FOREIGN KEY \(`(\w+)`\) REFERENCES `(\w+)` \(`(\w+)`\) ON DELETE (CASCADE|SET NULL)/g;
  return [...sql.matchAll(pattern)].map(
    ([, table = "", column = "", parentTable = "", parentColumn = "", onDelete = ""]) => ({
      table,
      column,
      parentTable,
      parentColumn,
      onDelete,
    }),
  );
}

const followed = defaultMapping.entities.map(({ table }) => table);
/** Their deletes reach into a large share of a table, which is read again then. */
const scopes = new Set([
  "store",
  "store_group",
  "store_website",
  "cataloginventory_stock",
  "inventory_source",
]);

describe("the relations of the index", () => {
  it("are all foreign keys between followed tables and those that Magento cascades into them, but for scopes", () => {
    const keys = magentoKeys().filter(
      ({ table, parentTable }) => followed.includes(table) && !scopes.has(parentTable),
    );
    assert.deepEqual(
      keys.map(({ table, column }) => `${table}.${column}`).sort(),
      relations
        .filter(({ parents }) => parents.length > 0)
        .map(({ table, column }) => `${table}.${column}`)
        .sort(),
    );
    assert.deepEqual(differingKeys(magentoKeys(), followed), []);
  });

  it("have numbers of their own, which never change", () => {
    assert.deepEqual(
      relations.map(({ id, table, column }) => `${id} ${table}.${column}`),
      [
        "1 customer_address_entity.parent_id",
        "2 sales_order.customer_id",
        "3 sales_order_item.order_id",
        "4 sales_order_address.parent_id",
        "5 cataloginventory_stock_item.product_id",
        "6 salesrule_coupon.rule_id",
        "7 catalog_product_entity.sku",
      ],
    );
  });

  it("are told apart from what a shop declares: missing, or with another rule", () => {
    const keys = magentoKeys()
      .filter(({ table }) => table !== "salesrule_coupon")
      .map((key) => (key.table === "sales_order" ? { ...key, onDelete: "RESTRICT" } : key));
    assert.deepEqual(differingKeys(keys, followed), [
      "sales_order.customer_id refers to customer_entity.entity_id ON DELETE RESTRICT, Magento's to customer_entity.entity_id ON DELETE SET NULL",
      "salesrule_coupon.rule_id refers to nothing, Magento's to salesrule.rule_id ON DELETE CASCADE",
    ]);
    assert.deepEqual(differingKeys([], ["sales_order_address"]).length, 1, "only of followed tables");
  });

  it("know Adobe Commerce's own: stock refers to the sequence of products", () => {
    const staged = magentoKeys().map((key) =>
      key.table === "cataloginventory_stock_item" && key.column === "product_id"
        ? { ...key, parentTable: "sequence_product", parentColumn: "sequence_value" }
        : key,
    );
    assert.deepEqual(differingKeys(staged, followed), []);
  });
});
