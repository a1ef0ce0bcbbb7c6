/** Real poison, too much of it for the rule of storms: an operator says that it is, and the rest goes on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { checkHistory } from "../oracle/history.ts";
import { numbersSql } from "../servers/numbers.ts";
import { Stack } from "./stack.ts";

/** Double quotes take four bytes each on the wire, so that a TEXT column passes daprd's lowered limit. */
const LONG = `REPEAT('"', 60000)`;
const LIMIT = "--max-body-size=128Ki";

/** The magento_id of each event in quarantine. */
async function quarantined(stack: Stack): Promise<number[]> {
  const { output } = await stack.agent.command("quarantine", "ls", "--json");
  const list: { events: { magento_id: number }[] } = JSON.parse(output);
  return list.events.map(({ magento_id }) => magento_id);
}

test("5 % of real poison holds the topic until an operator releases it; the rest is delivered, and nothing is lost", async () => {
  const stack = await Stack.start({
    settings: { BATCH_SIZE: "50", QUARANTINE_MAX: "200" },
    broker: { daprdArgs: [LIMIT] },
  });
  try {
    await stack.agent.start();
    await stack.untilReading();
    const sql = (text: string) => stack.database.query(text);
    await sql("SET SESSION sql_mode = ''");
    await sql("SET SESSION foreign_key_checks = 0");
    await sql(
      `INSERT INTO magento_db.customer_address_entity (entity_id, parent_id, street) SELECT seq, 1, IF(seq % 20 = 0, ${LONG}, 'short') FROM ${numbersSql(1, 1000)}`,
    );
    const topic = "migration.address.changed";
    const health = async (): Promise<string> => (await stack.agent.health()) ?? "";
    await stack.agent.until(
      "the addresses are held",
      async () => (await health()).includes(`${topic}: STORM`),
      60_000,
    );
    assert.ok((await health()).includes(`topic release ${topic} --max=N`), "the way out is named");
    const told = await stack.agent.command("topic", "release", topic, "--max=100");
    assert.equal(told.code, 0, told.output);
    assert.match(told.output, /up to 100 refused events are given up/);
    await stack.drain();
    const poison = await quarantined(stack);
    const wanted = Array.from({ length: 50 }, (_, index) => 20 * (index + 1));
    assert.deepEqual(
      poison.toSorted((left, right) => left - right),
      wanted,
    );
    assert.equal(await stack.broker.redis.streamLength("migration.dlq"), 50);
    const delivered = new Set(
      (await stack.history())
        .filter(({ data }) => data["entity"] === "address")
        .map(({ data }) => Number(data["magento_id"])),
    );
    for (let id = 1; id <= 1000; id += 1) assert.equal(delivered.has(id), id % 20 !== 0, `address ${id}`);
    const report = checkHistory(await stack.history());
    assert.deepEqual(report.problems, []);
    assert.equal(await stack.agent.healthStatus(), 200);
  } finally {
    await stack.stop();
  }
});
