import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { writeRandomly } from "../oracle/dml.ts";
import { allEntries, controlTopic } from "../oracle/history.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds } from "../servers/matrix.ts";
import { Stack } from "./stack.ts";

/** A change of a mapped field in every row of every table: each gives an event with its whole state. */
const touches: Readonly<Record<string, string>> = {
  customer_entity: "group_id = group_id % 100 + 1",
  customer_address_entity: "region_id = IFNULL(region_id, 0) % 1000 + 1",
  catalog_product_entity: "attribute_set_id = attribute_set_id % 100 + 1",
  catalog_category_entity: "level = level % 100 + 1",
  sales_order: "total_item_count = IFNULL(total_item_count, 0) % 100 + 1",
  sales_order_item: "is_virtual = IFNULL(is_virtual, 0) % 100 + 1",
  sales_order_address: "region_id = IFNULL(region_id, 0) % 1000 + 1",
  cataloginventory_stock_item: "backorders = backorders % 100 + 1",
  inventory_source_item: "status = status % 100 + 1",
  salesrule_coupon: "times_used = times_used % 1000 + 1",
};

async function touchAll(stack: Stack): Promise<void> {
  await stack.database.query("SET SESSION sql_mode = ''");
  for (const [table, assignment] of Object.entries(touches))
    await stack.database.query(`UPDATE magento_db.${table} SET ${assignment}`);
}

const write = (stack: Stack, random: Random, transactions: number): Promise<unknown> =>
  writeRandomly({
    connect: () => stack.database.connection({ database: stack.identity.database }),
    database: stack.identity.database,
    prefix: "",
    random,
    connections: 2,
    transactions,
    largeRows: 0,
  });

/** Rows that nobody reads: the stream has lost them. */
async function writeUnread(stack: Stack, from: number): Promise<void> {
  for (let id = from; id < from + 20; id += 1) {
    await stack.database.query(
      `INSERT INTO magento_db.customer_entity SET entity_id = ${id}, email = 'unread${id}@example.com', website_id = 1`,
    );
  }
}

/** The rows that Stack.drain writes would be in the way of later random ones. */
async function spoolEmpty(stack: Stack): Promise<void> {
  await stack.agent.until(
    "everything that was captured is delivered",
    async () =>
      ((await stack.agent.metric("edge_agent_last_accepted_timestamp_seconds")) ?? 0) > 0 &&
      (await stack.agent.metric("edge_agent_spool_events")) === 0,
    60_000,
  );
}

async function epochs(stack: Stack): Promise<string[]> {
  const history = await stack.history();
  return [...new Set(history.map(({ data }) => String(data["sequence"]).slice(0, 10)))].sort();
}

/** Commits and binlog files are told apart by whole seconds. */
const untilNextSecond = (): Promise<void> => sleep(2_000 - (Date.now() % 1_000));

const ways = [
  {
    kind: "MariaDB 10.11",
    detail: "numbering_restarted",
    message: /POSITION_LOST: the binlog's numbering was started anew/,
    lose: ["RESET MASTER"],
  },
  {
    kind: "MySQL 9.7 without GTIDs, with MINIMAL metadata",
    detail: "purged",
    message: /POSITION_LOST: the server no longer has binlog\.\d+; it has/,
    lose: ["FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE '2099-01-01'"],
  },
];

for (const { kind: name, detail, message, lose } of ways) {
  test(`a position that is lost (${detail}) on ${name}: nothing is published from what follows, the spool drains, position restart goes on with a gap told`, async () => {
    const random = new Random(runSeed());
    const kind = serverKinds.find((one) => one.name === name);
    assert.ok(kind);
    const stack = await Stack.start({ kind });
    try {
      await stack.agent.start();
      await stack.untilReading();
      await write(stack, random.fork(1), 40);
      await spoolEmpty(stack);
      await stack.broker.cutOff();
      await stack.database.query(
        "INSERT INTO magento_db.customer_entity SET entity_id = 700001, email = 'spooled@example.com', website_id = 1",
      );
      await stack.untilSpooled(1, 30_000);
      await stack.agent.kill();
      await untilNextSecond();
      for (const statement of lose) await stack.database.query(statement);
      await writeUnread(stack, 800_000);
      await stack.agent.start();
      await stack.agent.until(
        "health names the case",
        async () => message.test((await stack.agent.health()) ?? ""),
        30_000,
      );
      assert.equal(
        await stack.agent.metric("edge_agent_capture_halted", `code="POSITION_LOST",case="${detail}"`),
        1,
      );
      assert.match((await stack.agent.command("status")).output, /to do .*position restart --from=current/);
      await stack.broker.reconnect();
      await spoolEmpty(stack);
      const before = await stack.history();
      assert.ok(before.some(({ raw }) => raw.includes("spooled@example.com")));
      assert.ok(!before.some(({ raw }) => raw.includes("unread8")));
      const [epochBefore] = await epochs(stack);
      const restarted = await stack.agent.command("position", "restart", "--from=current");
      assert.equal(restarted.code, 0, restarted.output);
      await stack.untilReading();
      assert.ok(stack.agent.running());
      assert.match(stack.agent.log(), /capture goes on/);
      await touchAll(stack);
      await write(stack, random.fork(2), 40);
      await stack.drain();
      const proof = await stack.prove(random);
      assert.ok(proof.distinct > 20);
      const after = await epochs(stack);
      assert.equal(after.length, 2);
      assert.equal(after[0], epochBefore);
      const gaps = await gapEvents(stack);
      assert.equal(gaps.length, 1);
      const [gap] = gaps;
      assert.equal(String(gap?.["epoch"]), String(Number(after[1])));
      assert.equal(String(gap?.["previous_epoch"]), String(Number(after[0])));
      assert.ok(String(gap?.["sequence"]) > String(before.at(-1)?.data["sequence"]));
    } finally {
      await stack.stop();
    }
  });
}

test("a state that is purged and made anew: consumers take what follows, in a new epoch; a stopped agent's position restart is told too", async () => {
  const random = new Random(runSeed());
  const stack = await Stack.start();
  try {
    await stack.agent.start();
    await stack.untilReading();
    await write(stack, random.fork(1), 40);
    await spoolEmpty(stack);
    await stack.agent.stop();
    await stack.agent.forget();
    await writeUnread(stack, 800_000);
    await untilNextSecond();
    await stack.agent.start();
    await stack.untilReading();
    await touchAll(stack);
    await write(stack, random.fork(2), 40);
    await stack.drain();
    await stack.prove(random);
    assert.equal((await epochs(stack)).length, 2);

    await stack.agent.stop();
    await writeUnread(stack, 900_000);
    const from = await stack.databaseEnd();
    await touchAll(stack);
    const inside = await stack.agent.command("position", "restart", `--from=${from}1`);
    assert.notEqual(inside.code, 0, inside.output);
    const restarted = await stack.agent.command("position", "restart", `--from=${from}`);
    assert.equal(restarted.code, 0, restarted.output);
    await stack.agent.start();
    await stack.untilReading();
    await touchAll(stack);
    await stack.drain();
    await stack.prove(random);
    assert.equal((await epochs(stack)).length, 3);
    const [gap] = await gapEvents(stack);
    assert.deepEqual([gap?.["reason"], gap?.["to"]], ["POSITION_LOST", from]);
  } finally {
    await stack.stop();
  }
});

async function gapEvents(stack: Stack): Promise<Record<string, unknown>[]> {
  const found: Record<string, unknown>[] = [];
  for await (const { fields } of allEntries(stack.broker.redis, controlTopic)) {
    const event = JSON.parse(fields["data"] ?? "{}");
    if (event.type === "magento.gap") found.push(event.data);
  }
  return found;
}
