/** The agent killed again and again while it reads the tables, and the database restarted meanwhile. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Random, runSeed } from "../oracle/random.ts";
import type { ServerKind } from "../servers/matrix.ts";
import { numbersSql } from "../servers/numbers.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

/** So many that the rows outlast the kills. */
const ROWS_A_KILL = 240;
const RATE = 1_000;
/** A quarter of a second's rows, as the rate has it. */
const CHUNK = RATE / 4;

async function jobs(stack: Stack): Promise<number | null> {
  return stack.agent.metric("edge_agent_snapshot_jobs");
}

/** Customers behind `first`, which nobody else writes. */
function customersSql(first: number, count: number): string {
  const rows = numbersSql(first + 1, first + count);
  return `INSERT INTO customer_entity (entity_id, email) SELECT seq, CONCAT('c', seq) FROM ${rows}`;
}

/** Equality after so many kills under random writes, and no row read twice but those of a chunk a kill. */
export async function survivesKillsWhileReading(kind: ServerKind, kills: number): Promise<void> {
  const random = new Random(runSeed());
  const stack = await Stack.start({
    kind,
    settings: { SNAPSHOT_MODE: "initial", SNAPSHOT_RATE_MAX: String(RATE) },
  });
  const ending = new AbortController();
  let consumer: ConsumerProcess | null = null;
  try {
    await stack.database.query(customersSql(1_000_000, kills * ROWS_A_KILL));
    const { signal } = ending;
    const load = stack.write({ random, connections: 3, transactions: 1_000_000, pauseMs: 15, signal });
    load.catch(() => undefined);
    consumer = await ConsumerProcess.start(stack.broker.redis);
    let killsWhileReading = 0;
    for (let kill = 0; kill < kills; kill += 1) {
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
    assert.ok(killsWhileReading > kills / 2, `${killsWhileReading} kills while rows were read`);
    const reads = (await stack.history()).filter(
      ({ data }) => data["op"] === "r" && Number(data["magento_id"]) > 1_000_000,
    );
    const keys = new Set(reads.map(({ data }) => data["magento_id"]));
    const ids = new Set(reads.map(({ event }) => event["id"]));
    console.log(
      `${kind.name}: ${killsWhileReading} kills while reading: ${keys.size} rows, ${ids.size} reads of them`,
    );
    assert.ok(ids.size - keys.size <= (kills + 1) * CHUNK, "never more than one chunk was read twice");
  } finally {
    ending.abort();
    await consumer?.stop();
    await stack.stop();
  }
}

/** Equality after the database was restarted twice in the midst of a table. */
export async function survivesRestartsWhileReading(kind: ServerKind): Promise<void> {
  const stack = await Stack.start({
    kind,
    settings: { SNAPSHOT_MODE: "initial", SNAPSHOT_RATE_MAX: "2000" },
  });
  const customersRead = async (): Promise<number> =>
    (await stack.agent.metric("edge_agent_snapshot_rows", 'table="customer_entity"')) ?? 0;
  let consumer: ConsumerProcess | null = null;
  try {
    await stack.database.query(customersSql(0, 8000));
    await stack.agent.start();
    consumer = await ConsumerProcess.start(stack.broker.redis);
    for (let restart = 0; restart < 2; restart += 1) {
      const rows = await customersRead();
      await stack.agent.until("more rows were read", async () => (await customersRead()) > rows, 60_000);
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
}
