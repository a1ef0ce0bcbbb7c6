/** The index of children against the source's tables: whatever mode, kills, and lost parts of the history. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { relations } from "../../agent/transform/relations.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { numbersSql } from "../servers/numbers.ts";
import { serverKinds } from "../servers/matrix.ts";
import { childrenOfSource, readIndex } from "./index-on-disk.ts";
import { Stack } from "./stack.ts";

const KILLS = 5;
const ROWS = 1_000;
const cases = [
  { name: "MariaDB 10.11", mode: "never" },
  { name: "MariaDB 10.11", mode: "initial" },
  { name: "MySQL 9.7", mode: "never" },
  { name: "MySQL 9.7 without GTIDs, with MINIMAL metadata", mode: "initial" },
] as const;

/** Many children, a few of each parent, in some of the tables. */
async function fill(stack: Stack): Promise<void> {
  const numbers = numbersSql(1, ROWS);
  await stack.database.query("SET SESSION sql_mode = ''");
  for (const [table, columns] of [
    ["sales_order", "(entity_id, customer_id) SELECT 100000 + seq, seq % 200"],
    ["sales_order_item", "(item_id, order_id) SELECT 100000 + seq, seq % 700"],
    [
      "customer_address_entity",
      "(entity_id, parent_id) SELECT 100000 + seq, IF(seq % 9 = 0, NULL, seq % 300)",
    ],
    ["cataloginventory_stock_item", "(item_id, product_id, stock_id) SELECT 100000 + seq, seq, 1 + seq % 2"],
    ["catalog_product_entity", "(entity_id, sku) SELECT 100000 + seq, CONCAT('SKU-', seq % 1000)"],
  ] as const)
    await stack.database.query(`INSERT INTO ${stack.identity.database}.${table} ${columns} FROM ${numbers}`);
}

async function indexComplete(stack: Stack): Promise<void> {
  await stack.agent.until(
    "the index is complete",
    async () =>
      (await stack.agent.metric("edge_agent_index_incomplete")) === 0 &&
      (await stack.agent.metric("edge_agent_snapshot_jobs")) === 0,
    120_000,
  );
}

/** Waits until the agent has taken everything, stops it, and compares what it has on disk. */
async function assertIndexed(stack: Stack): Promise<void> {
  await stack.untilTaken();
  await stack.agent.stop();
  const expected = await childrenOfSource(stack);
  const index = await readIndex(stack.agent.stateDir);
  for (const { id, table, bothWays } of relations) {
    assert.deepEqual(index.children.get(id), expected.get(id), table);
    assert.deepEqual(index.lookups.get(id), bothWays ? expected.get(id) : [], `lookups of ${table}`);
    assert.notEqual(index.states.get(id)?.completeSince ?? null, null, table);
  }
  assert.ok((index.children.get(3)?.length ?? 0) > ROWS / 2);
}

/** What happens while nobody reads, and the binlog of it is purged. */
async function changeUnread(stack: Stack): Promise<void> {
  const { database } = stack.identity;
  for (const sql of [
    `DELETE FROM ${database}.sales_order_item WHERE item_id % 3 = 0`,
    `UPDATE ${database}.customer_address_entity SET parent_id = 4711 WHERE entity_id % 5 = 0`,
    `UPDATE ${database}.catalog_product_entity SET sku = CONCAT('NEW-', entity_id) WHERE entity_id % 4 = 0`,
    `DELETE FROM ${database}.salesrule_coupon`,
    "FLUSH BINARY LOGS",
  ])
    await stack.database.query(sql);
  await stack.purgeBinlogs();
}

for (const { name, mode } of cases)
  test(`is what the tables have after ${KILLS} kills during its scan, and after a lost position: ${name}, SNAPSHOT_MODE=${mode}`, async () => {
    const random = new Random(runSeed());
    const kind = serverKinds.find((one) => one.name === name);
    assert.ok(kind);
    const stack = await Stack.start({
      kind,
      brokerless: true,
      settings: { SNAPSHOT_MODE: mode, SNAPSHOT_RATE_MAX: "1500" },
    });
    const ending = new AbortController();
    try {
      await fill(stack);
      const { signal } = ending;
      const load = stack.write({ random, connections: 3, transactions: 1_000_000, pauseMs: 25, signal });
      load.catch(() => undefined);
      let whileScanned = 0;
      for (let kill = 0; kill < KILLS; kill += 1) {
        await stack.agent.start();
        await sleep(random.int(200, 900));
        if ((await stack.agent.metric("edge_agent_index_incomplete")) !== 0) whileScanned += 1;
        await stack.agent.kill();
      }
      await stack.agent.start();
      await indexComplete(stack);
      ending.abort();
      await load;
      await assertIndexed(stack);
      assert.ok(whileScanned > KILLS / 4, `${whileScanned} kills while it was scanned`);

      await changeUnread(stack);
      await stack.agent.start();
      if (mode === "never") {
        const halted = async () => /POSITION_LOST/.test((await stack.agent.health()) ?? "");
        await stack.agent.until("the position is known to be lost", halted, 30_000);
        const restarted = await stack.agent.command("position", "restart", "--from=current");
        assert.equal(restarted.code, 0, restarted.output);
        assert.equal(await stack.agent.metric("edge_agent_events_captured_total"), 0, "keys make no events");
      }
      await stack.untilReading();
      await indexComplete(stack);
      await stack.agent.until(
        "what is void is removed",
        async () => stack.agent.log().includes("void entries of the index are removed"),
        30_000,
      );
      await sleep(3_000);
      await assertIndexed(stack);
      assert.equal((await readIndex(stack.agent.stateDir)).voids, 0, "nothing void lies there");
      const verified = await stack.agent.command("spool", "verify");
      assert.match(verified.output, /records of the index\n[^]*is sound/);
    } finally {
      ending.abort();
      await stack.stop();
    }
  });
