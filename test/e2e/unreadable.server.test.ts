/** What the stream alone shows to be unreadable, on the whole road: capture stops and says why, and an operator goes on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { describeComparison } from "../oracle/compare.ts";
import { serverKinds } from "../servers/matrix.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

const cases = [
  {
    kind: "MariaDB 10.11",
    session: "binlog_format=STATEMENT",
    back: "binlog_format=ROW",
    says: /SOURCE_UNREADABLE: binlog\.\d+:\d+: .*INSERT in statement format/,
    mend: /binlog_format=ROW/,
  },
  {
    kind: "MySQL 9.7",
    session: "binlog_transaction_compression=ON",
    back: "binlog_transaction_compression=OFF",
    says: /SOURCE_UNREADABLE: binlog\.\d+:\d+: a transaction is compressed/,
    mend: /binlog_transaction_compression=OFF/,
  },
];

const customer = (id: number, name: string): string =>
  `INSERT INTO customer_entity SET entity_id = ${id}, email = '${id}@example.com', lastname = '${name}'`;

for (const { kind: name, session, back, says, mend } of cases)
  test(`a session with ${session} on ${name} stops capture and nothing else; position restart goes on, and nothing is lost`, async () => {
    const kind = serverKinds.find((one) => one.name === name);
    const stack = await Stack.start({
      ...(kind === undefined ? {} : { kind }),
      settings: { SNAPSHOT_MODE: "initial" },
    });
    const { agent, database } = stack;
    let consumer: ConsumerProcess | null = null;
    try {
      await database.query(
        `USE magento_db; SET SESSION sql_mode = ''; ${customer(1, "kept")}; ${customer(2, "kept")}`,
      );
      await agent.start();
      consumer = await ConsumerProcess.start(stack.broker.redis);
      await stack.untilReading();
      await stack.drain();
      await stack.broker.cutOff();
      await database.query(customer(3, "spooled"));
      await database.query(
        `SET SESSION ${session}; START TRANSACTION; ${customer(4, "unread")}; DELETE FROM customer_entity WHERE entity_id = 2;
         COMMIT; SET SESSION ${back}`,
      );
      await database.query(customer(5, "behind"));
      await agent.until("health names it", async () => says.test((await agent.health()) ?? ""), 30_000);
      assert.equal(await agent.metric("edge_agent_capture_halted", 'code="SOURCE_UNREADABLE"'), 1);
      const { output } = await agent.command("status");
      assert.match(output, mend);
      assert.match(output, /to do .*position restart --from=current/);

      await stack.broker.reconnect();
      await stack.untilEmpty();
      const names = (await stack.history()).map(({ data }) => data["last_name"]);
      assert.ok(names.includes("spooled"));
      assert.ok(!names.includes("unread") && !names.includes("behind"));

      const restarted = await agent.command("position", "restart", "--from=current");
      assert.equal(restarted.code, 0, restarted.output);
      await stack.untilReading();
      await agent.until(
        "all rows were read",
        async () => (await agent.metric("edge_agent_snapshot_jobs")) === 0,
        60_000,
      );
      await stack.untilEmpty();
      await stack.drain();
      await consumer.caughtUp(60_000);
      const replica = consumer.replica();
      const compared = await stack.compare(replica);
      replica.close();
      assert.ok(compared.equal, describeComparison(compared));
      assert.match(agent.log(), /capture goes on/);
    } finally {
      await consumer?.stop();
      await stack.stop();
    }
  });
