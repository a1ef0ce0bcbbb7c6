import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { Applier } from "../../cluster/consumer/applier.ts";
import { gatewayConfigFile, writeClusterFiles } from "../servers/cluster-files.ts";
import { startConsumerServer } from "../servers/consumer.ts";
import { startDaprd, type DaprdServer } from "../servers/daprd.ts";
import { startRedis, type RedisServer } from "../servers/redis.ts";
import {
  entityCloudEvent,
  randomFrom,
  resetCloudEvent,
  rawBulk,
  shuffled,
  type CloudEvent,
} from "./events.ts";

const token = "gateway-test-token";
let redis: RedisServer;
let gateway: DaprdServer;
let directory: string;

before(async () => {
  directory = throwAwayDirectory("consumer-test");
  redis = await startRedis();
  gateway = await startDaprd({
    resourcesDir: writeClusterFiles(join(directory, "gateway"), { redisPort: redis.port, role: "gateway" }),
    configFile: gatewayConfigFile,
    token,
  });
});

after(async () => {
  await gateway.stop();
  await redis.stop();
  removeDirectory(directory);
});

async function publish(topic: string, events: readonly CloudEvent[]): Promise<void> {
  for (let at = 0; at < events.length; at += 100) {
    const answer = await fetch(
      `${gateway.endpoint}/v1.0/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`,
      {
        method: "POST",
        headers: { "content-type": "application/json", "dapr-api-token": token },
        body: rawBulk(topic, events.slice(at, at + 100)),
      },
    );
    assert.equal(answer.status, 204, await answer.text());
  }
}

async function until(what: string, holds: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `not within ${timeoutMs} ms: ${what}`);
    await sleep(50);
  }
}

test("applies what is published by raw bulk, in whatever order and however often it comes", async (t) => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  const random = randomFrom(seed);
  const history: CloudEvent[] = [];
  for (let n = 1; n <= 5_000; n += 1) {
    const op = (["c", "u", "u", "u", "d"] as const)[Math.floor(random() * 5)] ?? "u";
    const fields = {
      total_amount: (random() * 1e6).toFixed(4),
      customer_email: "ä€😀@example.com",
      note: null,
    };
    history.push(entityCloudEvent({ entity: "order", op, key: 1 + Math.floor(random() * 300), n, fields }));
  }
  const sent = shuffled([...history, ...history.filter(() => random() < 0.3)], random);
  const db = join(directory, "replica.sqlite");
  const consumer = await startConsumerServer({ redisPort: redis.port, db });
  try {
    const startedMs = performance.now();
    await publish("migration.order.changed", sent);
    await publish("migration.control", [resetCloudEvent("coupon", 1)]);
    await until("all events came", async () => {
      const { applied, stale, controlEvents } = await consumer.statistics();
      return applied + stale >= sent.length && controlEvents === 1;
    });
    const perSecond = Math.round((sent.length / (performance.now() - startedMs)) * 1000);
    t.diagnostic(`${sent.length} events published, delivered and applied: ${perSecond} events/s`);
    assert.equal((await consumer.statistics()).deadLetters, 0);
  } finally {
    await consumer.stop();
  }
  const replica = new Applier(db, { order: ["customer_email"] });
  const expected = new Applier(":memory:", { order: ["customer_email"] });
  for (const event of history) expected.receive(event);
  assert.deepEqual([...replica.all("order")], [...expected.all("order")], `seed ${seed}`);
  replica.close();
  expected.close();
});

test("a malformed event goes to the dead letters and is recorded there, the others are applied", async () => {
  const consumer = await startConsumerServer({ redisPort: redis.port });
  try {
    const good = entityCloudEvent({ entity: "coupon", op: "c", key: 2, n: 2, fields: { code: "A" } });
    const bad = { ...good, id: "no-sequence", data: { op: "c", entity: "coupon", id: "x", magento_id: 1 } };
    await publish("migration.coupon.changed", [bad, good]);
    await until("the dead letter", async () => (await consumer.statistics()).deadLetters === 1);
    await until("the good one", async () => (await consumer.statistics()).entities["coupon"]?.live === 1);
  } finally {
    await consumer.stop();
  }
});

test("retries a handler that fails as the Resiliency says, then sends the event to the dead letters", async () => {
  const failing = await startConsumerServer({
    redisPort: redis.port,
    program: join(import.meta.dirname, "failing-consumer.ts"),
    // Shorter pauses; the number of attempts is that of the file.
    retryMaxInterval: "50ms",
  });
  try {
    const event = entityCloudEvent({ entity: "stock", op: "c", key: 3, n: 3, fields: {} });
    await publish("migration.stock.changed", [event]);
    const seen = async (): Promise<{ attempts: Record<string, number>; deadLetters: string[] }> =>
      JSON.parse(JSON.stringify(await failing.statistics()));
    await until("the dead letter", async () => (await seen()).deadLetters.includes(event.id));
    assert.equal((await seen()).attempts[event.id], 13);
    assert.equal((await redis.streamLength("migration.dlq")) >= 1, true);
  } finally {
    await failing.stop();
  }
});

test("an outage of the consumer's database loses nothing and makes no dead letter", async () => {
  const db = join(directory, "outage.sqlite");
  const consumer = await startConsumerServer({
    redisPort: redis.port,
    db,
    daprdArgs: [
      "--enable-app-health-check",
      "--app-health-check-path=/healthz",
      "--app-health-probe-interval=1",
      "--app-health-threshold=1",
    ],
    // With the real pauses the retries alone would bridge these seconds.
    retryMaxInterval: "50ms",
    // Deliveries that the outage cut off come back after the first of these.
    componentMetadata: { processingTimeout: "5s", redeliverInterval: "1s" },
  });
  try {
    const atStart = await consumer.statistics();
    const event = (n: number): CloudEvent =>
      entityCloudEvent({ entity: "address", op: "c", key: n, n, fields: { city: "Calder" } });
    const events = Array.from({ length: 200 }, (_, index) => event(index + 1));
    await publish("migration.address.changed", events.slice(0, 100));
    await until(
      "the first hundred",
      async () => (await consumer.statistics()).entities["address"]?.live === 100,
    );
    // Another process that holds SQLite's write lock for longer than all retries last here.
    const other = new DatabaseSync(db);
    other.exec("BEGIN IMMEDIATE");
    await publish("migration.address.changed", events.slice(100, 110));
    await sleep(8_000);
    await publish("migration.address.changed", events.slice(110));
    await sleep(2_000);
    other.exec("ROLLBACK");
    other.close();
    await until("the rest", async () => (await consumer.statistics()).entities["address"]?.live === 200);
    assert.equal((await consumer.statistics()).deadLetters, atStart.deadLetters);
  } finally {
    await consumer.stop();
  }
});
