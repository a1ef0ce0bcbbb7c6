/** Statements behind which a table holds rows that no row event told of, and their kin behind which it holds none. */
import assert from "node:assert/strict";
import { chownSync, copyFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { numbersSql } from "../servers/numbers.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { childrenOfSource, readIndex } from "./index-on-disk.ts";
import { Stack } from "./stack.ts";

const told = "other rows can stand in a table now";
/** In these stand only rows of which the stream tells. */
const emptied: ReadonlySet<string> = new Set([
  "inventory_source_item",
  "salesrule_coupon",
  "sales_order_address",
  "sales_order_item",
]);
const columnsOf: Readonly<Record<string, string>> = {
  customer_entity: "(entity_id, email) SELECT seq, CONCAT('c', seq)",
  customer_address_entity: "(entity_id, parent_id) SELECT seq, seq % 10",
  catalog_product_entity: "(entity_id, sku) SELECT seq, CONCAT('SKU-', seq)",
  catalog_category_entity: "(entity_id, path) SELECT seq, CONCAT('1/', seq)",
  sales_order: "(entity_id, customer_id, status) SELECT seq, seq % 10, 'old'",
  sales_order_item: "(item_id, order_id) SELECT seq, seq % 10",
  sales_order_address: "(entity_id, parent_id) SELECT seq, seq % 10",
  inventory_source_item:
    "(source_item_id, source_code, sku, quantity) SELECT seq, 'default', CONCAT('SKU-', seq), seq",
  salesrule_coupon: "(coupon_id, rule_id, code) SELECT seq, seq, CONCAT('code-', seq)",
};

const rowsOf = (from: number, to: number, table: string, as = table): string =>
  `INSERT INTO ${as} ${columnsOf[table] ?? ""} FROM ${numbersSql(from, to)}`;

async function run(stack: Stack, statements: readonly string[]): Promise<void> {
  for (const sql of statements) await stack.database.query(sql);
}

/** Another server's file of the table takes the place of its own. */
async function importTablespace(stack: Stack): Promise<void> {
  const { database } = stack;
  const table = "customer_address_entity";
  await run(stack, [`CREATE TABLE other LIKE ${table}`, rowsOf(500, 540, table, "other")]);
  await database.query("FLUSH TABLES other FOR EXPORT");
  const fileOf = (name: string, suffix: string): string =>
    join(database.datadir, stack.identity.database, `${name}.${suffix}`);
  for (const suffix of ["ibd", "cfg"]) copyFileSync(fileOf("other", suffix), fileOf("kept", suffix));
  await database.query("UNLOCK TABLES");
  await database.query(`ALTER TABLE ${table} DISCARD TABLESPACE`);
  const { uid, gid } = statSync(fileOf("other", "ibd"));
  for (const suffix of ["ibd", "cfg"]) {
    copyFileSync(fileOf("kept", suffix), fileOf(table, suffix));
    chownSync(fileOf(table, suffix), uid, gid);
    rmSync(fileOf("kept", suffix));
  }
  await database.query(`ALTER TABLE ${table} IMPORT TABLESPACE`);
}

const partitions =
  "PARTITION BY RANGE (entity_id) (PARTITION p0 VALUES LESS THAN (50), PARTITION p1 VALUES LESS THAN MAXVALUE)";

for (const kind of serverKinds.filter(({ name }) => name === "MariaDB 10.11" || name === "MySQL 9.7"))
  test(`a table is at the consumer as such a statement left it, on ${kind.name}`, async () => {
    const stack = await Stack.start({ kind, settings: { SNAPSHOT_MODE: "initial" } });
    let consumer: ConsumerProcess | null = null;
    try {
      await stack.database.query("SET SESSION sql_mode = ''");
      for (const table of Object.keys(columnsOf)) await stack.database.query(rowsOf(1, 99, table));
      await stack.agent.start();
      consumer = await ConsumerProcess.start(stack.broker.redis);
      await stack.untilReading();
      await stack.untilRowsRead();

      // Renamed away, and another comes some time later.
      await run(stack, [
        "CREATE TABLE copy LIKE sales_order",
        "INSERT INTO copy SELECT * FROM sales_order WHERE entity_id % 3 <> 0",
        "UPDATE copy SET status = 'copied' WHERE entity_id % 5 = 0",
        "RENAME TABLE sales_order TO old_orders",
        "UPDATE sales_order_item SET qty_ordered = 7 WHERE item_id < 5",
        "ALTER TABLE copy RENAME TO sales_order",
        "DELETE FROM sales_order WHERE entity_id = 4",
      ]);
      await run(stack, [
        `ALTER TABLE catalog_product_entity ${partitions}`,
        "UPDATE catalog_product_entity SET sku = 'first' WHERE entity_id = 70",
        "ALTER TABLE catalog_product_entity DROP PARTITION p0",
        `ALTER TABLE catalog_category_entity ${partitions}`,
        "CREATE TABLE incoming LIKE catalog_category_entity",
        "ALTER TABLE incoming REMOVE PARTITIONING",
        rowsOf(1, 20, "catalog_category_entity", "incoming"),
        "ALTER TABLE catalog_category_entity EXCHANGE PARTITION p0 WITH TABLE incoming",
        `ALTER TABLE customer_entity DROP INDEX CUSTOMER_ENTITY_EMAIL_WEBSITE_ID`,
        `ALTER TABLE customer_entity ${partitions}`,
        "ALTER TABLE customer_entity TRUNCATE PARTITION p1",
      ]);
      if (kind.flavour === "mariadb")
        await run(stack, [
          "ALTER TABLE customer_entity CONVERT PARTITION p1 TO TABLE converted",
          rowsOf(60, 65, "customer_entity", "converted"),
          "ALTER TABLE customer_entity CONVERT TABLE converted TO PARTITION p1 VALUES LESS THAN MAXVALUE",
          "ALTER IGNORE TABLE sales_order ADD UNIQUE (customer_id)",
        ]);
      await importTablespace(stack);
      await run(stack, [
        "CREATE TABLE kept AS SELECT * FROM sales_order_address WHERE entity_id < 30",
        "DROP TABLE sales_order_address",
        "CREATE TABLE sales_order_address (PRIMARY KEY (entity_id)) SELECT * FROM kept",
        "CREATE TABLE like_items LIKE sales_order_item",
        "DROP TABLE sales_order_item",
        "CREATE TABLE sales_order_item LIKE like_items",
        rowsOf(90, 120, "sales_order_item"),
        "RENAME TABLE salesrule_coupon TO old_coupons",
        "CREATE TABLE salesrule_coupon LIKE old_coupons",
        rowsOf(95, 110, "salesrule_coupon"),
        "TRUNCATE inventory_source_item",
        rowsOf(20, 30, "inventory_source_item"),
      ]);
      await stack.untilAllRead();
      await stack.assertEqual(consumer);
      const again = stack.agent
        .log()
        .split("\n")
        .filter((line) => line.includes(told));
      for (const table of Object.keys(columnsOf)) {
        const isRead = again.some((line) => line.includes(`table=${table} `));
        assert.equal(isRead, !emptied.has(table), `${table} is read again`);
      }
    } finally {
      await consumer?.stop();
      await stack.stop();
    }
  });

const readings = (stack: Stack): number =>
  stack.agent
    .log()
    .split("\n")
    .filter((line) => line.includes("rows are being read") && line.includes("table=sales_order ")).length;

for (const kind of serverKinds.filter(({ name }) => name === "MariaDB 10.11" || name === "MySQL 9.7"))
  test(`a table is read again behind an ALTER TABLE that changes values, and behind no other, on ${kind.name}`, async () => {
    const random = new Random(runSeed());
    const stack = await Stack.start({ kind, settings: { SNAPSHOT_MODE: "initial" } });
    let consumer: ConsumerProcess | null = null;
    try {
      await run(stack, [
        "SET SESSION sql_mode = ''",
        rowsOf(1, 99, "sales_order"),
        "UPDATE sales_order SET grand_total = entity_id + 0.75, subtotal = 1.25, status = 'processing', state = IF(entity_id % 2, CONCAT('x', CHAR(0xC582 USING utf8mb4)), NULL)",
      ]);
      await stack.agent.start();
      consumer = await ConsumerProcess.start(stack.broker.redis);
      await stack.untilReading();
      await stack.untilRowsRead();
      assert.equal(readings(stack), 1);

      const [column] = await stack.database.query(
        "SELECT COLUMN_TYPE AS type FROM information_schema.COLUMNS WHERE TABLE_NAME = 'sales_order' AND COLUMN_NAME = 'grand_total'",
      );
      for (const clauses of [
        "ADD INDEX by_status (status)",
        "COMMENT = 'orders'",
        "ADD COLUMN note INT NOT NULL DEFAULT 7",
        `MODIFY grand_total ${String(column?.["type"])} COMMENT 'the same'`,
        "DROP COLUMN note, DROP INDEX by_status",
      ]) {
        await stack.database.query(`ALTER TABLE sales_order ${clauses}`);
        await stack.untilAllRead();
      }
      await run(stack, ["ALTER TABLE sales_order ADD c INT", "ALTER TABLE sales_order ADD INDEX c (c)"]);
      await stack.untilAllRead();
      assert.equal(readings(stack), 1, "nothing of it changed a value");

      const rounds = [
        ["MODIFY grand_total DECIMAL(12,0), MODIFY status VARCHAR(3)"],
        // The columns end as they were.
        ["MODIFY subtotal DECIMAL(12,0)", `MODIFY subtotal ${String(column?.["type"])}`],
        ["DROP COLUMN status, ADD COLUMN status VARCHAR(3) DEFAULT 'new'"],
        // What stands there is not in that character set, and what was NULL is a value.
        ["CONVERT TO CHARACTER SET latin1", "MODIFY state VARCHAR(32) CHARACTER SET latin1 NOT NULL"],
      ];
      for (const [index, round] of rounds.entries()) {
        for (const clauses of round) await stack.database.query(`ALTER TABLE sales_order ${clauses}`);
        await stack.database.query(`UPDATE sales_order SET subtotal = 3 WHERE entity_id = ${index + 5}`);
        if (index % 2 === 0) {
          await sleep(random.int(0, 60));
          await stack.agent.kill();
          await stack.agent.start();
        }
        await stack.untilAllRead();
        await stack.assertEqual(consumer);
      }
      assert.ok(readings(stack) > rounds.length, stack.agent.log());
    } finally {
      await consumer?.stop();
      await stack.stop();
    }
  });

test("with SNAPSHOT_MODE=never it is told, and status --cutover names the table until it was read", async () => {
  const stack = await Stack.start({ kind: usualKind });
  let consumer: ConsumerProcess | null = null;
  try {
    await stack.agent.start();
    consumer = await ConsumerProcess.start(stack.broker.redis);
    await stack.untilReading();
    await run(stack, [rowsOf(1, 50, "sales_order"), "ALTER TABLE sales_order ADD INDEX by_status (status)"]);
    const isLogged = (words: string) => async () => stack.agent.log().includes(words);
    await stack.agent.until("it is warned", isLogged("how its columns were before is not known"), 30_000);
    const unharmed = await stack.agent.command("status", "--cutover");
    assert.doesNotMatch(unharmed.output, /not all were read: sales_order;/);
    await stack.database.query("ALTER TABLE sales_order MODIFY grand_total DECIMAL(12,0)");
    await stack.agent.until("it is told", isLogged("since it was altered, and nothing reads them"), 30_000);
    const harmed = await stack.agent.command("status", "--cutover");
    assert.match(harmed.output, /not all were read: sales_order;/);
    await run(stack, [
      "CREATE TABLE copy LIKE sales_order",
      rowsOf(20, 70, "sales_order", "copy"),
      "RENAME TABLE sales_order TO old_orders, copy TO sales_order",
    ]);
    await stack.agent.until("it is told", async () => stack.agent.log().includes(told), 30_000);
    await stack.agent.kill();
    await stack.agent.start();
    // The kill may have come before the statement was on disk.
    await stack.untilTaken();
    const before = await stack.agent.command("status", "--cutover");
    assert.equal(before.code, 2);
    assert.match(before.output, /NO {2}all rows were read +not all were read: sales_order;/);
    await assert.rejects(stack.assertEqual(consumer), /order 20: deleted in the replica/);
    assert.equal((await stack.agent.command("resync", "order", "--all")).code, 0);
    await stack.untilRowsRead();
    await stack.assertEqual(consumer);
    const after = await stack.agent.command("status", "--cutover");
    assert.match(after.output, /ok {2}all rows were read/);
    await stack.agent.until(
      "the index is complete",
      async () => (await stack.agent.metric("edge_agent_index_incomplete")) === 0,
      60_000,
    );
    await stack.agent.stop();
    const index = await readIndex(stack.agent.stateDir);
    for (const [id, children] of await childrenOfSource(stack))
      assert.deepEqual(index.children.get(id), children, `relation ${id}`);
  } finally {
    await consumer?.stop();
    await stack.stop();
  }
});
