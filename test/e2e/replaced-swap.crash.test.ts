/** Statements behind which a table holds rows that no row event told of: a swap by RENAME and its kin. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds } from "../servers/matrix.ts";
import { numbersSql } from "../servers/numbers.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

const ROWS = 1_500;
/** Slow enough to do something meanwhile. */
const RATE = 200;
const faster = { SNAPSHOT_RATE_MAX: "20000" };

/** pt-online-schema-change's way: a copy with another column, kept in step by triggers, takes the table's place. */
class OnlineChange {
  readonly #stack: Stack;
  readonly #columns: string;

  private constructor(stack: Stack, columns: readonly string[]) {
    this.#stack = stack;
    this.#columns = columns.join(", ");
  }

  static async begin(stack: Stack, column: string): Promise<OnlineChange> {
    const { database } = stack;
    const found = await database.query(
      "SELECT column_name AS name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'sales_order'",
    );
    const columns = found.map((row) => `\`${String(row["name"])}\``);
    const news = columns.map((name) => `NEW.${name}`).join(", ");
    const replaces = `FOR EACH ROW REPLACE INTO _sales_order_new (${columns.join(", ")}) VALUES (${news})`;
    for (const sql of [
      "CREATE TABLE _sales_order_new LIKE sales_order",
      `ALTER TABLE _sales_order_new ADD COLUMN ${column} INT`,
      "CREATE TRIGGER pt_osc_del AFTER DELETE ON sales_order FOR EACH ROW DELETE IGNORE FROM _sales_order_new WHERE _sales_order_new.entity_id <=> OLD.entity_id",
      `CREATE TRIGGER pt_osc_upd AFTER UPDATE ON sales_order ${replaces}`,
      `CREATE TRIGGER pt_osc_ins AFTER INSERT ON sales_order ${replaces}`,
    ])
      await database.query(sql);
    return new OnlineChange(stack, columns);
  }

  async copy(below: number): Promise<void> {
    await this.#stack.database.query(
      `INSERT LOW_PRIORITY IGNORE INTO _sales_order_new (${this.#columns}) SELECT ${this.#columns} FROM sales_order WHERE entity_id < ${below} LOCK IN SHARE MODE`,
    );
  }

  async swap(): Promise<void> {
    await this.#stack.database.query(
      "RENAME TABLE `magento_db`.`sales_order` TO `magento_db`.`_sales_order_old`, `magento_db`.`_sales_order_new` TO `magento_db`.`sales_order`",
    );
    await this.#stack.database.query("DROP TABLE IF EXISTS `_sales_order_old`");
  }

  /** Its way where children refer to the table (drop_swap): for a moment there is none. */
  async dropAndSwap(): Promise<void> {
    await this.#stack.database.query("DROP TABLE IF EXISTS `sales_order`");
    await this.#stack.database.query("RENAME TABLE `_sales_order_new` TO `sales_order`");
  }
}

/** Some of each kind of change, other ones with each `round`. */
async function change(stack: Stack, round: number): Promise<void> {
  for (const sql of [
    `DELETE FROM sales_order WHERE entity_id % 97 = ${round}`,
    `UPDATE sales_order SET status = 'round-${round}' WHERE entity_id % 53 = ${round}`,
    `UPDATE sales_order SET entity_id = entity_id + 100000 WHERE entity_id % 101 = ${round} AND entity_id < 100000`,
    `INSERT INTO sales_order (entity_id, increment_id, status) VALUES (${50_000 + round}, 'i-${round}', 'new')`,
  ])
    await stack.database.query(sql);
}

async function fill(stack: Stack): Promise<void> {
  await stack.database.query("SET SESSION sql_mode = ''");
  await stack.database.query(
    `INSERT INTO sales_order (entity_id, increment_id, customer_id, status) SELECT seq, seq, seq % 100, 'old' FROM ${numbersSql(1, ROWS)}`,
  );
}

async function reads(stack: Stack): Promise<number> {
  return (await stack.agent.metric("edge_agent_snapshot_rows", 'table="sales_order"')) ?? 0;
}

async function untilSomeRead(stack: Stack): Promise<void> {
  await stack.agent.until("some rows are read", async () => (await reads(stack)) > RATE / 2, 30_000, 20);
}

for (const kind of serverKinds.filter(({ name }) => name === "MariaDB 10.11" || name === "MySQL 9.7"))
  test(`a table that takes another's place ends at the consumer as it is, whatever is killed: ${kind.name}`, async () => {
    const random = new Random(runSeed());
    const stack = await Stack.start({
      kind,
      settings: { SNAPSHOT_MODE: "initial", SNAPSHOT_RATE_MAX: String(RATE) },
    });
    let consumer: ConsumerProcess | null = null;
    try {
      await fill(stack);
      consumer = await ConsumerProcess.start(stack.broker.redis);
      // Its rows are being read when another takes its place, and again when the agent is killed.
      const first = await OnlineChange.begin(stack, "note_1");
      await stack.agent.start();
      await untilSomeRead(stack);
      await change(stack, 1);
      await first.copy(ROWS / 2);
      await change(stack, 2);
      await first.copy(1_000_000);
      await change(stack, 3);
      // By hand it can be a table of quite other rows.
      await stack.database.query("DELETE FROM _sales_order_new WHERE entity_id % 7 = 0");
      assert.ok((await reads(stack)) > 0, "rows of the old table are still being read");
      await first.swap();
      await change(stack, 4);
      const isTold = async () => stack.agent.log().includes("other rows can stand in a table now");
      await stack.agent.until("the statement was read", isTold, 30_000, 20);
      await untilSomeRead(stack);
      await stack.agent.kill();
      await change(stack, 5);
      await stack.agent.start(faster);
      await stack.untilAllRead();
      await stack.assertEqual(consumer);

      // And killed about when the statement itself is captured.
      for (let round = 6; round < 8; round += 1) {
        const again = await OnlineChange.begin(stack, `note_${round}`);
        await again.copy(1_000_000);
        await (round === 6 ? again.swap() : again.dropAndSwap());
        await sleep(random.int(0, 60));
        await stack.agent.kill();
        await change(stack, round);
        await stack.agent.start(faster);
      }
      await stack.untilAllRead();
      await stack.assertEqual(consumer);
    } finally {
      await consumer?.stop();
      await stack.stop();
    }
  });
