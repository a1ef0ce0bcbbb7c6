/** The agent killed again and again while it reads the tables, and the database restarted meanwhile. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random, runSeed } from "../oracle/random.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

const KILLS = 50;
const ROWS = 12_000;
const RATE = 1_000;
/** A quarter of a second's rows, as the rate has it. */
const CHUNK = RATE / 4;

async function jobs(stack: Stack): Promise<number | null> {
  return stack.agent.metric("edge_agent_snapshot_jobs");
}

test(`replica and source are equal after ${KILLS} kills while rows are read`, async () => {
  const random = new Random(runSeed());
  const stack = await Stack.start({
    settings: { SNAPSHOT_MODE: "initial", SNAPSHOT_RATE_MAX: String(RATE) },
  });
  const ending = new AbortController();
  let consumer: ConsumerProcess | null = null;
  try {
    await stack.database.query(
      `INSERT INTO customer_entity (entity_id, email) SELECT 1000000 + seq, CONCAT('c', seq) FROM seq_1_to_${ROWS}`,
    );
    const { signal } = ending;
    const load = stack.write({ random, connections: 3, transactions: 1_000_000, pauseMs: 15, signal });
    load.catch(() => undefined);
    consumer = await ConsumerProcess.start(stack.broker.redis);
    let killsWhileReading = 0;
    for (let kill = 0; kill < KILLS; kill += 1) {
      await stack.agent.start();
      await sleep(random.int(0, 400));
      if ((await jobs(stack)) !== 0) killsWhileReading += 1;
      await stack.agent.kill();
    }
    await stack.agent.start();
    await stack.untilRowsRead(240_000);
    ending.abort();
    await load;
    await stack.assertEqual(consumer);
    await stack.prove(random);
    assert.ok(killsWhileReading > KILLS / 2, `${killsWhileReading} kills while rows were read`);
    const reads = (await stack.history()).filter(
      ({ data }) => data["op"] === "r" && Number(data["magento_id"]) > 1_000_000,
    );
    const keys = new Set(reads.map(({ data }) => data["magento_id"]));
    const ids = new Set(reads.map(({ event }) => event["id"]));
    console.log(`${killsWhileReading} kills while reading: ${keys.size} rows, ${ids.size} reads of them`);
    assert.ok(ids.size - keys.size <= (KILLS + 1) * CHUNK, "never more than one chunk was read twice");
  } finally {
    ending.abort();
    await consumer?.stop();
    await stack.stop();
  }
});

test("goes on where it was when the database restarts while rows are read", async () => {
  const stack = await Stack.start({
    settings: { SNAPSHOT_MODE: "initial", SNAPSHOT_RATE_MAX: "2000" },
  });
  let consumer: ConsumerProcess | null = null;
  try {
    await stack.database.query(
      `INSERT INTO customer_entity (entity_id, email) SELECT seq, CONCAT('c', seq) FROM seq_1_to_8000`,
    );
    await stack.agent.start();
    consumer = await ConsumerProcess.start(stack.broker.redis);
    for (let restart = 0; restart < 2; restart += 1) {
      const rows = (await stack.agent.metric("edge_agent_snapshot_rows", 'table="customer_entity"')) ?? 0;
      await stack.agent.until(
        "more rows were read",
        async () =>
          ((await stack.agent.metric("edge_agent_snapshot_rows", 'table="customer_entity"')) ?? 0) > rows,
        60_000,
      );
      assert.notEqual(await jobs(stack), 0, "it is restarted while rows are read");
      await stack.database.restart();
      await stack.database.query(`USE \`${stack.identity.database}\``);
    }
    await stack.untilRowsRead();
    await stack.assertEqual(consumer);
  } finally {
    await consumer?.stop();
    await stack.stop();
  }
});
