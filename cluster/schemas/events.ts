// Types of the entity events, made from the mapping. Do not edit: run test/transform/generate.ts.

export interface Origin {
  readonly table: string;
  readonly server: number;
  readonly position: string;
  readonly gtid: string | null;
  readonly ts_ms: number;
  readonly transaction: string;
  readonly transaction_events: number | null;
  readonly instance: string;
  readonly derived?: unknown;
}

/** What every event's data has; fields of the entity stand beside it. */
export interface EventData {
  readonly op: "c" | "u" | "d" | "r";
  readonly entity: string;
  readonly id: string;
  readonly magento_id: number | string;
  readonly shop: string;
  readonly source: "magento";
  readonly event_id: string;
  /** Compared as text: apply an event if it is greater than the one stored for this id. */
  readonly sequence: string;
  readonly schema_version: number;
  readonly synced_at: string;
  readonly invalid_text?: Readonly<Record<string, string>>;
  readonly omitted?: readonly string[];
  readonly changed?: readonly string[];
  readonly origin: Origin;
}

/** Mapped fields of customer. A field that the shop's table lacks is absent. */
export interface CustomerFields {
  /** Personal. */
  readonly email?: string | null;
  /** Personal. */
  readonly first_name?: string | null;
  /** Personal. */
  readonly last_name?: string | null;
  /** Personal. */
  readonly middle_name?: string | null;
  /** Personal. */
  readonly prefix?: string | null;
  /** Personal. */
  readonly suffix?: string | null;
  /** Personal. */
  readonly date_of_birth?: string | null;
  /** Personal. */
  readonly gender?: number | null;
  /** Personal. */
  readonly tax_vat?: string | null;
  readonly website_id?: number | null;
  readonly store_id?: number | null;
  readonly group_id?: number | null;
  readonly increment_id?: string | null;
  readonly is_active?: number | null;
  /** UUID of the address. */
  readonly default_billing_address_id?: string | null;
  readonly magento_default_billing_address_id?: number | null;
  /** UUID of the address. */
  readonly default_shipping_address_id?: string | null;
  readonly magento_default_shipping_address_id?: number | null;
  readonly created_at?: string | null;
  readonly updated_at?: string | null;
}

export interface CustomerData extends EventData, CustomerFields {
  readonly entity: "customer";
  readonly magento_id: number;
  readonly before?: Partial<CustomerFields>;
}

/** Mapped fields of address. A field that the shop's table lacks is absent. */
export interface AddressFields {
  /** UUID of the customer. */
  readonly customer_id?: string | null;
  readonly magento_customer_id?: number | null;
  /** Personal. */
  readonly first_name?: string | null;
  /** Personal. */
  readonly last_name?: string | null;
  /** Personal. */
  readonly middle_name?: string | null;
  /** Personal. */
  readonly prefix?: string | null;
  /** Personal. */
  readonly suffix?: string | null;
  /** Personal. */
  readonly company?: string | null;
  /** Personal. */
  readonly street?: string | null;
  /** Personal. */
  readonly city?: string | null;
  /** Personal. */
  readonly region?: string | null;
  readonly region_id?: number | null;
  /** Personal. */
  readonly postcode?: string | null;
  readonly country_id?: string | null;
  /** Personal. */
  readonly telephone?: string | null;
  /** Personal. */
  readonly fax?: string | null;
  /** Personal. */
  readonly vat_id?: string | null;
  readonly is_active?: number | null;
  readonly created_at?: string | null;
  readonly updated_at?: string | null;
}

export interface AddressData extends EventData, AddressFields {
  readonly entity: "address";
  readonly magento_id: number;
  readonly before?: Partial<AddressFields>;
}

/** Mapped fields of product. A field that the shop's table lacks is absent. */
export interface ProductFields {
  readonly sku?: string | null;
  readonly attribute_set_id?: number | null;
  readonly type_id?: string | null;
  readonly has_options?: number | null;
  readonly required_options?: number | null;
  readonly created_at?: string | null;
  readonly updated_at?: string | null;
}

export interface ProductData extends EventData, ProductFields {
  readonly entity: "product";
  readonly magento_id: number;
  readonly before?: Partial<ProductFields>;
}

/** Mapped fields of category. A field that the shop's table lacks is absent. */
export interface CategoryFields {
  /** UUID of the category. */
  readonly parent_id?: string | null;
  readonly magento_parent_id?: number | null;
  readonly attribute_set_id?: number | null;
  readonly path?: string | null;
  readonly position?: number | null;
  readonly level?: number | null;
  readonly children_count?: number | null;
  readonly created_at?: string | null;
  readonly updated_at?: string | null;
}

export interface CategoryData extends EventData, CategoryFields {
  readonly entity: "category";
  readonly magento_id: number;
  readonly before?: Partial<CategoryFields>;
}

/** Mapped fields of order. A field that the shop's table lacks is absent. */
export interface OrderFields {
  readonly increment_id?: string | null;
  readonly state?: string | null;
  readonly status?: string | null;
  readonly total_amount?: string | null;
  readonly subtotal?: string | null;
  readonly subtotal_incl_tax?: string | null;
  readonly tax_amount?: string | null;
  readonly discount_amount?: string | null;
  readonly shipping_amount?: string | null;
  readonly shipping_incl_tax?: string | null;
  readonly total_paid?: string | null;
  readonly total_refunded?: string | null;
  readonly total_due?: string | null;
  readonly total_canceled?: string | null;
  readonly total_qty_ordered?: string | null;
  readonly total_item_count?: number | null;
  readonly weight?: string | null;
  readonly currency?: string | null;
  readonly base_currency?: string | null;
  readonly base_total_amount?: string | null;
  readonly store_id?: number | null;
  readonly store_name?: string | null;
  /** UUID of the customer. */
  readonly customer_id?: string | null;
  readonly magento_customer_id?: number | null;
  readonly customer_is_guest?: number | null;
  readonly customer_group_id?: number | null;
  /** Personal. */
  readonly customer_email?: string | null;
  /** Personal. */
  readonly customer_first_name?: string | null;
  /** Personal. */
  readonly customer_last_name?: string | null;
  readonly shipping_method?: string | null;
  readonly shipping_description?: string | null;
  readonly coupon_code?: string | null;
  readonly is_virtual?: number | null;
  /** UUID of the order-address. */
  readonly billing_address_id?: string | null;
  readonly magento_billing_address_id?: number | null;
  /** UUID of the order-address. */
  readonly shipping_address_id?: string | null;
  readonly magento_shipping_address_id?: number | null;
  readonly created_at?: string | null;
  readonly updated_at?: string | null;
}

export interface OrderData extends EventData, OrderFields {
  readonly entity: "order";
  readonly magento_id: number;
  readonly before?: Partial<OrderFields>;
}

/** Mapped fields of order-item. A field that the shop's table lacks is absent. */
export interface OrderItemFields {
  /** UUID of the order. */
  readonly order_id?: string | null;
  readonly magento_order_id?: number | null;
  /** UUID of the order-item. */
  readonly parent_item_id?: string | null;
  readonly magento_parent_item_id?: number | null;
  /** UUID of the product. */
  readonly product_id?: string | null;
  readonly magento_product_id?: number | null;
  readonly product_type?: string | null;
  readonly sku?: string | null;
  readonly name?: string | null;
  readonly qty_ordered?: string | null;
  readonly qty_invoiced?: string | null;
  readonly qty_shipped?: string | null;
  readonly qty_canceled?: string | null;
  readonly qty_refunded?: string | null;
  readonly price?: string | null;
  readonly base_price?: string | null;
  readonly original_price?: string | null;
  readonly price_incl_tax?: string | null;
  readonly row_total?: string | null;
  readonly row_total_incl_tax?: string | null;
  readonly tax_percent?: string | null;
  readonly tax_amount?: string | null;
  readonly discount_percent?: string | null;
  readonly discount_amount?: string | null;
  readonly amount_refunded?: string | null;
  readonly weight?: string | null;
  readonly is_virtual?: number | null;
  readonly store_id?: number | null;
  readonly created_at?: string | null;
  readonly updated_at?: string | null;
}

export interface OrderItemData extends EventData, OrderItemFields {
  readonly entity: "order-item";
  readonly magento_id: number;
  readonly before?: Partial<OrderItemFields>;
}

/** Mapped fields of order-address. A field that the shop's table lacks is absent. */
export interface OrderAddressFields {
  /** UUID of the order. */
  readonly order_id?: string | null;
  readonly magento_order_id?: number | null;
  readonly address_type?: string | null;
  /** UUID of the address. */
  readonly customer_address_id?: string | null;
  readonly magento_customer_address_id?: number | null;
  /** Personal. */
  readonly first_name?: string | null;
  /** Personal. */
  readonly last_name?: string | null;
  /** Personal. */
  readonly middle_name?: string | null;
  /** Personal. */
  readonly prefix?: string | null;
  /** Personal. */
  readonly suffix?: string | null;
  /** Personal. */
  readonly company?: string | null;
  /** Personal. */
  readonly street?: string | null;
  /** Personal. */
  readonly city?: string | null;
  /** Personal. */
  readonly region?: string | null;
  readonly region_id?: number | null;
  /** Personal. */
  readonly postcode?: string | null;
  readonly country_id?: string | null;
  /** Personal. */
  readonly telephone?: string | null;
  /** Personal. */
  readonly fax?: string | null;
  /** Personal. */
  readonly email?: string | null;
  /** Personal. */
  readonly vat_id?: string | null;
}

export interface OrderAddressData extends EventData, OrderAddressFields {
  readonly entity: "order-address";
  readonly magento_id: number;
  readonly before?: Partial<OrderAddressFields>;
}

/** Mapped fields of stock. A field that the shop's table lacks is absent. */
export interface StockFields {
  /** UUID of the product. */
  readonly product_id?: string | null;
  readonly magento_product_id?: number | null;
  readonly stock_id?: number | null;
  readonly website_id?: number | null;
  readonly qty?: string | null;
  readonly is_in_stock?: number | null;
  readonly manage_stock?: number | null;
  readonly use_config_manage_stock?: number | null;
  readonly backorders?: number | null;
  readonly min_qty?: string | null;
  readonly min_sale_qty?: string | null;
  readonly max_sale_qty?: string | null;
  readonly notify_stock_qty?: string | null;
  readonly low_stock_date?: string | null;
}

export interface StockData extends EventData, StockFields {
  readonly entity: "stock";
  readonly magento_id: string;
  readonly before?: Partial<StockFields>;
}

/** Mapped fields of source-item. A field that the shop's table lacks is absent. */
export interface SourceItemFields {
  readonly source_code?: string | null;
  readonly sku?: string | null;
  readonly quantity?: string | null;
  readonly status?: number | null;
}

export interface SourceItemData extends EventData, SourceItemFields {
  readonly entity: "source-item";
  readonly magento_id: string;
  readonly before?: Partial<SourceItemFields>;
}

/** Mapped fields of coupon. A field that the shop's table lacks is absent. */
export interface CouponFields {
  readonly rule_id?: number | null;
  readonly code?: string | null;
  readonly usage_limit?: number | null;
  readonly usage_per_customer?: number | null;
  readonly times_used?: number | null;
  readonly expiration_date?: string | null;
  readonly is_primary?: number | null;
  readonly type?: number | null;
  readonly created_at?: string | null;
}

export interface CouponData extends EventData, CouponFields {
  readonly entity: "coupon";
  readonly magento_id: number;
  readonly before?: Partial<CouponFields>;
}

export type AnyEventData =
  | CustomerData
  | AddressData
  | ProductData
  | CategoryData
  | OrderData
  | OrderItemData
  | OrderAddressData
  | StockData
  | SourceItemData
  | CouponData;
