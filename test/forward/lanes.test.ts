/** Live changes and bulk work on their way out of one queue. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { BULK_EVERY } from "../../agent/forward/lanes.ts";
import type { DaprStandIn } from "../servers/dapr-stand-in.ts";
import { CONTROL, eventOf, TOPIC, until, type EventFields } from "./fakes.ts";
import { startBench } from "./bench.ts";

function many(count: number, fields: (index: number) => EventFields): ReturnType<typeof eventOf>[] {
  return Array.from({ length: count }, (_, index) => eventOf(fields(index)));
}

function placesOf(standIn: DaprStandIn): (id: string) => number {
  const places = new Map<string, number>();
  standIn.delivered.forEach(({ entryId }, at) => {
    if (!places.has(entryId)) places.set(entryId, at);
  });
  return (id) => places.get(id) ?? assert.fail(`${id} was not delivered`);
}

test("a live event overtakes 100,000 waiting bulk events", async (t) => {
  const { standIn, rig } = await startBench(t, { batchSize: 100 });
  standIn.setScript(() => ({ kind: "slow", delayMs: 20 }));
  rig.queues.appendAll(many(100_000, (index) => ({ key: `r${index}`, lane: "bulk", op: "r" })));
  await until(() => standIn.delivered.length > 0, "bulk work is under way");
  for (let round = 0; round < 20; round++) {
    const before = standIn.delivered.length;
    const startMs = performance.now();
    const live = eventOf({ key: `k${round}` });
    rig.queues.append(live);
    await until(() => rig.queues.queues()[0]?.acked === round + 1, "the live event is accepted", 5000);
    assert.ok(performance.now() - startMs < 1000, "within a second");
    const overtakers = standIn.delivered.findIndex(({ entryId }) => entryId === live.id) - before;
    // Those that were under way, and those of requests that are answered while its own is.
    assert.ok(overtakers <= 8 * 100, `${overtakers} of the bulk events went before it`);
  }
  assert.ok(standIn.delivered.length < 50_000, "most of the bulk work waits still");
});

test("bulk work has its share while live changes never end", async (t) => {
  const { standIn, rig } = await startBench(t);
  const rows = new Set<string>();
  const order: boolean[] = [];
  standIn.setScript(({ entries }) => {
    order.push(entries.some(({ entryId }) => rows.has(entryId)));
    return { kind: "slow", delayMs: 2 };
  });
  const bulk = many(1000, (index) => ({ key: `r${index}`, lane: "bulk", op: "r" }));
  for (const { id } of bulk) rows.add(id);
  const live = many(20_000, (index) => ({ key: `k${index}` }));
  rig.queues.appendAll([...live, ...bulk]);
  await rig.drained(60_000);
  const share = order.slice(0, 400).filter(Boolean).length / 400;
  assert.ok(share >= 0.8 / BULK_EVERY, `${share} of the requests`);
  assert.ok(share <= 2 / BULK_EVERY, `${share} of the requests: live changes go first`);
});

test("a barrier waits for both lanes; a live one holds both, one of the bulk lane its own", async (t) => {
  const { standIn, rig } = await startBench(t);
  standIn.setScript(({ number }) => ({ kind: "slow", delayMs: number % 3 === 0 ? 20 : 1 }));
  const both = (): ReturnType<typeof eventOf>[] =>
    many(200, (index) => ({ key: `k${index % 150}`, lane: index % 2 === 0 ? "live" : "bulk" }));
  const barrierOf = (lane: "live" | "bulk") => eventOf({ key: "", topic: CONTROL, lane, barrier: true });
  const [first, second, third] = [both(), both(), both()];
  const [live, bulk] = [barrierOf("live"), barrierOf("bulk")];
  rig.queues.append(...first, live, ...second, bulk, ...third);
  await rig.drained();
  const place = placesOf(standIn);
  for (const { id } of first) assert.ok(place(id) < place(live.id), "all before the live barrier");
  for (const { id } of [...second, ...third]) assert.ok(place(id) > place(live.id), "all behind it");
  for (const { id } of [...first, ...second]) assert.ok(place(id) < place(bulk.id), "all before the other");
  for (const { id, lane } of third) {
    if (lane === "bulk") assert.ok(place(id) > place(bulk.id), "its own lane behind it");
  }
  assert.equal(rig.publisher.violations, 0);
});

test("a hold is of the topic: both lanes wait for one probe at a time, and go on together", async (t) => {
  const { standIn, rig } = await startBench(t);
  const probes: { readonly atMs: number; readonly events: number }[] = [];
  standIn.setScript(({ entries }) => {
    probes.push({ atMs: performance.now(), events: entries.length });
    return { kind: "partial", failedIds: entries.map(({ entryId }) => entryId) };
  });
  rig.queues.append(...many(200, (index) => ({ key: `k${index}`, lane: index % 2 === 0 ? "live" : "bulk" })));
  await until(() => rig.told.lines.length > 0, "the topic is held");
  await until(
    () => rig.forwarder.status().topics.every(({ inFlight }) => inFlight === 0),
    "all are answered",
  );
  const { topics } = rig.forwarder.status();
  assert.deepEqual(
    topics.map(({ topic, lane, held }) => [topic, lane, held]),
    [
      [TOPIC, "live", true],
      [TOPIC, "bulk", true],
    ],
  );
  probes.length = 0;
  await until(() => probes.length >= 4, "it is probed");
  for (const [at, { atMs, events }] of probes.entries()) {
    assert.ok(events <= 10, `a probe of ${events} events`);
    assert.ok(atMs - (probes[at - 1]?.atMs ?? 0) > 20, "one probe after the other");
  }
  standIn.setScript(null);
  await rig.drained();
  assert.deepEqual(rig.told.lines, [`held ${TOPIC} ERR_PUBSUB_PUBLISH_MESSAGE`, `released ${TOPIC}`]);
});

test("an entity whose event of the bulk lane is refused waits in the live lane until that is in quarantine", async (t) => {
  const { standIn, rig } = await startBench(t, { maxRetries: 3 });
  const row = eventOf({ key: "a", lane: "bulk", op: "r" });
  const live = eventOf({ key: "a" });
  standIn.setScript(({ entries }) =>
    entries.some(({ entryId }) => entryId === row.id)
      ? { kind: "answer", status: 400, body: '{"errorCode":"ERR_PUBSUB_EVENTS_SER","message":"m"}' }
      : null,
  );
  rig.queues.append(row);
  await until(() => rig.told.counts.failed > 0, "it is refused");
  rig.queues.append(live, eventOf({ key: "b" }));
  await rig.drained();
  const place = placesOf(standIn);
  assert.ok(place(live.id) > place(`dead-${row.id}`), "the live event comes behind the dead letter");
  assert.equal(rig.queues.quarantined.has(TOPIC, 1, "bulk"), true);
  assert.equal(rig.queues.quarantined.has(TOPIC, 1, "live"), false);
});
