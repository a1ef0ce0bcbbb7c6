/** The forwarder's policy against scripted answers: order, holds, dead letters, bounds. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test, type TestContext } from "node:test";
import { AgentError } from "../../agent/kernel/errors.ts";
import {
  startDaprStandIn,
  type DaprStandIn,
  type Script,
  type StandInOptions,
} from "../servers/dapr-stand-in.ts";
import { CONTROL, DLQ, eventOf, startRig, TOPIC, until, type Rig, type RigOptions } from "./fakes.ts";

interface Bench {
  readonly standIn: DaprStandIn;
  readonly rig: Rig;
}

async function start(
  t: TestContext,
  rigOptions: Partial<RigOptions> = {},
  standInOptions: StandInOptions = {},
): Promise<Bench> {
  const standIn = await startDaprStandIn(standInOptions);
  const rig = startRig({ endpoint: standIn.endpoint, ...rigOptions });
  t.after(async () => {
    await rig.stop();
    await standIn.stop();
  });
  return { standIn, rig };
}

function many(
  count: number,
  fields: (index: number) => Parameters<typeof eventOf>[0],
): ReturnType<typeof eventOf>[] {
  return Array.from({ length: count }, (_, index) => eventOf(fields(index)));
}

/** Refuses every request that holds one of these events, as Dapr refuses a malformed bulk. */
function refusing(ids: ReadonlySet<string>): Script {
  return ({ topic, entries }) =>
    topic !== DLQ && entries.some((entry) => ids.has(entry.entryId))
      ? { kind: "answer", status: 400, body: '{"errorCode":"ERR_PUBSUB_EVENTS_SER","message":"m"}' }
      : null;
}

test("sends an idle topic's event at once and fills batches when it is busy", async (t) => {
  const { standIn, rig } = await start(t, { batchSize: 50, syncIntervalMs: 10_000 });
  rig.queues.append(eventOf({ key: "a" }));
  await rig.drained(1000);
  rig.queues.append(...many(500, (index) => ({ key: `k${index}` })));
  await rig.drained(2000);
  assert.equal(rig.publisher.largest, 50);
  assert.ok(standIn.requests <= 12, `${standIn.requests} requests`);
});

test("does not let a partly filled batch wait longer than SYNC_INTERVAL behind a slow request", async (t) => {
  const { standIn, rig } = await start(t, { syncIntervalMs: 30 });
  standIn.setScript(({ number }) => (number === 1 ? { kind: "slow", delayMs: 700 } : null));
  rig.queues.append(eventOf({ key: "slow" }));
  await until(() => standIn.requests === 1, "the slow request is under way");
  const second = eventOf({ key: "quick" });
  rig.queues.append(second);
  await until(
    () => standIn.delivered.some(({ entryId }) => entryId === second.id),
    "the second is sent",
    500,
  );
  assert.equal(rig.queues.queues()[0]?.acked, 0, "the prefix waits for the first");
  await rig.drained();
});

test("a hot entity does not stall the others", async (t) => {
  const { standIn, rig } = await start(t, { limits: { windowEvents: 400 } });
  standIn.setScript(() => ({ kind: "slow", delayMs: 5 }));
  rig.queues.append(...many(1000, (index) => ({ key: index % 5 === 0 ? "hot" : `k${index}` })));
  await until(() => standIn.delivered.length >= 1000, "all are delivered", 15_000);
  const hot = new Set(
    rig.queues
      .eventsOf(TOPIC)
      .filter(({ entityKey }) => entityKey === "hot")
      .map(({ id }) => id),
  );
  const lastOther = standIn.delivered.findLastIndex(({ entryId }) => !hot.has(entryId));
  const hotBefore = standIn.delivered.slice(0, lastOther).filter(({ entryId }) => hot.has(entryId)).length;
  assert.ok(hotBefore < 150, `${hotBefore} of 200 hot events went before the last of the others`);
  assert.equal(rig.publisher.violations, 0);
});

test("a barrier goes alone, after everything before it and before anything later", async (t) => {
  const { standIn, rig } = await start(t);
  standIn.setScript(({ number }) => ({ kind: "slow", delayMs: number % 3 === 0 ? 20 : 1 }));
  const barrier = eventOf({ key: "", queue: TOPIC, topic: CONTROL, barrier: true });
  const before = many(100, (index) => ({ key: `k${index}` }));
  const after = many(100, (index) => ({ key: `k${index}` }));
  rig.queues.append(...before, barrier, ...after);
  await rig.drained();
  const order = standIn.delivered.map(({ entryId }) => entryId);
  assert.equal(order.indexOf(barrier.id), 100);
  assert.equal(standIn.delivered[100]?.topic, CONTROL);
  const alone = standIn.delivered.filter(({ request }) => request === standIn.delivered[100]?.request);
  assert.equal(alone.length, 1);
});

test("isolates a refused event, dead-letters it, and lets its entity go on only afterwards", async (t) => {
  const { standIn, rig } = await start(t);
  const events = many(60, (index) => ({ key: `k${index % 30}` }));
  const poison = events[7];
  const successor = events[37];
  assert.ok(poison !== undefined && successor !== undefined);
  standIn.setScript(refusing(new Set([poison.id])));
  rig.queues.append(...events);
  await rig.drained();
  const order = standIn.delivered.map(({ entryId }) => entryId);
  assert.equal(order.length, 60, "59 events and one dead letter");
  assert.ok(order.indexOf(`dead-${poison.id}`) < order.indexOf(successor.id));
  assert.equal(standIn.delivered.find(({ entryId }) => entryId === `dead-${poison.id}`)?.topic, DLQ);
  const [quarantined] = rig.queues.quarantined.events;
  assert.equal(quarantined?.event.id, poison.id);
  const { code, attempts, deadLetterAccepted } = quarantined.verdict;
  assert.deepEqual(
    { code, attempts, deadLetterAccepted },
    { code: "ERR_PUBSUB_EVENTS_SER", attempts: 3, deadLetterAccepted: true },
  );
  assert.deepEqual(rig.told.lines, [], "nothing was held");
});

test("while dead letters cannot be published only the refused event's entity waits", async (t) => {
  const { standIn, rig } = await start(t, {}, { allowedTopics: [TOPIC] });
  const poison = eventOf({ key: "poison" });
  const successor = eventOf({ key: "poison" });
  standIn.setScript(refusing(new Set([poison.id])));
  rig.queues.append(poison, successor, ...many(3000, (index) => ({ key: `k${index}` })));
  await until(() => standIn.delivered.length === 3000, "all others are delivered");
  await until(() => rig.told.lines.length > 0, "the dead letters are held");
  assert.equal(rig.queues.queues()[0]?.acked, 0, "nothing is acknowledged past the waiting event");
  assert.deepEqual(rig.told.lines, [`held ${DLQ} ERR_PUBSUB_FORBIDDEN`]);
  assert.deepEqual(rig.queues.quarantined.events, []);
  standIn.setAllowedTopics(null);
  await rig.drained(6000);
  assert.equal(standIn.delivered.at(-1)?.entryId, successor.id);
  assert.equal(rig.queues.quarantined.events.length, 1);
});

test("a refused dead letter leaves the event in quarantine and the stream goes on", async (t) => {
  const { standIn, rig } = await start(t);
  const poison = eventOf({ key: "a" });
  const refused = {
    kind: "answer",
    status: 500,
    body: '{"errorCode":"ERR_PUBSUB_CLOUD_EVENTS_SER"}',
  } as const;
  standIn.setScript(({ topic, entries }) =>
    topic === DLQ || entries[0]?.entryId === poison.id ? refused : null,
  );
  rig.queues.append(poison, eventOf({ key: "a" }));
  await rig.drained();
  assert.equal(rig.queues.quarantined.events[0]?.verdict.deadLetterAccepted, false);
  assert.equal(
    rig.queues.quarantined.events[0]?.verdict.attempts,
    1,
    "a permanent refusal is not tried again",
  );
  assert.equal(standIn.delivered.length, 1);
});

test("an oversize event goes to the dead letters untried, flagged or not", async (t) => {
  const { standIn, rig } = await start(t, { limits: { bodyBytesMax: 10_000 } });
  rig.queues.append(
    eventOf({ key: "a", oversize: true }),
    eventOf({ key: "b", bytes: 20_000 }),
    ...many(50, (index) => ({ key: `k${index}`, bytes: 900 })),
  );
  await rig.drained();
  assert.deepEqual(
    rig.queues.quarantined.events.map(({ verdict }) => verdict.code),
    ["EVENT_TOO_LARGE", "EVENT_TOO_LARGE"],
  );
  assert.equal(standIn.delivered.filter(({ topic }) => topic === TOPIC).length, 50);
  assert.ok(rig.publisher.largest <= 10, "a request is cut by bytes");
});

test("a storm of refusals holds the topic instead of emptying it into the dead letters", async (t) => {
  const { standIn, rig } = await start(t);
  const refusedTopic = "migration.stock.changed";
  standIn.setScript(({ topic }) =>
    topic === refusedTopic ? { kind: "answer", status: 413, body: "too large" } : null,
  );
  rig.queues.append(...many(500, (index) => ({ key: `s${index}`, queue: refusedTopic })));
  rig.queues.append(...many(200, (index) => ({ key: `k${index}` })));
  await until(() => rig.told.lines.includes(`held ${refusedTopic} STORM`), "the topic is held");
  await until(() => standIn.delivered.filter(({ topic }) => topic === TOPIC).length === 200, "others go on");
  // Those that were given up before there were enough for a storm may still be on their way.
  await sleep(200);
  const givenUp = rig.queues.quarantined.events.length;
  await sleep(600);
  assert.ok(givenUp <= 10, `${givenUp} dead letters`);
  assert.equal(rig.queues.quarantined.events.length, givenUp, "no more dead letters while it is held");
  standIn.setScript(null);
  await rig.drained(6000);
  assert.equal(standIn.delivered.filter(({ topic }) => topic === refusedTopic).length, 500 - givenUp);
  assert.equal(rig.told.lines.at(-1), `released ${refusedTopic}`);
});

const faults: {
  name: string;
  code: string;
  reach: string;
  begin: (s: DaprStandIn) => void;
  end: (s: DaprStandIn) => void;
}[] = [
  {
    name: "a wrong token",
    code: "HTTP_401",
    reach: "*",
    begin: (s) => s.setToken("other"),
    end: (s) => s.setToken(null),
  },
  {
    name: "a missing component",
    code: "ERR_PUBSUB_NOT_FOUND",
    reach: "*",
    begin: (s) => s.setComponent(false),
    end: (s) => s.setComponent(true),
  },
  {
    name: "a forbidden topic",
    code: "ERR_PUBSUB_FORBIDDEN",
    reach: TOPIC,
    begin: (s) => s.setAllowedTopics([]),
    end: (s) => s.setAllowedTopics(null),
  },
  {
    name: "a failing broker",
    code: "ERR_PUBSUB_PUBLISH_MESSAGE",
    reach: TOPIC,
    begin: (s) =>
      s.setScript(({ entries }) => ({ kind: "partial", failedIds: entries.map(({ entryId }) => entryId) })),
    end: (s) => s.setScript(null),
  },
  {
    name: "an unknown 400",
    code: "HTTP_400",
    reach: TOPIC,
    begin: (s) => s.setScript(() => ({ kind: "answer", status: 400, body: "Bad Request" })),
    end: (s) => s.setScript(null),
  },
  {
    name: "a proxy's 200",
    code: "HTTP_200",
    reach: "*",
    begin: (s) => s.setScript(() => ({ kind: "answer", status: 200, body: "<html>" })),
    end: (s) => s.setScript(null),
  },
];
// Each waits for most of its time; all wait at once.
describe("a fault of the cluster", { concurrency: true }, () => {
  for (const { name, code, reach, begin, end } of faults) {
    test(`holds on ${name} and recovers by itself within 5 s, without a dead letter`, async (t) => {
      const { standIn, rig } = await start(t);
      begin(standIn);
      rig.queues.append(...many(100, (index) => ({ key: `k${index}` })));
      await until(() => rig.told.lines.length > 0, "it is held");
      await sleep(1500);
      const status = rig.forwarder.status();
      assert.equal(reach === "*" ? status.allHeld?.code : status.topics[0]?.code, code);
      assert.equal(standIn.delivered.length, 0);
      end(standIn);
      await rig.drained(5000);
      assert.deepEqual(rig.told.lines, [`held ${reach} ${code}`, `released ${reach}`]);
      assert.deepEqual(rig.queues.quarantined.events, []);
      assert.equal(standIn.delivered.length, 100);
    });
  }

  test("holds while nothing listens and recovers within 5 s", async (t) => {
    const { standIn, rig } = await start(t);
    await standIn.disconnect();
    rig.queues.append(...many(100, (index) => ({ key: `k${index}` })));
    await sleep(1500);
    assert.equal(rig.forwarder.status().allHeld?.code, "ECONNREFUSED");
    await standIn.reconnect();
    await rig.drained(5000);
    assert.deepEqual(rig.told.lines, ["held * ECONNREFUSED", "released *"]);
  });
});

test("a held topic does not block another", async (t) => {
  const { standIn, rig } = await start(t, {}, { allowedTopics: ["migration.stock.changed"] });
  rig.queues.append(...many(300, (index) => ({ key: `k${index}` })));
  rig.queues.append(...many(300, (index) => ({ key: `s${index}`, queue: "migration.stock.changed" })));
  await until(() => standIn.delivered.length === 300, "the other topic is delivered");
  // The last answers are still on their way when the stand-in has everything.
  const stock = () => rig.forwarder.status().topics.find(({ topic }) => topic === "migration.stock.changed");
  await until(() => stock()?.acked === 300, "the other topic is acknowledged");
  assert.deepEqual(
    rig.forwarder.status().topics.map(({ topic, held, acked }) => ({ topic, held, acked })),
    [
      { topic: TOPIC, held: true, acked: 0 },
      { topic: "migration.stock.changed", held: false, acked: 300 },
    ],
  );
});

test("topics that hang do not use up the requests of the one that works", async (t) => {
  const { standIn, rig } = await start(t, { headersMs: 300 });
  const dead = ["migration.a", "migration.b", "migration.c", "migration.d", "migration.e"];
  standIn.setScript(({ topic }) => (dead.includes(topic) ? { kind: "hang", stores: false } : null));
  for (const queue of dead) rig.queues.append(...many(50, (index) => ({ key: `${queue}${index}`, queue })));
  await until(() => rig.forwarder.status().topics.every(({ held }) => held), "they are held", 8000);
  const startMs = performance.now();
  rig.queues.append(...many(50, (index) => ({ key: `k${index}` })));
  await until(() => standIn.delivered.length === 50, "the topic that works is delivered");
  assert.ok(performance.now() - startMs < 200, "at once");
});

test("honours Retry-After", async (t) => {
  const { standIn, rig } = await start(t);
  let firstMs = 0;
  standIn.setScript(({ number }) => {
    if (number > 1) return null;
    firstMs = performance.now();
    return { kind: "answer", status: 429, headers: { "retry-after": "1" } };
  });
  rig.queues.append(eventOf({ key: "a" }));
  await rig.drained();
  assert.ok((standIn.delivered[0]?.atMs ?? 0) - firstMs > 950, "no second try within the second");
});

test("keeps to FORWARD_RATE_MAX", async (t) => {
  const { rig } = await start(t, { rateMax: 400 });
  const startMs = performance.now();
  rig.queues.append(...many(400, (index) => ({ key: `k${index}` })));
  await rig.drained();
  const seconds = (performance.now() - startMs) / 1000;
  assert.ok(seconds > 0.85 && seconds < 1.5, `400 events took ${seconds.toFixed(2)} s`);
});

test("drain finishes what is under way and starts nothing new", async (t) => {
  const { standIn, rig } = await start(t);
  standIn.setScript(() => ({ kind: "slow", delayMs: 100 }));
  rig.queues.append(...many(500, (index) => ({ key: `k${index}` })));
  await until(() => standIn.requests >= 2, "two requests are under way");
  await rig.forwarder.drain(2000);
  const requests = standIn.requests;
  assert.equal(
    rig.queues.queues()[0]?.acked,
    standIn.delivered.length,
    "all that was accepted is acknowledged",
  );
  await sleep(150);
  assert.equal(standIn.requests, requests);
});

test("drain gives up at its deadline, and stop cuts what hangs", async (t) => {
  const { standIn, rig } = await start(t, { headersMs: 60_000 });
  standIn.setScript(() => ({ kind: "hang", stores: false }));
  rig.queues.append(eventOf({ key: "a" }));
  await until(() => standIn.requests === 1, "a request hangs");
  const startMs = performance.now();
  await rig.forwarder.drain(100);
  await rig.forwarder.stop();
  assert.ok(performance.now() - startMs < 1000);
  assert.equal(rig.queues.queues()[0]?.acked, 0);
});

test("run rejects when the spool delivers a damaged record", async (t) => {
  const standIn = await startDaprStandIn();
  t.after(() => standIn.stop());
  const rig = startRig({ endpoint: standIn.endpoint });
  rig.queues.failReadWith = new AgentError("SPOOL_CORRUPT", "checksum");
  rig.queues.append(eventOf({ key: "a" }));
  await assert.rejects(rig.ended, { code: "SPOOL_CORRUPT" });
  await assert.rejects(rig.stop(), { code: "SPOOL_CORRUPT" });
});
