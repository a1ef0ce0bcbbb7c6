/** The forwarder into a real daprd with Redis Streams, with both killed on the way. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { startDaprd } from "../servers/daprd.ts";
import { startRedis } from "../servers/redis.ts";
import { eventOf, startRig, TOPIC, until } from "./fakes.ts";

test("everything arrives, first deliveries in entity order, with Redis and daprd killed on the way", async (t) => {
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
  const rig = startRig({ endpoint: daprd.endpoint, batchSize: 100, headersMs: 20_000 });
  t.after(async () => {
    await rig.stop();
    await daprd.stop();
    await redis.stop();
    rmSync(directory, { recursive: true, force: true });
  });
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
