/** The forwarder into a real daprd with Redis Streams, with both killed on the way. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { startDaprd } from "../servers/daprd.ts";
import { startRedis } from "../servers/redis.ts";
import { DLQ, eventOf, startRig, TOPIC, until } from "./fakes.ts";

/** A forwarder into a real daprd that stores in a real Redis. */
async function startRoad(t: TestContext, batchSize: number) {
  const directory = mkdtempSync(join(tmpdir(), "mea-forward-"));
  const redis = await startRedis();
  writeFileSync(
    join(directory, "pubsub.yaml"),
    `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: pubsub }
spec:
  type: pubsub.redis
  version: v1
  metadata:
  - { name: redisHost, value: "127.0.0.1:${redis.port}" }
  - { name: writeTimeout, value: "3s" }
  - { name: dialTimeout, value: "2s" }
`,
  );
  const daprd = await startDaprd({ resourcesDir: directory });
  const rig = startRig({ endpoint: daprd.endpoint, batchSize, headersMs: 20_000 });
  t.after(async () => {
    await rig.stop();
    await daprd.stop();
    await redis.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  return { redis, daprd, rig };
}

test("everything arrives, first deliveries in entity order, with Redis and daprd killed on the way", async (t) => {
  const { redis, daprd, rig } = await startRoad(t, 100);
  const acked = (): number => rig.queues.queues()[0]?.acked ?? 0;
  const add = (count: number): void =>
    rig.queues.append(
      ...Array.from({ length: count }, (_, index) => eventOf({ key: `k${index % 700}`, bytes: 600 })),
    );

  add(6000);
  await until(() => acked() > 500, "it flows");
  await redis.kill();
  await until(() => rig.told.lines.length > 0, "the outage of Redis is seen");
  await sleep(500);
  await redis.restart();
  await rig.drained(15_000);
  add(6000);
  await until(() => acked() > 6500, "it flows again");
  await daprd.kill();
  await until(() => rig.forwarder.status().allHeld !== null, "the outage of daprd is seen");
  await sleep(300);
  await daprd.restart();
  const startMs = performance.now();
  const before = acked();
  await until(() => acked() > before, "it goes on", 5000);
  assert.ok(performance.now() - startMs < 5000);
  await rig.drained(20_000);

  assert.deepEqual(rig.queues.quarantined.events, []);
  assert.equal(rig.publisher.violations, 0);
  const stored = await redis.streamEntries(TOPIC, { count: 50_000 });
  const wanted = new Map(rig.queues.eventsOf(TOPIC).map((event) => [event.id, event]));
  const newest = new Map<string, number>();
  const seen = new Set<string>();
  for (const { fields } of stored) {
    const parsed: unknown = JSON.parse(fields["data"] ?? "null");
    assert.ok(
      typeof parsed === "object" && parsed !== null && "id" in parsed && typeof parsed.id === "string",
    );
    const event = wanted.get(parsed.id);
    assert.ok(event !== undefined);
    assert.equal(fields["data"], JSON.parse(event.payload.toString()), "byte for byte");
    if (seen.has(event.id)) continue;
    seen.add(event.id);
    assert.ok(event.seq > (newest.get(event.entityKey) ?? 0), "in entity order");
    newest.set(event.entityKey, event.seq);
  }
  assert.equal(seen.size, 12_000);
});

test("an event that is too large for Redis alone is held and named, others go on, and an operator gives it up", async (t) => {
  const { redis, rig } = await startRoad(t, 20);
  await redis.command("CONFIG", "SET", "proto-max-bulk-len", "1048576");
  const large = eventOf({ key: "large", bytes: 1_300_000 });
  rig.queues.append(eventOf({ key: "a" }), large, eventOf({ key: "large" }), eventOf({ key: "b" }));
  const topic = () => rig.forwarder.status().topics[0];
  await until(() => topic()?.message?.includes(large.id) === true, "the event is named", 20_000);
  assert.equal(topic()?.code, "ERR_PUBSUB_PUBLISH_MESSAGE");
  rig.queues.append(...Array.from({ length: 40 }, (_, index) => eventOf({ key: `k${index}` })));
  await until(() => rig.told.counts.published === 42, "the others are delivered", 20_000);
  assert.equal(rig.queues.quarantined.count, 0, "a limit of the broker is waited for");
  rig.forwarder.release({ topic: TOPIC, what: { eventId: large.id } });
  await rig.drained(20_000);
  assert.equal(await redis.streamLength(DLQ), 1, "its dead letter, without what Redis does not take");
  assert.equal(await redis.streamLength(TOPIC), 43, "all but it, its entity's next one too");
  assert.deepEqual(
    rig.queues.quarantined.events.map(({ event }) => event.id),
    [large.id],
  );
});
