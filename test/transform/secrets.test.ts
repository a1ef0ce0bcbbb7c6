import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { parseMapping } from "../../agent/transform/mapping-file.ts";
import { secretColumns, secretColumnsAnywhere, secretTables } from "../../agent/transform/secrets.ts";
import { makeTransform } from "./parts.ts";

const options = { hasFieldHashKey: true };

/** magento.md 1.1, written down a second time on purpose: the code's list is what is tested. */
const columns: Readonly<Record<string, string>> = {
  customer_entity:
    "password_hash rp_token rp_token_created_at confirmation session_cutoff failures_num first_failure lock_expires",
  sales_order: "protect_code",
  sales_order_payment:
    "cc_number_enc cc_last_4 cc_owner cc_exp_month cc_exp_year cc_ss_start_month cc_ss_issue cc_trans_id cc_debug_request_body cc_debug_response_serialized cc_secure_verify echeck_account_name echeck_routing_number additional_information",
  quote_payment:
    "cc_number_enc cc_last_4 cc_owner cc_exp_month cc_ss_owner cc_trans_id echeck_type additional_information",
  quote: "password_hash",
};
const tables =
  "admin_user admin_passwords admin_user_session oauth_token oauth_consumer oauth_nonce integration vault_payment_token login_as_customer persistent_session customer_visitor password_reset_request_event sales_order_confirm_cancel core_config_data session tfa_user_config tfa_country_codes adobe_user_profile admin_adobe_ims_webapi jwt_auth_revoked downloadable_link_purchased_item";

function entityOf(table: string): string {
  return defaultMapping.entities.find((entity) => entity.table === table)?.entity ?? table;
}

for (const [table, names] of Object.entries(columns)) {
  for (const column of names.split(" ")) {
    for (const spelling of [column, column.toUpperCase()]) {
      test(`refuses ${table}.${spelling}, under whatever name and treatment`, () => {
        const entity = entityOf(table);
        for (const entry of ["innocent", { field: "innocent", hash: true }]) {
          const keys = entity === table ? { keys: ["entity_id"] } : {};
          const text = JSON.stringify({ entities: { [entity]: { ...keys, fields: { [spelling]: entry } } } });
          assert.throws(() => parseMapping(text, options), {
            code: "MAPPING_INVALID",
            message: new RegExp(`\\$\\.entities\\.${entity}\\.fields\\.${spelling} .*secret`),
          });
        }
      });
    }
  }
}

for (const table of tables.split(" ")) {
  test(`refuses the table ${table}`, () => {
    const text = JSON.stringify({ entities: { [table]: { keys: ["id"], fields: { created: "created" } } } });
    assert.throws(() => parseMapping(text, options), {
      code: "MAPPING_INVALID",
      message: /table of secrets/,
    });
  });
}

test("refuses a table of secrets under a table prefix, and a secret as key column", () => {
  const prefixed = JSON.stringify({
    entities: { mg_admin_user: { keys: ["user_id"], fields: { email: "email" } } },
  });
  assert.throws(() => parseMapping(prefixed, options), { code: "MAPPING_INVALID" });
  const key = JSON.stringify({
    entities: { quote: { keys: ["password_hash"], fields: { store_id: "store_id" } } },
  });
  assert.throws(() => parseMapping(key, options), {
    code: "MAPPING_INVALID",
    message: /\$\.entities\.quote\.keys/,
  });
  const copy = JSON.stringify({ entities: { my_copy: { keys: ["id"], fields: { rp_token: "token" } } } });
  assert.throws(() => parseMapping(copy, options), { code: "MAPPING_INVALID" });
});

test("the transform refuses a mapping with a secret, whoever made it", () => {
  const [customer] = defaultMapping.entities;
  assert.ok(customer !== undefined);
  const [field] = customer.fields;
  assert.ok(field !== undefined);
  const entities = [
    { ...customer, fields: [...customer.fields, { ...field, column: "password_hash", field: "p" }] },
  ];
  assert.throws(() => makeTransform({ mapping: { ...defaultMapping, entities } }), {
    code: "MAPPING_INVALID",
  });
});

test("the default mapping names no secret, and no followed column is one", () => {
  const secrets = new Set([...Object.values(secretColumns).flat(), ...secretColumnsAnywhere]);
  for (const { table, columns: followed } of makeTransform().tables) {
    assert.ok(!secretTables.includes(table), table);
    for (const column of followed) assert.ok(!secrets.has(column), `${table}.${column}`);
  }
});
