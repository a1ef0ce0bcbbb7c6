/**
 * What never leaves the host, whatever a mapping says (magento.md 1.1). Names are compared without
 * regard to case, as the database does. A table that ends with `_` and a listed name counts too:
 * without the right table prefix in the settings, `mg_admin_user` would otherwise be a table that
 * nobody listed.
 */

/** Tables of which no column may be mapped. */
export const secretTables: readonly string[] = [
  "admin_user",
  "admin_passwords",
  "admin_user_session",
  "oauth_token",
  "oauth_consumer",
  "oauth_nonce",
  "integration",
  "vault_payment_token",
  "login_as_customer",
  "persistent_session",
  "customer_visitor",
  "password_reset_request_event",
  "sales_order_confirm_cancel",
  "core_config_data",
  "session",
  "adobe_user_profile",
  "admin_adobe_ims_webapi",
  "jwt_auth_revoked",
  "downloadable_link_purchased_item",
];

/** Every table of two-factor authentication; extensions of it bring more under the same prefix. */
const secretTablePrefix = "tfa_";

/** Columns of one table; a `*` at the end stands for any rest. */
export const secretColumns: Readonly<Record<string, readonly string[]>> = {
  customer_entity: [
    "password_hash",
    "rp_token",
    "rp_token_created_at",
    "confirmation",
    "session_cutoff",
    "failures_num",
    "first_failure",
    "lock_expires",
  ],
  sales_order: ["protect_code"],
  sales_order_payment: [
    "cc_number_enc",
    "cc_last_4",
    "cc_owner",
    "cc_exp_month",
    "cc_exp_year",
    "cc_ss_*",
    "cc_trans_id",
    "cc_debug_*",
    "cc_secure_verify",
    "echeck_*",
    "additional_information",
  ],
  quote_payment: [
    "cc_number_enc",
    "cc_last_4",
    "cc_owner",
    "cc_exp_month",
    "cc_exp_year",
    "cc_ss_*",
    "cc_trans_id",
    "cc_debug_*",
    "cc_secure_verify",
    "echeck_*",
    "additional_information",
  ],
  quote: ["password_hash"],
};

/** Columns that are secrets in whatever table they stand: copies, grids and archives have them. */
export const secretColumnsAnywhere: readonly string[] = [
  "password",
  "password_hash",
  "rp_token",
  "rp_token_created_at",
  "session_cutoff",
  "protect_code",
  "confirmation_key",
  "cc_number_enc",
  "cc_last_4",
  "cc_owner",
  "cc_exp_month",
  "cc_exp_year",
  "cc_ss_*",
  "cc_trans_id",
  "cc_debug_*",
  "cc_secure_verify",
  "echeck_*",
  "gateway_token",
  "public_hash",
  "link_hash",
];

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

/** Whether `table` is `listed`, or is it under a prefix. Names of one word are too common for that. */
function isTable(table: string, listed: string): boolean {
  return table === listed || (listed.includes("_") && table.endsWith(`_${listed}`));
}

/** Whether no column of the table may be mapped. */
export function isSecretTable(table: string): boolean {
  const name = table.toLowerCase();
  if (name.startsWith(secretTablePrefix) || name.includes(`_${secretTablePrefix}`)) return true;
  return secretTables.some((listed) => isTable(name, listed));
}

/** Whether this column of this table may not be mapped. */
export function isSecretColumn(table: string, column: string): boolean {
  const name = column.toLowerCase();
  return secretColumnsOf(table).some((pattern) => matches(pattern, name));
}

/** Patterns of the columns that are refused in this table. */
export function secretColumnsOf(table: string): readonly string[] {
  const name = table.toLowerCase();
  const own = Object.entries(secretColumns).flatMap(([listed, columns]) =>
    isTable(name, listed) ? columns : [],
  );
  return [...new Set([...own, ...secretColumnsAnywhere])];
}
