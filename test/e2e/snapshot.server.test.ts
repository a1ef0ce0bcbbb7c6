import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { DeliveredEvent } from "../oracle/history.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

function writing(stack: Stack, random: Random, transactions: number, signal?: AbortSignal) {
  const lasting = signal === undefined ? { largeRows: 2_000 } : { signal };
  return stack.write({ random, connections: 4, transactions, ...lasting });
}

describe("rows that were there before the agent", () => {
  for (const kind of serverKinds)
    test(`reach the consumer beside heavy random writes, on ${kind.name}`, async () => {
      const random = new Random(runSeed());
      const stack = await Stack.start({
        kind,
        database: { args: ["--max-binlog-size=64K"] },
        settings: { SNAPSHOT_MODE: "initial" },
      });
      let consumer: ConsumerProcess | null = null;
      try {
        await writing(stack, random, 300);
        const ending = new AbortController();
        const load = writing(stack, random.fork(1), 1_000_000, ending.signal);
        load.catch(() => undefined);
        await stack.agent.start();
        consumer = await ConsumerProcess.start(stack.broker.redis);
        await stack.untilReading();
        await stack.untilRowsRead();
        ending.abort();
        await load;
        await stack.assertEqual(consumer);
        await stack.prove(random);
      } finally {
        await consumer?.stop();
        await stack.stop();
      }
    });
});

describe("what the stream never said", () => {
  test("deletes and changes without a binlog are healed by a resync", async () => {
    const stack = await Stack.start({ settings: { SNAPSHOT_MODE: "initial" } });
    let consumer: ConsumerProcess | null = null;
    try {
      await stack.database.query(
        "INSERT INTO customer_entity (entity_id, email) VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d')",
      );
      await stack.agent.start();
      consumer = await ConsumerProcess.start(stack.broker.redis);
      await stack.untilReading();
      await stack.untilRowsRead();
      await stack.assertEqual(consumer);
      await stack.database.query(
        "SET SESSION sql_log_bin = 0; DELETE FROM customer_entity WHERE entity_id IN (2, 4); UPDATE customer_entity SET email = 'x' WHERE entity_id = 1; SET SESSION sql_log_bin = 1",
      );
      await assert.rejects(stack.assertEqual(consumer));
      const answers = [
        await stack.agent.command("resync", "customer", "--key-range=1-2"),
        await stack.agent.command("resync", "customer", "--keys=4"),
      ];
      for (const { code, output } of answers) assert.equal(code, 0, output);
      await stack.untilRowsRead();
      await stack.assertEqual(consumer);
    } finally {
      await consumer?.stop();
      await stack.stop();
    }
  });

  test("rows deleted while the binlog was purged are gone after the automatic snapshot", async () => {
    const stack = await Stack.start({ kind: usualKind, settings: { SNAPSHOT_MODE: "initial" } });
    let consumer: ConsumerProcess | null = null;
    try {
      await stack.database.query(
        "INSERT INTO customer_entity (entity_id, email) VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d')",
      );
      await stack.agent.start();
      consumer = await ConsumerProcess.start(stack.broker.redis);
      await stack.untilReading();
      await stack.untilRowsRead();
      await stack.assertEqual(consumer);
      await stack.agent.stop();
      await stack.database.query(
        "DELETE FROM customer_entity WHERE entity_id = 3; FLUSH BINARY LOGS; UPDATE customer_entity SET email = 'y' WHERE entity_id = 2; FLUSH BINARY LOGS",
      );
      await stack.purgeBinlogs();
      await stack.agent.start();
      await stack.untilReading();
      await stack.untilRowsRead();
      await stack.assertEqual(consumer);
      assert.match(stack.agent.log(), /a new epoch begins, and all rows are read again/);
    } finally {
      await consumer?.stop();
      await stack.stop();
    }
  });
});

describe("reading again", () => {
  test("a replay sends what the binlog still has with the same ids and sequences, of one entity alone", async () => {
    const stack = await Stack.start();
    try {
      await stack.agent.start();
      await stack.untilReading();
      await stack.database.query(
        `FLUSH BINARY LOGS; INSERT INTO customer_entity (entity_id, email) VALUES (1,'a'),(2,'b');
         UPDATE customer_entity SET email = 'c' WHERE entity_id = 1; DELETE FROM customer_entity WHERE entity_id = 2`,
      );
      await stack.drain();
      const withoutCapture = (event: DeliveredEvent): unknown => {
        const { synced_at: _capturedAt, ...data } = event.data;
        return { ...event.event, data };
      };
      const sent = (await stack.history()).filter(({ data }) => data["entity"] === "customer");
      assert.equal(sent.length, 5);
      // The broker loses everything.
      await stack.broker.redis.command("FLUSHALL");
      const { code, output } = await stack.agent.command("replay", "--since=1h", "--entity=customer");
      assert.equal(code, 0, output);
      let again: DeliveredEvent[] = [];
      await stack.agent.until(
        "everything came again",
        async () => (again = await stack.history()).length >= sent.length,
        30_000,
      );
      // Requests are under way side by side: between entities there is no order.
      const inOrder = (events: DeliveredEvent[]): unknown[] =>
        events
          .toSorted((one, two) => (String(one.event["id"]) < String(two.event["id"]) ? -1 : 1))
          .map(withoutCapture);
      assert.deepEqual(inOrder(again), inOrder(sent));
      // The files from before the agent are of no epoch of its own.
      assert.match(
        output,
        /not from \S+ to \S+: the present epoch began at .* when \S+ \(begun .*; for that time resync/,
      );
      const refused = await stack.agent.command("replay", "--since=1h", "--entity=nobody");
      assert.match(refused.output, /the mapping has no entity "nobody"/);
      // What comes afterwards is of all entities.
      await stack.drain();
    } finally {
      await stack.stop();
    }
  });

  test("a resync to another topic fills that one alone, with its range", async () => {
    // One that the gateway may publish to, and that nothing else comes on here.
    const other = "migration.category.changed";
    const stack = await Stack.start();
    try {
      await stack.database.query("INSERT INTO customer_entity (entity_id, email) VALUES (1,'a'),(2,'b')");
      await stack.agent.start();
      await stack.untilReading();
      const { code, output } = await stack.agent.command(
        "resync",
        "customer",
        "--all",
        `--to-topic=${other}`,
      );
      assert.equal(code, 0, output);
      await stack.untilRowsRead();
      await stack.agent.until(
        "the topic is filled",
        async () => (await stack.broker.redis.streamLength(other)) >= 5,
        30_000,
      );
      const entries = await stack.broker.redis.streamEntries(other, { from: "-", count: 100 });
      const types = entries.map(({ fields }) => String(JSON.parse(fields["data"] ?? "{}").type));
      assert.deepEqual(types, [
        "magento.snapshot.started",
        "magento.customer.read",
        "magento.customer.read",
        "magento.range",
        "magento.snapshot.completed",
      ]);
      assert.equal(await stack.broker.redis.streamLength("migration.customer.changed"), 0);
    } finally {
      await stack.stop();
    }
  });

  test("status --cutover says what does not hold yet, and that all of it does", async () => {
    const stack = await Stack.start({ settings: { SNAPSHOT_MODE: "initial" } });
    try {
      await stack.agent.start();
      await stack.untilReading();
      await stack.untilRowsRead();
      await stack.drain();
      await stack.agent.until(
        "everything holds",
        async () => (await stack.agent.command("status", "--cutover")).code === 0,
        30_000,
        500,
      );
      assert.equal((await stack.agent.command("snapshot", "pause")).code, 0);
      assert.equal((await stack.agent.command("resync", "customer", "--all")).code, 0);
      // What it said it took outlives it.
      await stack.agent.kill();
      await stack.agent.start();
      await stack.untilReading();
      const paused = await stack.agent.command("status", "--cutover");
      assert.equal(paused.code, 2);
      assert.match(paused.output, /NO {2}all rows were read .*customer_entity \(resync\).*paused/);
      assert.equal((await stack.agent.command("snapshot", "resume")).code, 0);
      await stack.untilRowsRead();
    } finally {
      await stack.stop();
    }
  });
});
