/**
 * The ten row-fed entities as the product's contract has them (docs: default mapping), written down
 * a second time and by hand: the oracle must not ask the agent's own mapping what is right.
 */

/** One mapped column: a plain value, or a reference to another entity. */
export interface FieldSpec {
  readonly column: string;
  readonly field: string;
  /** Entity that the column points to; the field then carries its UUID. */
  readonly references: string | null;
  readonly personal: boolean;
}

export interface EntitySpec {
  readonly entity: string;
  readonly table: string;
  readonly topic: string;
  /** Columns of the entity's key, in the order of `magento_id`. */
  readonly keyColumns: readonly string[];
  readonly fields: readonly FieldSpec[];
}

/**
 * One word a column: `column`, `column>field`, `column@entity` (reference), `column@entity>field`;
 * a leading `!` marks personal data.
 */
function parseField(word: string): FieldSpec {
  const personal = word.startsWith("!");
  const [from = "", target] = (personal ? word.slice(1) : word).split(">");
  const [column = "", references] = from.split("@");
  return { column, field: target ?? column, references: references ?? null, personal };
}

function entity(name: string, table: string, keyColumns: string, fields: string): EntitySpec {
  return {
    entity: name,
    table,
    topic: `migration.${name}.changed`,
    keyColumns: keyColumns.split(" "),
    fields: fields.trim().split(/\s+/).map(parseField),
  };
}

const personName = "!firstname>first_name !lastname>last_name !middlename>middle_name !prefix !suffix";
const place = "!company !street !city !region region_id !postcode country_id !telephone !fax";

export const entities: readonly EntitySpec[] = [
  entity(
    "customer",
    "customer_entity",
    "entity_id",
    `!email ${personName} !dob>date_of_birth !gender !taxvat>tax_vat website_id store_id group_id increment_id
     is_active default_billing@address>default_billing_address_id
     default_shipping@address>default_shipping_address_id created_at updated_at`,
  ),
  entity(
    "address",
    "customer_address_entity",
    "entity_id",
    `parent_id@customer>customer_id ${personName} ${place} !vat_id is_active created_at updated_at`,
  ),
  entity(
    "product",
    "catalog_product_entity",
    "entity_id",
    "sku attribute_set_id type_id has_options required_options created_at updated_at",
  ),
  entity(
    "category",
    "catalog_category_entity",
    "entity_id",
    "parent_id@category attribute_set_id path position level children_count created_at updated_at",
  ),
  entity(
    "order",
    "sales_order",
    "entity_id",
    `increment_id state status grand_total>total_amount subtotal subtotal_incl_tax tax_amount discount_amount
     shipping_amount shipping_incl_tax total_paid total_refunded total_due total_canceled total_qty_ordered
     total_item_count weight order_currency_code>currency base_currency_code>base_currency
     base_grand_total>base_total_amount store_id store_name customer_id@customer customer_is_guest
     customer_group_id !customer_email !customer_firstname>customer_first_name
     !customer_lastname>customer_last_name shipping_method shipping_description coupon_code is_virtual
     billing_address_id@order-address shipping_address_id@order-address created_at updated_at`,
  ),
  entity(
    "order-item",
    "sales_order_item",
    "item_id",
    `order_id@order parent_item_id@order-item product_id@product product_type sku name qty_ordered qty_invoiced
     qty_shipped qty_canceled qty_refunded price base_price original_price price_incl_tax row_total
     row_total_incl_tax tax_percent tax_amount discount_percent discount_amount amount_refunded weight
     is_virtual store_id created_at updated_at`,
  ),
  entity(
    "order-address",
    "sales_order_address",
    "entity_id",
    `parent_id@order>order_id address_type customer_address_id@address ${personName} ${place} !email !vat_id`,
  ),
  entity(
    "stock",
    "cataloginventory_stock_item",
    "product_id stock_id",
    `product_id@product stock_id website_id qty is_in_stock manage_stock use_config_manage_stock backorders min_qty
     min_sale_qty max_sale_qty notify_stock_qty low_stock_date`,
  ),
  entity("source-item", "inventory_source_item", "source_code sku", "source_code sku quantity status"),
  entity(
    "coupon",
    "salesrule_coupon",
    "coupon_id",
    `rule_id code usage_limit usage_per_customer times_used expiration_date is_primary type created_at`,
  ),
];

/** The spec of one entity; an unknown name is the test's own mistake. */
export function entityNamed(name: string): EntitySpec {
  const found = entities.find((spec) => spec.entity === name);
  if (found === undefined) throw new Error(`no entity "${name}"`);
  return found;
}
