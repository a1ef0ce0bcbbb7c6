import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseMapping } from "../../agent/transform/mapping-file.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

test("the example in docs/mapping.md is a valid mapping that does what the page says", () => {
  const page = readFileSync(join(root, "docs", "mapping.md"), "utf8");
  const example = /```json\n([\s\S]+?)```/.exec(page)?.[1];
  assert.ok(example !== undefined, "docs/mapping.md has an example");
  const mapping = parseMapping(example, { hasFieldHashKey: true });
  const byName = new Map(mapping.entities.map((entity) => [entity.entity, entity]));
  assert.equal(byName.has("coupon"), false);
  assert.deepEqual(byName.get("newsletter_subscriber")?.keys, ["subscriber_id"]);
  const order = byName.get("order");
  assert.equal(order?.deletes, "keys");
  assert.equal(order?.fields.find((field) => field.column === "remote_ip")?.treatment.kind, "hash");
  assert.equal(
    order?.fields.some((field) => field.column === "weight"),
    false,
  );
});
