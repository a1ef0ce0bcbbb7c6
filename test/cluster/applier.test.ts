import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Applier, type PersonalFields } from "../../cluster/consumer/applier.ts";
import { MalformedEventError, deliveredEvent } from "../../cluster/consumer/event.ts";
import {
  entityCloudEvent,
  entityId,
  randomFrom,
  rangeCloudEvent,
  resetCloudEvent,
  shuffled,
  type CloudEvent,
} from "./events.ts";

const consumer = join(import.meta.dirname, "..", "..", "cluster", "consumer");
const personal: PersonalFields = JSON.parse(readFileSync(join(consumer, "personal-fields.json"), "utf8"));
const entities = ["order", "customer", "unlisted"];

function randomFields(random: () => number): Record<string, unknown> {
  return {
    total_amount: (random() * 100).toFixed(4),
    email: `somebody${Math.floor(random() * 1e6)}@example.com`,
    customer_email: random() < 0.2 ? null : "somebody@example.com",
    group_id: Math.floor(random() * 9),
  };
}

/** A history as the source has it: `n` grows, keys come, change, go, come back; tables are emptied. */
function randomHistory(random: () => number, length: number): CloudEvent[] {
  const history: CloudEvent[] = [];
  for (let n = 1; n <= length; n += 1) {
    const entity = entities[Math.floor(random() * entities.length)] ?? "order";
    if (random() < 0.02) {
      history.push(resetCloudEvent(entity, n));
      continue;
    }
    if (random() < 0.05) {
      history.push(rangeCloudEvent(entity, n, randomScope(random)));
      continue;
    }
    const op = (["c", "u", "u", "d", "r"] as const)[Math.floor(random() * 5)] ?? "u";
    const key = 1 + Math.floor(random() * 12);
    history.push(entityCloudEvent({ entity, op, key, n, fields: randomFields(random) }));
  }
  return history;
}

function randomScope(random: () => number): Parameters<typeof rangeCloudEvent>[2] {
  const low = 1 + Math.floor(random() * 12);
  const kind = random();
  if (kind < 0.2) return { from: null, to: null, keys: null };
  if (kind < 0.6) return { from: String(low), to: String(low + Math.floor(random() * 5)), keys: null };
  return { from: null, to: null, keys: [low, 1 + Math.floor(random() * 12)] };
}

function stateAfter(events: readonly CloudEvent[], batch = 1): unknown {
  const applier = new Applier(":memory:", personal);
  for (let at = 0; at < events.length; at += batch) {
    applier.inTransaction(() => {
      for (const event of events.slice(at, at + batch)) applier.receive(deliveredEvent(event));
    });
  }
  const state = entities.map((entity) => [...applier.all(entity)]);
  applier.close();
  return state;
}

test("the same events give the same state in any order, doubled, and in any batches", () => {
  for (let round = 0; round < 60; round += 1) {
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = randomFrom(seed);
    const history = randomHistory(random, 300);
    const doubled = history.filter(() => random() < 0.3);
    const expected = stateAfter(history);
    const got = stateAfter(shuffled([...history, ...doubled], random), 1 + Math.floor(random() * 50));
    assert.deepEqual(got, expected, `seed ${seed}`);
  }
});

function isFloor({ type }: CloudEvent): boolean {
  return type === "magento.reset" || type === "magento.range";
}

/** In the words of the contract, and not of the consumer's code. */
function concerns({ type, data }: CloudEvent, key: number, id: string): boolean {
  if (type === "magento.reset") return true;
  if (data["keys"] !== null) return JSON.stringify(data["keys"]).includes(id);
  return data["from"] === null || (key >= Number(data["from"]) && key <= Number(data["to"]));
}

test("the state is that of each entity's newest event, and nothing at or below a reset or a range lives", () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  const random = randomFrom(seed);
  const history = randomHistory(random, 2_000);
  const applier = new Applier(":memory:", personal);
  for (const event of shuffled(history, random)) applier.receive(deliveredEvent(event));
  for (const entity of entities) {
    const floors = history.filter((event) => isFloor(event) && event.data["entity"] === entity);
    const newest = new Map<string, CloudEvent>();
    for (const event of history) {
      if (!isFloor(event) && event.data["entity"] === entity) {
        newest.set(String(event.data["id"]), event);
      }
    }
    assert.equal([...applier.all(entity)].length, newest.size, `seed ${seed}`);
    for (const [id, event] of newest) {
      const stored = applier.get(entity, id);
      assert.ok(stored, `seed ${seed}`);
      const sequence = String(event.sequence);
      assert.equal(stored.sequence, sequence, `seed ${seed}`);
      const key = Number(event.data["magento_id"]);
      const isFloored = floors.some(
        (floor) => sequence <= String(floor.sequence) && concerns(floor, key, id),
      );
      const gone = event.data["op"] === "d" || isFloored;
      assert.equal(stored.deleted, gone, `seed ${seed}`);
      assert.strictEqual(stored.magentoId, event.data["magento_id"]);
      if (!gone) assert.equal(stored.fields["total_amount"], event.data["total_amount"], `seed ${seed}`);
    }
  }
  applier.close();
});

test("an older event does not bring a deleted entity back, a later one does", () => {
  const applier = new Applier(":memory:", personal);
  const at = (n: number, op: "c" | "u" | "d"): CloudEvent =>
    entityCloudEvent({ entity: "order", op, key: 7, n, fields: { status: `s${n}` } });
  const id = String(at(1, "c").data["id"]);
  applier.receive(deliveredEvent(at(5, "d")));
  assert.equal(applier.receive(deliveredEvent(at(4, "u"))), "stale");
  assert.equal(applier.get("order", id)?.deleted, true);
  assert.equal(applier.receive(deliveredEvent(at(6, "c"))), "applied");
  assert.deepEqual(applier.get("order", id)?.fields, { status: "s6" });
  assert.equal(applier.receive(deliveredEvent(at(6, "c"))), "stale");
  applier.close();
});

test("a delete empties personal fields, keeps the others, and empties all of an undescribed entity", () => {
  const applier = new Applier(":memory:", personal);
  const fields = { email: "a@example.com", group_id: 3 };
  for (const entity of ["customer", "unlisted"]) {
    applier.receive(deliveredEvent(entityCloudEvent({ entity, op: "d", key: 1, n: 1, fields })));
  }
  assert.deepEqual([...applier.all("customer")][0]?.fields, { email: null, group_id: 3 });
  assert.deepEqual([...applier.all("unlisted")][0]?.fields, {});
  applier.close();
});

test("a reset empties personal fields of what it deletes", () => {
  const applier = new Applier(":memory:", personal);
  const fields = { email: "a@example.com", group_id: 3 };
  applier.receive(deliveredEvent(entityCloudEvent({ entity: "customer", op: "c", key: 1, n: 1, fields })));
  applier.receive(deliveredEvent(resetCloudEvent("customer", 2)));
  const [stored] = [...applier.all("customer")];
  assert.deepEqual([stored?.deleted, stored?.fields], [true, { email: null, group_id: 3 }]);
  applier.close();
});

test("keeps nothing of a transaction that failed, the reset's floor included", () => {
  const applier = new Applier(":memory:", personal);
  assert.throws(() =>
    applier.inTransaction(() => {
      applier.receive(deliveredEvent(resetCloudEvent("order", 9)));
      throw new Error("the disk is full");
    }),
  );
  applier.receive(
    deliveredEvent(entityCloudEvent({ entity: "order", op: "c", key: 1, n: 5, fields: { status: "new" } })),
  );
  assert.equal([...applier.all("order")][0]?.deleted, false);
  assert.equal(applier.statistics().controlEvents, 0);
  applier.close();
});

test("records control events and dead letters once, and of heartbeats the newest", () => {
  const applier = new Applier(":memory:", personal);
  const heartbeat = (second: number): CloudEvent => ({
    id: `h${second}`,
    type: "magento.heartbeat",
    time: `2026-01-01T00:00:0${second}.000Z`,
    sequence: null,
    data: { instance: "one", backlog_events: second },
  });
  const letter: CloudEvent = {
    id: "letter",
    type: "magento.dead-letter",
    time: "2026-01-01T00:00:00.000Z",
    sequence: null,
    data: { code: "EVENT_TOO_LARGE", entity: "order", id: "x" },
  };
  for (const event of [
    heartbeat(2),
    heartbeat(3),
    heartbeat(1),
    letter,
    letter,
    resetCloudEvent("order", 1),
  ]) {
    applier.receive(deliveredEvent(event));
  }
  const { deadLetters, controlEvents, heartbeats } = applier.statistics();
  assert.deepEqual([deadLetters, controlEvents], [1, 1]);
  assert.deepEqual(
    heartbeats.map((one) => one.data),
    [{ instance: "one", backlog_events: 3 }],
  );
  applier.close();
});

test("refuses what is no event before anything is written", () => {
  const applier = new Applier(":memory:", personal);
  const good = entityCloudEvent({ entity: "order", op: "c", key: 1, n: 1, fields: {} });
  for (const name of ["op", "entity", "id", "magento_id", "sequence"]) {
    const data: Record<string, unknown> = { ...good.data };
    delete data[name];
    assert.throws(() => applier.receive(deliveredEvent({ ...good, data })), MalformedEventError, name);
  }
  for (const body of [null, [], "text", { ...good, data: "text" }, { ...good, id: 5 }]) {
    assert.throws(() => deliveredEvent(body), MalformedEventError);
  }
  assert.deepEqual(applier.statistics().entities, {});
  applier.close();
});

test("what a range does not name stays, and what it names and is newer stays too", () => {
  const applier = new Applier(":memory:", personal);
  const take = (event: CloudEvent): unknown => applier.receive(deliveredEvent(event));
  for (const [key, n] of [
    [1, 10],
    [2, 11],
    [3, 30],
    [9, 12],
  ] as const) {
    take(entityCloudEvent({ entity: "order", op: "c", key, n, fields: {} }));
  }
  take(rangeCloudEvent("order", 20, { from: "1", to: "5", keys: null }));
  take(rangeCloudEvent("order", 5, { from: null, to: null, keys: [9] }));
  const live = [1, 2, 3, 9].filter((key) => applier.get("order", entityId("order", key))?.deleted === false);
  assert.deepEqual(live, [3, 9]);
  take(entityCloudEvent({ entity: "order", op: "u", key: 2, n: 15, fields: {} }));
  assert.equal(applier.get("order", entityId("order", 2))?.deleted, true, "older than the floor");
  take(entityCloudEvent({ entity: "order", op: "r", key: 2, n: 21, fields: {} }));
  assert.equal(applier.get("order", entityId("order", 2))?.deleted, false);
  applier.close();
});
