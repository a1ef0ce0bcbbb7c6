import assert from "node:assert/strict";
import { test } from "node:test";
import { EntityIdentity, UuidNamespace, entityKeyOf, magentoIdOf } from "../../agent/transform/identity.ts";

const dns = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

test("makes the UUIDv5 of RFC 9562, appendix A.4, and of Python's uuid module", () => {
  const namespace = new UuidNamespace(dns);
  assert.equal(namespace.uuidOf("www.example.com"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
  assert.equal(namespace.uuidOf("python.org"), "886313e1-3b8a-5372-9b90-0c9aee199e5d");
  assert.equal(namespace.uuidOf("demo/order:1001"), "e5a22fcb-8022-5783-91cf-f3b82565c1b9");
  assert.equal(namespace.uuidOf("Zoë 🛒".repeat(200)), "02045501-a98e-55e4-aeac-f7a9ce66fd5f");
});

test("refuses a namespace that is no UUID", () => {
  assert.throws(() => new UuidNamespace("magento"), { code: "CONFIG_INVALID" });
});

test("gives the same UUID with a full cache as with an empty one", () => {
  const namespace = new UuidNamespace(dns);
  const identity = new EntityIdentity("order", "demo", namespace, null);
  for (const id of [0, 1, 8192, 8193, 16_384, 1, 0, 4_294_967_295, 4_294_967_295 - 8192]) {
    assert.equal(identity.uuidOf(id), namespace.uuidOf(`demo/order:${id}`));
  }
  for (let id = 0; id < 20_000; id += 1) identity.uuidOf(`sku-${id}`);
  assert.equal(identity.uuidOf("sku-5"), namespace.uuidOf("demo/order:sku-5"));
});

test("an imported identity wins, also one that came after the first question", () => {
  const imported = new Map<string, string>();
  const identity = new EntityIdentity(
    "order",
    "demo",
    new UuidNamespace(dns),
    (entity, id) => imported.get(`${entity}:${id}`) ?? null,
  );
  assert.equal(identity.uuidOf(1001), "e5a22fcb-8022-5783-91cf-f3b82565c1b9");
  imported.set("order:1001", "00000000-0000-4000-8000-000000000001");
  assert.equal(identity.uuidOf(1001), "00000000-0000-4000-8000-000000000001");
});

test("encodes the parts of a composite key so that no two keys share a text", () => {
  const key = { table: "t", columns: ["a", "b"], indices: [0, 1] };
  assert.equal(magentoIdOf(key, [42, 1]), "42:1");
  assert.equal(magentoIdOf(key, ["a:b", "50%"]), "a%3Ab:50%25");
  assert.notEqual(magentoIdOf(key, ["a:b", "c"]), magentoIdOf(key, ["a", "b:c"]));
  assert.notEqual(entityKeyOf(key, ["a|1:b", "c"]), entityKeyOf(key, ["a", "b|1:c"]));
});

test("a single key keeps its type: number stays number, text stays text", () => {
  const key = { table: "t", columns: ["a"], indices: [0] };
  assert.equal(magentoIdOf(key, [7]), 7);
  assert.equal(magentoIdOf(key, ["18446744073709551615"]), "18446744073709551615");
});

test("stops at a row without its key instead of leaving it out", () => {
  const key = { table: "t", columns: ["a"], indices: [0] };
  assert.throws(() => magentoIdOf(key, [null]), { code: "SOURCE_UNREADABLE" });
});
