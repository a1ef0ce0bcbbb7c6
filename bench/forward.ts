/**
 * How fast does the forwarder drain a full spool, against a bare client on the same daprd and Redis?
 *
 * Question: what share of the broker's speed do windows, entity order, classification and
 * acknowledgement leave. Not asked: what the spool's disk costs (bench of the spool), latency.
 *
 * Paired: each run drains the same events once bare (raw bulks of 100 over 2 connections, nothing
 * looked at but the status) and once through the forwarder, in alternating order.
 * Run: node bench/forward.ts [events] [runs]
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pool } from "undici";
import type { OutboundEvent } from "../agent/change.ts";
import { joinBulk } from "../agent/forward/wire.ts";
import { DaprClient } from "../agent/forward/dapr-client.ts";
import { Forwarder } from "../agent/forward/forwarder.ts";
import { systemClock } from "../agent/kernel/service.ts";
import { encoder, eventOf, MemoryQueues, observerOf, options, until } from "../test/forward/fakes.ts";
import { startDaprd } from "../test/servers/daprd.ts";
import { startRedis } from "../test/servers/redis.ts";

const BATCH = 100;
const [eventCount = 50_000, runs = 3] = process.argv.slice(2).map(Number);

interface Place {
  readonly endpoint: string;
  readonly topic: string;
}

async function drainBare(events: readonly OutboundEvent[], { endpoint, topic }: Place): Promise<number> {
  const pool = new Pool(endpoint, { connections: 2, pipelining: 1 });
  const path = `/v1.0/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`;
  const headers = { "content-type": "application/json" };
  let next = 0;
  const startMs = performance.now();
  const worker = async (): Promise<void> => {
    while (next < events.length) {
      const body = joinBulk(events.slice(next, (next += BATCH)));
      const answer = await pool.request({ path, method: "POST", headers, body });
      await answer.body.dump();
      if (answer.statusCode !== 204) throw new Error(`daprd answered ${answer.statusCode}`);
    }
  };
  await Promise.all([worker(), worker()]);
  const seconds = (performance.now() - startMs) / 1000;
  await pool.close();
  return events.length / seconds;
}

async function drainForwarder(events: readonly OutboundEvent[], { endpoint }: Place): Promise<number> {
  const client = new DaprClient({ endpoint, pubsub: "pubsub", token: () => null }, systemClock);
  const reader = new MemoryQueues();
  reader.append(...events);
  const parts = { reader, publisher: client, encoder, observer: observerOf(), clock: systemClock };
  const forwarder = new Forwarder(parts, { ...options, batchSize: BATCH, syncIntervalMs: 20 });
  const startMs = performance.now();
  const run = forwarder.run();
  await until(() => reader.isEmpty(), "drained", 600_000);
  const seconds = (performance.now() - startMs) / 1000;
  await forwarder.stop();
  await run;
  await client.close();
  return events.length / seconds;
}

const directory = mkdtempSync(join(tmpdir(), "mea-bench-forward-"));
const redis = await startRedis();
writeFileSync(
  join(directory, "pubsub.yaml"),
  `apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: pubsub }\nspec:\n  type: pubsub.redis\n  version: v1\n  metadata:\n  - { name: redisHost, value: "127.0.0.1:${redis.port}" }\n`,
);
const daprd = await startDaprd({ resourcesDir: directory });
try {
  const ratios: number[] = [];
  const fieldsOf = (topic: string) => ({ queue: topic, bytes: 750 });
  for (let run = 1; run <= runs; run++) {
    const topic = `bench-${run}`;
    const events = Array.from({ length: eventCount }, (_, index) =>
      eventOf({ key: `k${index}`, ...fieldsOf(topic) }),
    );
    const place = { endpoint: daprd.endpoint, topic };
    const rates = { bare: 0, forwarder: 0 };
    const order = run % 2 === 1 ? (["bare", "forwarder"] as const) : (["forwarder", "bare"] as const);
    for (const who of order) {
      rates[who] = await (who === "bare" ? drainBare : drainForwarder)(events, place);
      await redis.command("DEL", topic);
    }
    const ratio = rates.forwarder / rates.bare;
    ratios.push(ratio);
    const [bare, own] = [Math.round(rates.bare), Math.round(rates.forwarder)];
    console.log(`run ${run}: bare ${bare}/s, forwarder ${own}/s, ${(ratio * 100).toFixed(1)} %`);
  }
  const median = ratios.sort((a, b) => a - b)[ratios.length >> 1] ?? 0;
  console.log(`median share of the bare client's rate: ${(median * 100).toFixed(1)} % (wanted: 90 %)`);
} finally {
  await daprd.stop();
  await redis.stop();
  rmSync(directory, { recursive: true, force: true });
}
