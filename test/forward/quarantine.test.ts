/** Retries of quarantined events, and what bounds the quarantine. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import type { OutboundEvent } from "../../agent/change.ts";
import type { Script } from "../servers/dapr-stand-in.ts";
import {
  DLQ,
  type EventFields,
  eventOf,
  seededRandom,
  TOPIC,
  until,
  type Rig,
  type RigOptions,
} from "./fakes.ts";
import { startBench } from "./bench.ts";

function many(count: number, fields: (index: number) => EventFields): OutboundEvent[] {
  return Array.from({ length: count }, (_, index) => eventOf(fields(index)));
}

/** Refuses for good whatever request holds one of these events, and splits tell which. */
function refusing(ids: ReadonlySet<string>): Script {
  return ({ topic, entries }) =>
    topic !== DLQ && entries.some(({ entryId }) => ids.has(entryId))
      ? { kind: "answer", status: 413, body: "too large" }
      : null;
}

function idsInQuarantine(rig: Rig): string[] {
  return rig.queues.quarantined.events.map(({ event }) => event.id);
}

async function poisoned(t: TestContext, rigOptions: Partial<RigOptions> = {}) {
  const bench = await startBench(t, rigOptions);
  const poison = eventOf({ key: "p" });
  bench.standIn.setScript(refusing(new Set([poison.id])));
  bench.rig.queues.append(poison);
  await bench.rig.drained();
  assert.deepEqual(idsInQuarantine(bench.rig), [poison.id]);
  return { ...bench, poison };
}

test("a retry sends the event once more, and it leaves quarantine when it is accepted", async (t) => {
  const { standIn, rig, poison } = await poisoned(t);
  const again = await rig.forwarder.retry(poison.id);
  assert.deepEqual([again.outcome, again.code], ["refused", "HTTP_413"]);
  const [kept] = rig.queues.quarantined.events;
  assert.deepEqual(
    [kept?.event.id, kept?.verdict.attempts],
    [poison.id, 2],
    "it stays, its attempts counted",
  );
  standIn.setScript(null);
  const accepted = await rig.forwarder.retry(poison.id);
  assert.equal(accepted.outcome, "accepted");
  assert.deepEqual(idsInQuarantine(rig), []);
  assert.equal(standIn.delivered.at(-1)?.entryId, poison.id);
  assert.equal((await rig.forwarder.retry(poison.id)).code, "UNKNOWN");
  assert.equal(standIn.delivered.filter(({ topic }) => topic === DLQ).length, 1, "one dead letter in all");
});

test("a retry is refused after a newer event of the entity, and names it", async (t) => {
  const { standIn, rig, poison } = await poisoned(t);
  const newer = eventOf({ key: "p" });
  rig.queues.append(newer);
  await rig.drained();
  standIn.setScript(null);
  const refused = await rig.forwarder.retry(poison.id);
  assert.deepEqual([refused.outcome, refused.code], ["not-sent", "NEWER_ACCEPTED"]);
  assert.equal(refused.newerSequence, newer.id.slice(1).padStart(10, "0"));
  assert.deepEqual(idsInQuarantine(rig), [poison.id], "it stays for whoever looks into it");
  assert.equal(standIn.delivered.at(-1)?.entryId, newer.id, "nothing older came after it");
});

test("a retry is refused while a newer event of the entity waits", async (t) => {
  const { standIn, rig, poison } = await poisoned(t);
  standIn.setScript(() => ({ kind: "answer", status: 503 }));
  const newer = eventOf({ key: "p" });
  rig.queues.append(newer);
  await until(() => rig.told.lines.length > 0, "everything is held");
  const refused = await rig.forwarder.retry(poison.id);
  assert.deepEqual([refused.outcome, refused.code], ["not-sent", "NEWER_WAITS"]);
  assert.ok(refused.newerSequence !== null);
  standIn.setScript(null);
  await rig.drained();
});

test("while a retry is under way its entity waits, and only that", async (t) => {
  const { standIn, rig, poison } = await poisoned(t);
  standIn.setScript(({ entries }) =>
    entries[0]?.entryId === poison.id ? { kind: "slow", delayMs: 300 } : null,
  );
  const answered = rig.forwarder.retry(poison.id);
  // Two ticks: the event is looked up twice before it is sent.
  await until(() => standIn.requests >= 3, "the retry is under way");
  const newer = eventOf({ key: "p" });
  rig.queues.append(newer, ...many(50, (index) => ({ key: `k${index}` })));
  const second = await rig.forwarder.retry(poison.id);
  assert.ok(["UNDER_WAY", "NEWER_WAITS"].includes(second.code), second.code);
  assert.equal((await answered).outcome, "accepted");
  await rig.drained();
  const order = standIn.delivered.filter(({ topic }) => topic === TOPIC).map(({ entryId }) => entryId);
  assert.ok(order.indexOf(poison.id) < order.indexOf(newer.id), "the older one came first");
  assert.equal(rig.publisher.violations, 0);
});

test("a retry during an outage says so and changes nothing", async (t) => {
  const { standIn, rig, poison } = await poisoned(t);
  standIn.setScript(() => ({ kind: "answer", status: 503 }));
  const failed = await rig.forwarder.retry(poison.id);
  assert.deepEqual([failed.outcome, failed.code], ["unavailable", "HTTP_503"]);
  assert.equal(rig.queues.quarantined.events[0]?.verdict.attempts, 1, "an outage is no attempt");
  standIn.setScript(null);
  rig.queues.append(eventOf({ key: "other" }));
  await rig.drained();
  assert.deepEqual(idsInQuarantine(rig), [poison.id]);
});

test("an event over Dapr's limit is not tried again", async (t) => {
  const { rig } = await startBench(t, { limits: { bodyBytesMax: 10_000 } });
  const large = eventOf({ key: "a", bytes: 20_000 });
  rig.queues.append(large);
  await rig.drained();
  const refused = await rig.forwarder.retry(large.id);
  assert.deepEqual([refused.outcome, refused.code], ["not-sent", "EVENT_TOO_LARGE"]);
});

test("an event that a crash sent twice leaves quarantine when it is accepted after all", async (t) => {
  const { standIn, rig } = await startBench(t);
  const event = eventOf({ key: "a" });
  rig.queues.quarantined.add(
    { ...event, seq: 1, otherLaneThrough: 0 },
    { code: "X", reason: "", attempts: 1, deadLetterAccepted: true, about: null },
  );
  rig.queues.append(event);
  await rig.drained();
  assert.equal(standIn.delivered.length, 1);
  assert.deepEqual(idsInQuarantine(rig), []);
});

const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);

test(`per entity no older event comes after a newer one, whatever is retried (seed ${seed})`, async (t) => {
  const random = seededRandom(seed);
  const { standIn, rig } = await startBench(t, { quarantineMax: 10_000 });
  const refused = new Set<string>();
  standIn.setScript(refusing(refused));
  const retries: Promise<unknown>[] = [];
  for (let round = 0; round < 60; round++) {
    const events = many(40, () => ({ key: `k${Math.floor(random() * 60)}` }));
    // Few enough for the storm rule: it has tests of its own.
    if (round % 6 === 1) refused.add(events[Math.floor(random() * events.length)]?.id ?? "");
    rig.queues.append(...events);
    await sleep(random() * 4);
    for (const id of idsInQuarantine(rig)) {
      if (random() < 0.3) refused.delete(id);
      if (random() < 0.4) retries.push(rig.forwarder.retry(id));
    }
  }
  await rig.drained();
  refused.clear();
  for (const id of idsInQuarantine(rig)) retries.push(rig.forwarder.retry(id));
  await Promise.all(retries);
  assert.equal(rig.publisher.violations, 0);
  const newest = new Map<string, number>();
  for (const { topic, entryId, event } of standIn.delivered) {
    if (topic !== TOPIC) continue;
    const { key } = JSON.parse(event);
    const number = Number(entryId.slice(1));
    assert.ok(number > (newest.get(key) ?? 0), `${entryId} of ${key} came after e${newest.get(key) ?? 0}`);
    newest.set(key, number);
  }
  const delivered = new Set(standIn.delivered.map(({ entryId }) => entryId));
  const kept = new Set(idsInQuarantine(rig));
  for (const { id } of rig.queues.eventsOf(TOPIC)) {
    assert.ok(
      delivered.has(id) !== kept.has(id),
      `${id} is delivered or in quarantine, never both or neither`,
    );
  }
});

test("QUARANTINE_MAX is never passed: the topic is held until there is room", async (t) => {
  const { standIn, rig } = await startBench(t, { quarantineMax: 3 });
  const poison = many(5, (index) => ({ key: `p${index}` }));
  standIn.setScript(refusing(new Set(poison.map(({ id }) => id))));
  rig.queues.append(...poison);
  await until(() => rig.forwarder.status().topics[0]?.code === "QUARANTINE_FULL", "the topic is held");
  rig.queues.append(...many(50, (index) => ({ key: `k${index}`, queue: "migration.stock.changed" })));
  await until(() => standIn.delivered.filter(({ topic }) => topic !== DLQ).length === 50, "others go on");
  assert.equal(rig.queues.quarantined.count, 3);
  assert.equal(standIn.delivered.filter(({ topic }) => topic === DLQ).length, 3);
  // An operator drops one, and looks at the next.
  rig.queues.quarantined.events.shift();
  await until(() => rig.queues.quarantined.count === 3, "there was room for one more");
  await until(() => rig.forwarder.status().topics[0]?.code === "QUARANTINE_FULL", "it is held again");
  standIn.setScript(null);
  await rig.drained();
  assert.equal(rig.queues.quarantined.count, 3);
  assert.equal(rig.told.lines.at(-1), `released ${TOPIC}`);
});

test("events over Dapr's limit are no storm, and count for QUARANTINE_MAX", async (t) => {
  const { standIn, rig } = await startBench(t, { quarantineMax: 40 });
  rig.queues.append(...many(60, (index) => ({ key: `k${index}`, oversize: index % 2 === 0 })));
  await rig.drained();
  assert.deepEqual(rig.told.lines, [], "30 of 60 hold nothing");
  rig.queues.append(...many(60, (index) => ({ key: `k${index}`, oversize: index % 2 === 0 })));
  await until(() => rig.told.lines.includes(`held ${TOPIC} QUARANTINE_FULL`), "the topic is held");
  await until(() => rig.queues.quarantined.count === 40, "those that were given up are put away");
  rig.queues.quarantined.events.splice(0, 20);
  await rig.drained();
  assert.equal(standIn.delivered.filter(({ topic }) => topic === TOPIC).length, 60);
  assert.equal(standIn.delivered.filter(({ topic }) => topic === DLQ).length, 60);
});

test("dead letters that wait count for QUARANTINE_MAX", async (t) => {
  const { standIn, rig } = await startBench(t, { quarantineMax: 3 });
  const poison = many(6, (index) => ({ key: `p${index}` }));
  const ids = new Set(poison.map(({ id }) => id));
  standIn.setScript((publish) =>
    publish.topic === DLQ ? { kind: "answer", status: 503 } : refusing(ids)(publish),
  );
  rig.queues.append(...poison);
  await until(() => rig.told.lines.includes(`held ${TOPIC} QUARANTINE_FULL`), "the topic is held");
  assert.deepEqual([rig.queues.quarantined.count, rig.forwarder.status().deadLettersWaiting], [0, 3]);
  standIn.setScript(refusing(ids));
  await until(() => rig.queues.quarantined.count === 3, "those that were given up are put away");
});

test("a storm that ends counts anew: events refused in it are not given up on its account", async (t) => {
  const { standIn, rig } = await startBench(t);
  const poison = many(40, (index) => ({ key: `p${index}` }));
  const ids = new Set(poison.map(({ id }) => id));
  standIn.setScript(refusing(ids));
  rig.queues.append(...poison);
  await until(() => rig.forwarder.status().topics[0]?.code === "STORM", "the topic is held");
  const before = rig.queues.quarantined.count;
  assert.ok(before < 10, `${before} given up before it was a storm`);
  // One of them passes, the others are still refused: that is a storm again.
  const suspects = poison.filter(({ id }) => !rig.queues.quarantined.has(TOPIC, Number(id)));
  for (const { id } of suspects.slice(0, 20)) ids.delete(id);
  await until(() => standIn.delivered.some(({ topic }) => topic === TOPIC), "some pass");
  await until(() => standIn.delivered.filter(({ topic }) => topic === TOPIC).length >= 10, "more pass");
  await until(() => rig.forwarder.status().topics[0]?.code === "STORM", "it is held again");
  assert.ok(rig.queues.quarantined.count < before + 10, `${rig.queues.quarantined.count} given up`);
  ids.clear();
  await rig.drained();
});

test("a dead letter that is refused goes once more without the event in it", async (t) => {
  const { standIn, rig } = await startBench(t);
  const poison = many(3, (index) => ({ key: `p${index}` }));
  const ids = new Set(poison.map(({ id }) => id));
  standIn.setScript((publish) => {
    const isWhole = publish.topic === DLQ && publish.entries.some(({ event }) => event.includes("payload"));
    return isWhole ? { kind: "answer", status: 413, body: "" } : refusing(ids)(publish);
  });
  rig.queues.append(...poison);
  await rig.drained();
  const letters = standIn.delivered.filter(({ topic }) => topic === DLQ);
  assert.deepEqual(letters.map(({ entryId }) => entryId).sort(), poison.map(({ id }) => `dead-${id}`).sort());
  assert.ok(rig.queues.quarantined.events.every(({ verdict }) => verdict.deadLetterAccepted));
});
