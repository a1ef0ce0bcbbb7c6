/**
 * What a mapping is, once it was read and checked: which columns of which tables leave the host,
 * under which names. The default one is in default-mapping.ts, the file's reader in
 * mapping-file.ts.
 */

/** What a column holds, as far as it is known. Only schemas and types for consumers use it. */
export type ValueType = "integer" | "decimal" | "text" | "datetime" | "date" | "unknown";

/**
 * What happens to a value before anything is written to disk, in row and old image alike. Null
 * stays null under each of them.
 * - mask: any value becomes the text "***".
 * - hash: HMAC-SHA-256 of the value's text, keyed, 64 hexadecimal digits.
 * - truncate: the first `characters` code points of a text; numbers stay, JSON becomes text.
 */
export type Treatment =
  | { readonly kind: "none" }
  | { readonly kind: "mask" }
  | { readonly kind: "hash" }
  | { readonly kind: "truncate"; readonly characters: number };

export interface FieldMapping {
  readonly column: string;
  /** Name in the event's data. */
  readonly field: string;
  readonly type: ValueType;
  /** Entity that the value is the key of: `field` carries its UUID, `magento_<field>` the value. */
  readonly ref: string | null;
  /** Personal data: consumers empty it when the entity is deleted. */
  readonly personal: boolean;
  readonly treatment: Treatment;
}

export interface EntityMapping {
  readonly entity: string;
  /** Without the shop's table prefix. */
  readonly table: string;
  /** `{shop}` stands for the shop's name. */
  readonly topic: string;
  /** Columns of the entity's key; their values make `magento_id` and the UUID. */
  readonly keys: readonly string[];
  readonly fields: readonly FieldMapping[];
  /** full: a delete carries the mapped before image; keys: only ids. */
  readonly deletes: "full" | "keys";
  /** What happens to an event over Dapr's body limit. */
  readonly oversize: "dead-letter" | "omit";
}

export interface Mapping {
  readonly entities: readonly EntityMapping[];
  /** Templates, like the topic of an entity. */
  readonly controlTopic: string;
  readonly deadLetterTopic: string;
}

/** Names in an event's data that the agent itself writes. */
export const reservedFields: readonly string[] = [
  "op",
  "entity",
  "id",
  "magento_id",
  "source",
  "shop",
  "synced_at",
  "event_id",
  "sequence",
  "schema_version",
  "changed",
  "before",
  "attributes",
  "origin",
  "omitted",
  "invalid_text",
];

/** Prefix of the integers beside references; no field of a mapping may begin with it. */
export const companionPrefix = "magento_";

/** The topic of a template, for one shop. */
export function topicOf(template: string, shop: string): string {
  return template.replaceAll("{shop}", shop);
}

/**
 * Tables whose rows other tables hang on by foreign keys (magento.md 4.2). A delete of such a row
 * emptied its children without a word in the binlog, so a delete and a new insert of one key in
 * one transaction must not be told as an update.
 */
export const cascadingTables: ReadonlySet<string> = new Set([
  "customer_entity",
  "customer_address_entity",
  "catalog_product_entity",
  "catalog_category_entity",
  "sales_order",
  "salesrule",
]);

/** Tables whose rows are attribute values of an entity; never mapped as tables of their own. */
export function attributeValueOwner(table: string): string | null {
  const match =
    /(?:^|_)(customer|customer_address|catalog_product|catalog_category)_entity_(?:varchar|int|decimal|text|datetime)$/i.exec(
      table,
    );
  if (match === null) return null;
  const owner = (match[1] ?? "").toLowerCase();
  if (owner === "customer_address") return "address";
  return owner.replace("catalog_", "");
}
