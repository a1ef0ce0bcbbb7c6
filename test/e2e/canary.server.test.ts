import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { allEntries, controlTopic, deadLetterTopic } from "../oracle/history.ts";
import { entities } from "../oracle/entities.ts";
import { serverKinds } from "../servers/matrix.ts";
import { Stack } from "./stack.ts";

const canary = "CANARYx7Qw9secret";

/** Secret columns of the followed tables, with the value that carries the canary. */
const followed: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  customer_entity: {
    password_hash: `'${canary}-hash'`,
    rp_token: `'${canary}-token'`,
    confirmation: `'${canary}-key'`,
    rp_token_created_at: "'2001-02-03 04:05:06'",
    failures_num: "-31234",
    first_failure: "'2002-03-04 05:06:07'",
    lock_expires: "'2003-04-05 06:07:08'",
    session_cutoff: "'2004-05-06 07:08:09'",
  },
  sales_order: { protect_code: `'${canary}-protect'` },
};

/** The same secrets in the forms that a careless encoder could give them. */
const traces: readonly string[] = [
  canary,
  Buffer.from(canary).toString("base64").slice(0, 20),
  Buffer.from(canary).toString("hex"),
  "2001-02-03",
  "2002-03-04",
  "2003-04-05",
  "2004-05-06",
];

function assignments(columns: Readonly<Record<string, string>>, suffix: string): string {
  return Object.entries(columns)
    .map(([name, literal]) => `${name} = ${literal.replace(canary, `${canary}${suffix}`)}`)
    .join(", ");
}

async function spreadSecrets(stack: Stack): Promise<void> {
  const run = (sql: string) => stack.database.query(sql);
  await run("USE magento_db; SET SESSION sql_mode = ''");
  const customer = followed["customer_entity"] ?? {};
  const order = followed["sales_order"] ?? {};
  for (let row = 1; row <= 30; row += 1) {
    await run(
      `INSERT INTO customer_entity SET entity_id = ${row}, email = 'c${row}@example.com', ${assignments(customer, "a")}`,
    );
    await run(
      `INSERT INTO sales_order SET entity_id = ${row}, increment_id = '${row}', ${assignments(order, "a")}`,
    );
  }
  // Alone (no event), beside a mapped field (an event with before and changed), with a new key, and away.
  await run(`UPDATE customer_entity SET ${assignments(customer, "b")}, failures_num = -31235`);
  await run(`UPDATE sales_order SET ${assignments(order, "b")}`);
  await run(`UPDATE customer_entity SET ${assignments(customer, "c")}, firstname = 'Seen'`);
  await run(`UPDATE sales_order SET ${assignments(order, "c")}, status = 'seen'`);
  await run("UPDATE customer_entity SET entity_id = entity_id + 1000 WHERE entity_id BETWEEN 1 AND 5");
  await run("DELETE FROM customer_entity WHERE entity_id BETWEEN 6 AND 10");
  await run("DELETE FROM sales_order WHERE entity_id BETWEEN 6 AND 10");
  // Tables that hold nothing but secrets, which nobody may follow.
  await run(
    `CREATE TABLE IF NOT EXISTS admin_user (user_id INT PRIMARY KEY, password VARCHAR(255), rp_token TEXT);
     CREATE TABLE IF NOT EXISTS core_config_data (config_id INT PRIMARY KEY, path VARCHAR(255), value TEXT);
     INSERT INTO admin_user VALUES (1, '${canary}', '${canary}');
     INSERT INTO core_config_data VALUES (1, 'payment/secret', '${canary}');
     UPDATE admin_user SET password = '${canary}2';
     INSERT INTO sales_order_payment SET parent_id = 1, cc_number_enc = '${canary}', additional_information = '${canary}';
     DELETE FROM admin_user`,
  );
}

/** A number stands alone, as JSON has it. Within hexadecimal ids the same five digits come by chance. */
const numberTrace = /(?<![0-9A-Za-z])-31234(?![0-9A-Za-z])/;

function assertClean(where: string, text: string): void {
  for (const trace of traces) assert.ok(!text.includes(trace), `${where} holds the secret (as ${trace})`);
  assert.ok(!numberTrace.test(text), `${where} holds the secret (as a number)`);
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function assertFilesClean(directory: string): number {
  const files = filesBelow(directory);
  for (const file of files) assertClean(file, readFileSync(file, "latin1"));
  return files.length;
}

async function assertBrokerClean(stack: Stack): Promise<number> {
  let entries = 0;
  for (const topic of [...entities.map((spec) => spec.topic), controlTopic, deadLetterTopic]) {
    for await (const entry of allEntries(stack.broker.redis, topic)) {
      entries += 1;
      assertClean(`${topic} ${entry.id}`, JSON.stringify(entry.fields));
    }
  }
  return entries;
}

for (const kind of serverKinds)
  test(`a secret column's value is never on the wire, on disk, in the log, in metrics or in status, on ${kind.name}`, async () => {
    const stack = await Stack.start({ kind, settings: { LOG_LEVEL: "debug" } });
    try {
      await stack.agent.start();
      await stack.untilReading();
      await spreadSecrets(stack);
      await stack.drain();
      // A second batch stays in the spool, so that the disk is looked at with events on it.
      await stack.broker.cutOff();
      await stack.database.query(
        `UPDATE magento_db.customer_entity SET password_hash = '${canary}z', lastname = 'Spooled' WHERE entity_id < 100`,
      );
      await stack.untilSpooled(20, 30_000);
      assertClean("/metrics", (await stack.agent.metrics()) ?? "");
      assertClean("/health", (await stack.agent.health()) ?? "");
      const status = await stack.agent.command("status", "--json");
      assert.match(status.output, /magento-edge-agent\/status\/1/);
      assertClean("status", status.output);
      assertClean("check", (await stack.agent.command("check")).output);
      assert.ok(assertFilesClean(stack.agent.stateDir) > 2);
      await stack.broker.reconnect();
      await stack.drain();
      assertFilesClean(stack.agent.stateDir);
      assert.ok((await assertBrokerClean(stack)) > 100);
      assertClean("the log", stack.agent.log());
    } finally {
      await stack.stop();
    }
  });
