import assert from "node:assert/strict";
import test from "node:test";
import { checkHistory, parseDelivered, shuffledWithDoubles, type DeliveredEvent } from "./history.ts";
import { Random } from "./random.ts";
import { MemoryReplica } from "./replica.ts";
import { uuidV5 } from "./uuid.ts";

function event(id: string, sequence: string, extra: Record<string, unknown> = {}): DeliveredEvent {
  const topic = "migration.customer.changed";
  const data = {
    op: "u",
    entity: "customer",
    id: "u1",
    magento_id: 1,
    event_id: id,
    sequence,
    synced_at: "now",
    ...extra,
  };
  const cloud = { specversion: "1.0", id, subject: data.id, sequence, topic, data };
  return parseDelivered(topic, `${sequence}-0`, JSON.stringify(cloud));
}

test("UUIDv5 is the one of RFC 9562's own example", () => {
  assert.equal(
    uuidV5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "www.example.com"),
    "2ed6657d-e927-568b-95e1-2665a8aea6a2",
  );
});

test("a seeded stream of numbers repeats, and a fork depends on seed and label alone", () => {
  const [one, two] = [new Random(7), new Random(7)];
  two.fork(3);
  assert.deepEqual([one.next(), one.next()], [two.next(), two.next()]);
  assert.equal(one.fork(1).next(), two.fork(1).next());
  assert.notEqual(one.fork(1).next(), one.fork(2).next());
});

test("a history with repeats that differ in synced_at only is sound", () => {
  const report = checkHistory([event("a", "1"), event("b", "2"), event("a", "1", { synced_at: "later" })]);
  assert.deepEqual(report, { events: 3, distinct: 2, problems: [] });
});

test("two different changes with one id are reported", () => {
  const { problems } = checkHistory([event("a", "1"), event("a", "1", { email: "other" })]);
  assert.match(problems.join(), /two different changes share the id a/);
});

test("a first delivery against the order of the sequences is reported", () => {
  assert.match(checkHistory([event("b", "2"), event("a", "1")]).problems.join(), /first came after/);
});

test("two events of one entity with one sequence are reported", () => {
  assert.match(checkHistory([event("a", "1"), event("b", "1")]).problems.join(), /share one sequence/);
});

test("the replica ends the same whatever the order and the repeats", () => {
  const random = new Random(11);
  const history = Array.from({ length: 50 }, (_, at) =>
    event(`e${at}`, String(at).padStart(3, "0"), {
      id: `u${at % 4}`,
      email: `m${at}`,
      op: at === 49 ? "d" : "u",
    }),
  );
  const straight = new MemoryReplica();
  for (const { data } of history) straight.apply(data);
  for (let round = 0; round < 20; round += 1) {
    const other = new MemoryReplica();
    for (const { data } of shuffledWithDoubles(random, history, 0.3)) other.apply(data);
    const byId = (replica: MemoryReplica) =>
      [...replica.all("customer")].sort((a, b) => a.id.localeCompare(b.id));
    assert.deepEqual(byId(other), byId(straight));
  }
  assert.equal(straight.get("customer", "u1")?.deleted, true);
});
