import assert from "node:assert/strict";
import { test } from "node:test";
import { Stack } from "./stack.ts";

const gib = 1024 ** 3;

async function masterPosition(stack: Stack): Promise<{ file: string; position: number }> {
  const [row] = await stack.database.query("SHOW MASTER STATUS");
  return { file: String(row?.["File"]), position: Number(row?.["Position"]) };
}

interface StatusPosition {
  readonly file: string;
  readonly position: number;
}

async function agentPosition(stack: Stack): Promise<StatusPosition> {
  // With nobody at the endpoint the exit code says "degraded"; the position is what counts here.
  const { output } = await stack.agent.command("status", "--json");
  return JSON.parse(output).position;
}

async function untilAt(stack: Stack, wanted: StatusPosition): Promise<void> {
  await stack.agent.until(
    `the checkpoint stands at ${wanted.file}:${wanted.position}`,
    async () => {
      const { file, position } = await agentPosition(stack);
      return file === wanted.file && position === wanted.position;
    },
    1_200_000,
    2000,
  );
}

test("after one transaction of over 4 GiB the position is exact, and a restart goes on behind it", async () => {
  const stack = await Stack.start({
    brokerless: true,
    database: { args: ["--max-binlog-size=1G", "--max-binlog-cache-size=8G", "--binlog-cache-size=16M"] },
  });
  try {
    await stack.agent.start();
    await stack.untilReading();
    // Few rows of an unmapped megabyte each: much binlog, few events.
    const rows = 4400;
    await stack.database.query(
      `INSERT INTO magento_db.sales_order_item (item_id, order_id, sku, product_options)
       SELECT seq, 1, CONCAT('big-', seq), REPEAT('x', 1000000) FROM seq_1_to_${rows}`,
    );
    const after = await masterPosition(stack);
    const logs = await stack.database.query("SHOW BINARY LOGS");
    const largest = Math.max(...logs.map((row) => Number(row["File_size"])));
    assert.ok(largest > 4 * gib, `the largest binlog file has ${largest} bytes`);
    await untilAt(stack, after);
    assert.equal(await stack.agent.metric("edge_agent_spool_events"), rows);
    await stack.database.query(
      "INSERT INTO magento_db.catalog_product_entity (entity_id, sku) VALUES (1, 'next')",
    );
    await untilAt(stack, await masterPosition(stack));
    await stack.agent.kill();
    await stack.database.query(
      "INSERT INTO magento_db.catalog_product_entity (entity_id, sku) VALUES (2, 'later')",
    );
    await stack.agent.start();
    await untilAt(stack, await masterPosition(stack));
    assert.equal(await stack.agent.metric("edge_agent_spool_events"), rows + 2);
  } finally {
    await stack.stop();
  }
});
