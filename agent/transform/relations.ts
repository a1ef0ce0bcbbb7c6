/**
 * What the index keeps of rows: of which parent each child is. InnoDB carries deletes and SET NULL
 * into children without a word in the binlog, so whoever wants to tell of these children has to know
 * them beforehand.
 *
 * Not kept, on purpose: children of stores, websites, stocks and sources. One delete there reaches
 * into a large share of a table; the answer is to read that table again, not to list its rows.
 */
import { createHash } from "node:crypto";

export interface Relation {
  /** Part of keys on disk: never changed, never given twice. */
  readonly id: number;
  /** Child table, without prefix, and its column that names the parent. */
  readonly table: string;
  readonly column: string;
  /** Foreign keys that carry deletes of the parent into the child, by edition; none: it is a lookup. */
  readonly parents: readonly RelationParent[];
  /** Whether the other way, from the child to the parent's value, is kept too. */
  readonly bothWays: boolean;
}

/** A foreign key as it is declared in a shop. */
export interface RelationParent {
  readonly table: string;
  readonly column: string;
  readonly onDelete: "CASCADE" | "SET NULL";
}

function parent(
  table: string,
  column: string,
  onDelete: RelationParent["onDelete"] = "CASCADE",
): RelationParent {
  return { table, column, onDelete };
}

function children(id: number, table: string, column: string, parents: readonly RelationParent[]): Relation {
  return { id, table, column, parents, bothWays: false };
}

/** Foreign keys of Magento 2.4 whose children have events of their own; the second of a list is Adobe Commerce's. */
export const relations: readonly Relation[] = [
  children(1, "customer_address_entity", "parent_id", [parent("customer_entity", "entity_id")]),
  children(2, "sales_order", "customer_id", [parent("customer_entity", "entity_id", "SET NULL")]),
  children(3, "sales_order_item", "order_id", [parent("sales_order", "entity_id")]),
  children(4, "sales_order_address", "parent_id", [parent("sales_order", "entity_id")]),
  children(5, "cataloginventory_stock_item", "product_id", [
    parent("catalog_product_entity", "entity_id"),
    parent("sequence_product", "sequence_value"),
  ]),
  children(6, "salesrule_coupon", "rule_id", [parent("salesrule", "rule_id"), parent("salesrule", "row_id")]),
  { id: 7, table: "catalog_product_entity", column: "sku", parents: [], bothWays: true },
];

export function relationsOf(table: string): readonly Relation[] {
  return relations.filter((relation) => relation.table === table);
}

/** How it is named in logs and status. */
export function relationName({ table, column }: Pick<Relation, "table" | "column">): string {
  return `${table}.${column}`;
}

/** Raised when entries of an earlier build must be made anew. */
const ENTRIES_VERSION = 1;

/** What the entries depend on: with another one they are scanned again. */
export function relationFingerprint(relation: Relation, keys: readonly string[]): string {
  const text = JSON.stringify([ENTRIES_VERSION, relation.table, relation.column, keys]);
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** A foreign key of the shop, by its columns; tables without prefix. */
export interface DeclaredKey {
  readonly table: string;
  readonly column: string;
  readonly parentTable: string;
  readonly parentColumn: string;
  readonly onDelete: string;
}

/**
 * Where the shop's schema differs from Magento's in the foreign keys of these tables, one sentence
 * each. Entries are kept all the same: they say which rows name which parent.
 */
export function differingKeys(declared: readonly DeclaredKey[], tables: readonly string[]): string[] {
  const found: string[] = [];
  for (const relation of relations) {
    const { table, column, parents } = relation;
    const [usual] = parents;
    if (usual === undefined || !tables.includes(table)) continue;
    const own = declared.filter((key) => key.table === table && key.column.toLowerCase() === column);
    const isUsual = own.some((key) => parents.some((one) => isDeclared(key, one)));
    if (isUsual) continue;
    const known = own.map((key) => `${key.parentTable}.${key.parentColumn} ON DELETE ${key.onDelete}`);
    found.push(
      `${relationName(relation)} refers to ${known.length === 0 ? "nothing" : known.join(" and ")}, ` +
        `Magento's to ${usual.table}.${usual.column} ON DELETE ${usual.onDelete}`,
    );
  }
  return found;
}

function isDeclared(key: DeclaredKey, { table, column, onDelete }: RelationParent): boolean {
  return key.parentTable === table && key.parentColumn.toLowerCase() === column && key.onDelete === onDelete;
}
