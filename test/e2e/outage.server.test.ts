import assert from "node:assert/strict";
import { test } from "node:test";
import { writeRandomly } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { numbersSql } from "../servers/numbers.ts";
import { Stack } from "./stack.ts";

for (const kind of serverKinds) {
  const piledUp = kind === usualKind ? 20_000 : 8_000;

  test(`with daprd and Redis cut off ${piledUp} events pile up, and drain by themselves when both are back, on ${kind.name}`, async () => {
    const random = new Random(runSeed());
    const stack = await Stack.start({ kind });
    const write = (transactions: number, largeRows: number, label: number) =>
      writeRandomly({
        connect: () => stack.database.connection({ database: stack.identity.database }),
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
      const during = write(kind === usualKind ? 400 : 100, kind === usualKind ? 15_000 : 5_000, 2);
      await stack.broker.cutOff();
      await during;
      await stack.database.query(
        `INSERT IGNORE INTO magento_db.catalog_product_entity (entity_id, sku) SELECT 50000 + seq, CONCAT('o-', seq) FROM ${numbersSql(1, 9000)}`,
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
}
