import assert from "node:assert/strict";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { MappingError } from "../../agent/transform/mapping-faults.ts";
import type { MappingFault } from "../../agent/transform/mapping-faults.ts";
import { parseMapping } from "../../agent/transform/mapping-file.ts";
import { mappingFileSchema } from "../../agent/transform/mapping-schema.ts";
import { reservedFields } from "../../agent/transform/mapping.ts";
import type { EntityMapping, Mapping } from "../../agent/transform/mapping.ts";
import { mappingFingerprint } from "../../agent/transform/transform.ts";

function parse(file: unknown, hasFieldHashKey = true): Mapping {
  return parseMapping(JSON.stringify(file), { hasFieldHashKey });
}

function faultsOf(file: unknown, hasFieldHashKey = true): readonly MappingFault[] {
  try {
    parse(file, hasFieldHashKey);
  } catch (error) {
    if (error instanceof MappingError) return error.faults;
    throw error;
  }
  throw new assert.AssertionError({ message: "no fault was found" });
}

function entityOf(mapping: Mapping, name: string): EntityMapping {
  const entity = mapping.entities.find((candidate) => candidate.entity === name);
  assert.ok(entity !== undefined, `no entity ${name}`);
  return entity;
}

test("the schema by which the agent reads a file, unproven, is one of its draft", () => {
  const ajv = new Ajv2020({ strict: false });
  assert.equal(ajv.validateSchema(mappingFileSchema), true, ajv.errorsText());
});

test("an empty file is the default mapping", () => {
  assert.deepEqual(parse({}), defaultMapping);
});

test("extends, renames, treats and leaves out columns of the default mapping", () => {
  const mapping = parse({
    entities: {
      order: {
        fields: {
          customer_note: { field: "note", truncate: 100, personal: true },
          remote_ip: { hash: true },
          status: "order_status",
          customer_email: { mask: true },
          weight: null,
        },
        deletes: "keys",
        oversize: "omit",
        topic: "{shop}.orders",
      },
      coupon: null,
    },
    topics: { control: "{shop}.control" },
  });
  const order = entityOf(mapping, "order");
  const byColumn = new Map(order.fields.map((field) => [field.column, field]));
  assert.deepEqual(byColumn.get("customer_note"), {
    column: "customer_note",
    field: "note",
    type: "unknown",
    ref: null,
    personal: true,
    treatment: { kind: "truncate", characters: 100 },
  });
  assert.deepEqual(byColumn.get("remote_ip")?.treatment, { kind: "hash" });
  assert.equal(byColumn.get("status")?.field, "order_status");
  assert.equal(byColumn.get("customer_email")?.personal, true, "what is not said stays");
  assert.equal(byColumn.has("weight"), false);
  assert.equal(byColumn.get("customer_id")?.ref, "customer");
  assert.deepEqual([order.deletes, order.oversize, order.topic], ["keys", "omit", "{shop}.orders"]);
  assert.equal(
    mapping.entities.some(({ entity }) => entity === "coupon"),
    false,
  );
  assert.equal(mapping.controlTopic, "{shop}.control");
});

test("replace sends only the named fields, and the parts of a composite key in any case", () => {
  const mapping = parse({ entities: { stock: { replace: true, fields: { qty: "quantity" } } } });
  assert.deepEqual(
    entityOf(mapping, "stock").fields.map(({ field }) => field),
    ["quantity", "product_id", "stock_id"],
  );
});

test("a table beyond the default mapping has its name as entity, and may be referred to", () => {
  const mapping = parse({
    entities: {
      gift_card: { keys: ["card_id"], fields: { order_id: { ref: "order" }, code: "code" } },
      order: { fields: { gift_card_id: { ref: "gift_card" } } },
    },
  });
  const card = entityOf(mapping, "gift_card");
  assert.deepEqual(
    [card.table, card.topic, card.keys],
    ["gift_card", "migration.gift_card.changed", ["card_id"]],
  );
});

test("refuses every reserved name and prefix, and shows the fix", () => {
  for (const name of [...reservedFields, "magento_note"]) {
    const [fault] = faultsOf({ entities: { order: { fields: { customer_note: name } } } });
    assert.equal(fault?.path, "$.entities.order.fields.customer_note");
    assert.equal(fault?.value, JSON.stringify(name));
    assert.match(fault?.mend ?? "", name === "id" ? /remove it/ : /name it "order_/);
  }
});

test("names every fault at once, by path, with value and mend", () => {
  const faults = faultsOf(
    {
      entity: {},
      entities: {
        order: {
          fields: { customer_note: { feild: "note" }, "odd column": "no good", status: 7 },
          deletes: "never",
        },
        customer: {
          keys: ["email"],
          fields: {
            email: { mask: true, truncate: 3 },
            dob: { hash: true },
            default_billing: { mask: true },
            nosuch: null,
            created_in: "group_id",
            website_id: { ref: "website" },
            store_id: { ref: "stock" },
          },
        },
        "source-item": { fields: { sku: { mask: true }, source_code: null } },
        sales_order: { keys: ["entity_id"], fields: { state: "state" } },
        customer_entity_varchar: { keys: ["value_id"], fields: { value: "value" } },
        my_table: { fields: {} },
        category: { topic: "migration.control" },
        nothing: null,
      },
    },
    false,
  );
  const paths = new Set(faults.map((fault) => fault.path));
  for (const path of [
    "$.entity",
    "$.entities.order.fields.customer_note.feild",
    '$.entities.order.fields["odd column"]',
    "$.entities.order.fields.status",
    "$.entities.order.deletes",
    "$.entities.customer.keys",
    "$.entities.customer.fields.email",
    "$.entities.customer.fields.dob.hash",
    "$.entities.customer.fields.default_billing",
    "$.entities.customer.fields.nosuch",
    "$.entities.customer.fields.created_in",
    "$.entities.customer.fields.website_id.ref",
    "$.entities.customer.fields.store_id.ref",
    "$.entities.source-item.fields.sku",
    "$.entities.source-item.fields.source_code",
    "$.entities.sales_order",
    "$.entities.customer_entity_varchar",
    "$.entities.my_table.keys",
    "$.entities.my_table.fields",
    "$.entities.category.topic",
    "$.entities.nothing",
  ]) {
    assert.ok(paths.has(path), `${path} is not among\n${[...paths].join("\n")}`);
  }
  for (const fault of faults)
    assert.ok(fault.value !== "" && fault.rule !== "" && fault.mend !== "", fault.path);
});

test("a file that is not JSON is one fault at the root", () => {
  assert.throws(() => parseMapping("{", { hasFieldHashKey: true }), { code: "MAPPING_INVALID" });
});

test("the fingerprint changes with what is sent, and with nothing else", () => {
  const print = (file: unknown, key: string | null = null): string =>
    mappingFingerprint(entityOf(parse(file), "order"), key);
  const plain = print({});
  assert.equal(print({ entities: { order: { topic: "other", oversize: "omit" } } }), plain);
  assert.equal(print({}, "key"), plain);
  assert.notEqual(print({ entities: { order: { fields: { weight: null } } } }), plain);
  const hashed = { entities: { order: { fields: { customer_email: { hash: true } } } } };
  assert.notEqual(print(hashed, "key"), print(hashed, "other key"));
});
