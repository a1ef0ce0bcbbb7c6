import assert from "node:assert/strict";
import { test } from "node:test";
import { writeRandomly } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { Stack } from "./stack.ts";

const piledUp = 20_000;

test(`with daprd and Redis cut off ${piledUp} events pile up, and drain by themselves when both are back`, async () => {
  const random = new Random(runSeed());
  const stack = await Stack.start();
  const write = (transactions: number, largeRows: number, label: number) =>
    writeRandomly({
      connect: () => stack.mariadb.connection({ database: stack.identity.database }),
      database: stack.identity.database,
      prefix: "",
      random: random.fork(label),
      connections: 3,
      transactions,
      largeRows,
    });
  try {
    await stack.agent.start();
    await stack.untilReading();
    await write(100, 0, 1);
    // Cut while events are under way: some were stored and never answered for.
    const during = write(400, 15_000, 2);
    await stack.broker.cutOff();
    await during;
    await stack.mariadb.query(
      `INSERT IGNORE INTO magento_db.catalog_product_entity (entity_id, sku) SELECT 50000 + seq, CONCAT('o-', seq) FROM seq_1_to_9000`,
    );
    await stack.untilSpooled(piledUp, 120_000);
    await stack.agent.until(
      "health says that Dapr takes nothing",
      async () => JSON.parse((await stack.agent.health()) ?? "{}").checks?.dapr?.status === "unhealthy",
      30_000,
    );
    assert.ok(stack.agent.running());
    // A restart in the middle of the outage changes nothing about it.
    await stack.agent.kill();
    await stack.agent.start();
    await stack.untilSpooled(piledUp, 60_000);
    await stack.broker.reconnect();
    await write(100, 0, 3);
    await stack.drain();
    const proof = await stack.prove(random);
    console.log(`${proof.events} deliveries of ${proof.distinct} events`);
    assert.ok(proof.distinct > piledUp);
  } finally {
    await stack.stop();
  }
});
