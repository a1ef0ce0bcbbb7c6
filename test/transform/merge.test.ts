import assert from "node:assert/strict";
import { test } from "node:test";
import type { OutboundEvent, RowChange } from "../../agent/change.ts";
import type { Transform } from "../../agent/transform/transform.ts";
import { Changes, context, makeTransform, partOf, readEvent } from "./parts.ts";
import type { ReadEvent, RowValues } from "./parts.ts";
import { sampleOf } from "./rows.ts";

/** mulberry32: small, seeded, good enough to find orders of events. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * below);
  };
}

/** The consumer of the contract: one line decides. */
class Consumer {
  readonly rows = new Map<string, { sequence: string; fields: string | null }>();

  apply(event: ReadEvent): void {
    const key = event.subject;
    if (event.sequence <= (this.rows.get(key)?.sequence ?? "")) return;
    const { op, changed, before, origin, event_id, sequence, synced_at, ...fields } = event.data;
    assert.ok(
      origin !== undefined && event_id === event.id && sequence === event.sequence && synced_at !== "",
    );
    assert.equal(changed === undefined, before === undefined);
    this.rows.set(key, { sequence: event.sequence, fields: op === "d" ? null : JSON.stringify(fields) });
  }

  state(): Record<string, string> {
    const alive = [...this.rows].flatMap(([key, { fields }]) =>
      fields === null ? [] : [[key, fields] as const],
    );
    return Object.fromEntries(alive.sort(([left], [right]) => (left < right ? -1 : 1)));
  }
}

interface Source {
  readonly rows: Map<string, { table: string; row: RowValues }>;
}

const tables = [
  { table: "sales_order", keys: ["entity_id"], entity: "order" },
  { table: "cataloginventory_stock_item", keys: ["product_id", "stock_id"], entity: "stock" },
  { table: "inventory_source_item", keys: ["source_code", "sku"], entity: "source-item" },
] as const;

/** Random changes over very few keys, so that chains of every shape come up. */
function randomTransaction(
  transform: Transform,
  source: Source,
  random: (below: number) => number,
): RowChange[] {
  const changes = new Changes(transform);
  const count = 1 + random(8);
  for (let done = 0; done < count; done += 1) {
    const { table, keys, entity } = tables[random(tables.length)] ?? tables[0];
    const key = (): RowValues =>
      Object.fromEntries(
        keys.map((name) => [
          name,
          name === "sku" || name === "source_code" ? `k${random(2)}:%` : 1 + random(2),
        ]),
      );
    const name = (row: RowValues): string =>
      `${table}|${keys.map((column) => JSON.stringify(row[column])).join("|")}`;
    const sample = sampleOf(entity).row;
    const plain = Object.keys(sample).find(
      (column) => !(keys as readonly string[]).includes(column) && typeof sample[column] === "string",
    );
    const values: RowValues = { ...sample, ...key(), [plain ?? ""]: `v${random(3)}` };
    const known = source.rows.get(name(values));
    if (known === undefined) {
      changes.insert(table, values);
      source.rows.set(name(values), { table, row: values });
    } else if (random(3) === 0) {
      changes.delete(table, known.row);
      source.rows.delete(name(values));
    } else {
      const moved: RowValues = random(4) === 0 ? { ...values, ...key() } : values;
      if (name(moved) !== name(values) && source.rows.has(name(moved))) continue;
      changes.update(table, known.row, moved);
      source.rows.delete(name(values));
      source.rows.set(name(moved), { table, row: moved });
    }
  }
  return changes.list;
}

function stateOfSource(transform: Transform, source: Source): Record<string, string> {
  const consumer = new Consumer();
  for (const { table, row } of source.rows.values()) {
    const [event] = transform.encode(partOf(new Changes(transform).insert(table, row).list), context);
    assert.ok(event !== undefined);
    consumer.apply(readEvent(event));
  }
  return consumer.state();
}

function shuffled<Item>(items: readonly Item[], random: (below: number) => number): Item[] {
  const drawn = items.map((item) => ({ item, place: random(2 ** 30) }));
  return drawn.sort((left, right) => left.place - right.place).map(({ item }) => item);
}

const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);

test(`merged events leave a consumer with the source's state, in any order and doubled (SEED=${seed})`, () => {
  const random = randomOf(seed);
  const transform = makeTransform();
  const source: Source = { rows: new Map() };
  const merged: OutboundEvent[] = [];
  const single: OutboundEvent[] = [];
  for (let number = 1; number <= 600; number += 1) {
    const list = randomTransaction(transform, source, random);
    const end = { file: "mariadb-bin.000009", position: number * 1000 };
    const overrides = { end, gtid: `0-1-${number}` };
    const events = transform.encode(partOf(list, overrides), context);
    assert.deepEqual(
      transform.encode(partOf(list, overrides), context),
      events,
      "the same part gives the same events",
    );
    assert.equal(new Set(events.map((event) => event.entityKey)).size <= events.length, true);
    merged.push(...events);
    for (const change of list) single.push(...transform.encode(partOf([change], overrides), context));
  }
  const expected = stateOfSource(transform, source);
  const deliveries = [
    merged,
    single,
    shuffled([...merged, ...merged], random),
    shuffled([...merged, ...single], random),
  ];
  for (const delivery of deliveries) {
    const consumer = new Consumer();
    for (const event of delivery) consumer.apply(readEvent(event));
    assert.deepEqual(consumer.state(), expected);
  }
  const sequences = merged.map((event) => readEvent(event).sequence);
  for (const [index, sequence] of sequences.entries())
    assert.ok(sequence > (sequences[index - 1] ?? ""), sequence);
  assert.equal(new Set(merged.map(({ id }) => id)).size, merged.length, "no two changes share an id");
});

const { row } = sampleOf("order");
const { row: stock } = sampleOf("stock");
const orders = "sales_order";
const stocks = "cataloginventory_stock_item";

function eventsOf(make: (changes: Changes) => Changes): ReadEvent[] {
  const transform = makeTransform();
  return transform.encode(partOf(make(new Changes(transform)).list), context).map(readEvent);
}

function shapeOf(events: readonly ReadEvent[]): string[] {
  return events.map((event) => `${String(event.data["op"])} ${event.sequence.slice(-12)}`);
}

test("an insert and an update are an insert of the final row", () => {
  const events = eventsOf((changes) =>
    changes.insert(orders, row).update(orders, row, { ...row, state: "b" }),
  );
  assert.deepEqual(shapeOf(events), ["c 0000000001.1"]);
  assert.equal(events[0]?.data["state"], "b");
});

test("two updates are one, with the earliest old values", () => {
  const middle = { ...row, state: "b" };
  const events = eventsOf((changes) =>
    changes.update(orders, row, middle).update(orders, middle, { ...middle, state: "c" }),
  );
  assert.deepEqual(shapeOf(events), ["u 0000000001.1"]);
  assert.deepEqual(events[0]?.data["before"], { state: "new" });
});

test("an update and its way back give nothing, and are counted", () => {
  const transform = makeTransform();
  const there = { ...row, state: "b" };
  const { list } = new Changes(transform).update(orders, row, there).update(orders, there, row);
  assert.deepEqual(transform.encode(partOf(list), context), []);
  assert.deepEqual([transform.takeSuppressed(), transform.takeSuppressed()], [1, 0]);
});

test("an update and a delete are a delete with the row as it was before", () => {
  const middle = { ...row, state: "b" };
  const events = eventsOf((changes) => changes.update(orders, row, middle).delete(orders, middle));
  assert.deepEqual(shapeOf(events), ["d 0000000001.1"]);
  assert.equal(events[0]?.data["state"], "new");
});

test("an insert and a delete vanish", () => {
  assert.deepEqual(
    eventsOf((changes) => changes.insert(orders, row).delete(orders, row)),
    [],
  );
});

test("a delete and a new insert stay two where foreign keys hang on the table, else they are an update", () => {
  const two = eventsOf((changes) => changes.delete(orders, row).insert(orders, { ...row, state: "b" }));
  assert.deepEqual(shapeOf(two), ["d 0000000000.0", "c 0000000001.1"]);
  const one = eventsOf((changes) =>
    changes.delete(stocks, stock).insert(stocks, { ...stock, qty: "1.0000" }),
  );
  assert.deepEqual(shapeOf(one), ["u 0000000001.1"]);
  assert.deepEqual(one[0]?.data["changed"], ["qty"]);
  assert.deepEqual(
    eventsOf((changes) => changes.delete(stocks, stock).insert(stocks, stock)),
    [],
  );
});

test("a change of key is a delete of the old entity and an insert of the new one", () => {
  const events = eventsOf((changes) => changes.update(stocks, stock, { ...stock, stock_id: 2 }));
  assert.deepEqual(shapeOf(events), ["d 0000000000.0", "c 0000000000.1"]);
  assert.deepEqual(
    events.map((event) => event.data["magento_id"]),
    ["42:1", "42:2"],
  );
  assert.notEqual(events[0]?.id, events[1]?.id);
});
