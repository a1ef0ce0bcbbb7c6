import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { IndexChange } from "../agent/ports.ts";
import { defaultMapping } from "../agent/transform/default-mapping.ts";
import { readChildKey } from "../agent/transform/index-entry.ts";
import { IndexShop, shopTables } from "./index-shop.ts";
import { Random, runSeed } from "./oracle/random.ts";
import { Changes, context, makeTransform, partOf } from "./transform/parts.ts";
import { sampleOf } from "./transform/rows.ts";

const relations = shopTables.map(({ relation }) => relation);

/** Everything that may happen to a shop and its agent, in any order. */
async function live(shop: IndexShop, random: Random, steps: number, hazards: boolean): Promise<void> {
  for (let step = 0; step < steps; step += 1) {
    const what = random.weighted<() => void | Promise<void>>([
      [30, () => shop.write()],
      [20, () => shop.capture(random.int(1, 4))],
      [20, () => shop.chunk()],
      [3, () => shop.begin(true)],
      [3, () => shop.begin(false)],
      [2, () => shop.sweep()],
      ...(hazards
        ? ([
            [1, () => shop.alter("reset")],
            [1, () => shop.alter("replaced")],
            [1, () => shop.alter("altered")],
            [1, () => wentBack(shop, "rewind")],
            [1, () => wentBack(shop, "replay")],
            [1, () => lost(shop, random)],
          ] as const)
        : []),
    ]);
    await what();
    if (shop.isAtFront) await assertTrue(shop);
  }
}

async function wentBack(shop: IndexShop, how: "rewind" | "replay"): Promise<void> {
  await shop.goBack(how);
  await shop.begin(false);
}

async function lost(shop: IndexShop, random: Random): Promise<void> {
  await shop.lose(random.chance(0.5));
  await shop.begin(false);
}

/** What calls itself complete lacks no child of the place that is captured. */
async function assertTrue(shop: IndexShop): Promise<void> {
  const complete = shop.upkeep.facts().filter(({ completeSince }) => completeSince !== null);
  for (const { relation } of shopTables.filter(({ table, column }) =>
    complete.some((one) => one.relation === `${table}.${column}`),
  )) {
    assert.deepEqual(await shop.entries(relation, true), shop.expected(relation), `relation ${relation}`);
  }
}

describe("the index of children", () => {
  it("ends with exactly what the tables have, whatever was restarted, rewound, altered or lost", async () => {
    const random = new Random(runSeed());
    for (let round = 0; round < 100; round += 1) {
      const shop = new IndexShop(random.fork(round));
      await shop.begin(true);
      await live(shop, random, random.int(5, 120), round % 4 > 0);
      await shop.begin(true);
      await shop.finish();
      for (const relation of relations) {
        const expected = shop.expected(relation);
        assert.deepEqual(
          await shop.entries(relation, true),
          expected,
          `round ${round}, relation ${relation}`,
        );
      }
      const incomplete = shop.upkeep.facts().filter(({ completeSince }) => completeSince === null);
      assert.deepEqual(incomplete, [], "all of it says that it is complete");
      await shop.sweep();
      for (const relation of relations)
        assert.deepEqual(
          await shop.entries(relation, false),
          shop.expected(relation),
          "nothing void lies there",
        );
    }
  });

  it("holds nothing of a truncated table from that moment on, and says what it scans again", async () => {
    const random = new Random(runSeed());
    const shop = new IndexShop(random);
    await shop.begin(true);
    for (let count = 0; count < 40; count += 1) shop.write();
    await shop.finish();
    shop.logged.length = 0;
    for (let count = 0; count < 10; count += 1) shop.alter("reset");
    shop.capture(10);
    for (const { relation } of shopTables) {
      const expected = shop.expected(relation);
      if (expected.length === 0) assert.deepEqual(await shop.entries(relation, true), []);
    }
    assert.ok(shopTables.some(({ relation }) => shop.expected(relation).length === 0));
    assert.match(shop.logged.join(), /the index is scanned again/);
    assert.notDeepEqual(
      shop.upkeep.facts().filter(({ completeSince }) => completeSince === null),
      [],
    );
    await shop.begin(false);
    await shop.finish();
    assert.deepEqual(
      shop.upkeep.facts().filter(({ completeSince }) => completeSince === null),
      [],
    );
  });

  it("is scanned again where its state or an entry is damaged, or the database was repaired; nothing stops", async () => {
    const random = new Random(runSeed());
    const incomplete = (shop: IndexShop): string[] =>
      shop.upkeep
        .facts()
        .filter(({ completeSince }) => completeSince === null)
        .map(({ relation }) => relation);
    const shop = new IndexShop(random);
    await shop.begin(true);
    for (let count = 0; count < 40; count += 1) shop.write();
    await shop.finish();
    assert.deepEqual(incomplete(shop), []);

    shop.damagedState = 3;
    await shop.begin(true);
    assert.deepEqual(incomplete(shop), ["sales_order_item.order_id"]);
    assert.deepEqual(
      shop.jobs.map(({ table, purpose }) => `${table} ${purpose}`),
      ["sales_order_item index"],
    );
    shop.damagedState = null;
    await shop.finish();

    shop.alter("reset");
    await shop.finish();
    shop.damagedEntries = 1;
    await shop.sweep();
    await shop.begin(false);
    assert.equal(incomplete(shop).length, 1, "the relation that was swept");
    await shop.finish();

    shop.healedAtOpen = "repaired";
    await shop.begin(true);
    assert.equal(incomplete(shop).length, 7);
    await shop.finish();
    assert.deepEqual(incomplete(shop), []);
    for (const { relation } of shopTables)
      assert.deepEqual(await shop.entries(relation, true), shop.expected(relation));
  });

  it("costs nothing where a change touches neither key nor parent", async () => {
    const transform = makeTransform();
    const { row, update } = sampleOf("order");
    const changes = new Changes(transform).update("sales_order", row, { ...row, ...update }).list;
    const made: IndexChange[] = [];
    transform.index.addEntries(partOf(changes), () => 1, made);
    assert.deepEqual(made, []);
  });

  it("follows a parent that the mapping does not send, and nothing of it reaches an event", () => {
    const entities = defaultMapping.entities.map((entity) => ({
      ...entity,
      fields: entity.fields.filter(({ column }) => column !== "customer_id"),
    }));
    const transform = makeTransform({ mapping: { ...defaultMapping, entities } });
    const orders = transform.tables.find(({ table }) => table === "sales_order");
    assert.equal(orders?.columns.at(-1), "customer_id");
    const { row } = sampleOf("order");
    const moved = { ...row, customer_id: 31_337 };
    const inserted = partOf(new Changes(transform).insert("sales_order", moved).list);
    const [event] = transform.encode(inserted, context);
    assert.ok(event);
    assert.doesNotMatch(event.payload.toString(), /31337|customer_id/);
    const made: IndexChange[] = [];
    transform.index.addEntries(inserted, () => 1, made);
    assert.deepEqual(
      made.map(({ key }) => readChildKey(key)),
      [{ relation: 2, parent: 31_337, child: [1001] }],
    );
    const updated = partOf(new Changes(transform).update("sales_order", row, moved).list);
    assert.deepEqual(transform.encode(updated, context), [], "the mapping knows nothing of it");
    transform.index.addEntries(updated, () => 1, made);
    assert.deepEqual(
      made.slice(1).map(({ key, value }) => [readChildKey(key)?.parent, value === null]),
      [
        [7, true],
        [31_337, false],
      ],
    );
  });
});
