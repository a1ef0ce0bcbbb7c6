/** Damage of a running agent's spool, on the whole road: found, named, healed, equality again. */
import assert from "node:assert/strict";
import { cp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { entriesOf, levelDatabase } from "../../agent/spool/database.ts";
import { parseQueueKey, queueRoom } from "../../agent/spool/keys.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { type ServerKind, serverKinds, usualKind } from "../servers/matrix.ts";
import { numbersSql } from "../servers/numbers.ts";
import { tamper } from "../spool/fixtures.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

/** Flips a bit in every third file of the kind, somewhere behind its head. */
async function flipIn(directory: string, pattern: RegExp, random: Random): Promise<void> {
  const names = (await readdir(directory)).filter((name) => pattern.test(name)).sort();
  assert.ok(names.length > 0, `${pattern} in ${directory}`);
  for (const [index, name] of names.entries()) {
    if (index % 3 !== 0) continue;
    const path = join(directory, name);
    const bytes = await readFile(path);
    const at = random.int(Math.floor(bytes.length / 3), bytes.length - 100);
    bytes[at] = (bytes[at] ?? 0) ^ 4;
    await writeFile(path, bytes);
  }
}

async function compacted(directory: string): Promise<void> {
  const database = levelDatabase(directory, { createIfMissing: false });
  await database.open();
  await database.compactRange(Buffer.from([0]), Buffer.from([255]));
  await database.close();
}

/** What is read again comes from the server; what is damaged does not: so the others get two of them. */
const everywhere: readonly string[] = ["bits of its tables", "an emptied database"];

for (const kind of serverKinds) {
  if (kind !== usualKind && !kind.hasGtids) continue;
  test(`a spool that is damaged again and again is healed each time, and loses nothing, on ${kind.name}`, () =>
    survivesDamage(kind, (what) => kind === usualKind || everywhere.includes(what)));
}

async function survivesDamage(kind: ServerKind, isWanted: (what: string) => boolean): Promise<void> {
  const random = new Random(runSeed());
  const stack = await Stack.start({ kind });
  const spool = join(stack.agent.stateDir, "spool");
  let made = 0;
  /** Eighty transactions on two tables; each entity changes several times. */
  const write = async (): Promise<void> => {
    await stack.database.query("USE magento_db; SET SESSION sql_mode = ''");
    for (let count = 0; count < 80; count += 1) {
      made += 1;
      await stack.database.query(
        `START TRANSACTION;
         INSERT INTO sales_order (entity_id, status, shipping_description)
           SELECT 500000 + ${made} * 10 + seq, 'new', TO_BASE64(RANDOM_BYTES(150)) FROM ${numbersSql(0, 9)};
         UPDATE sales_order SET status = 'state-${made}' WHERE entity_id % 37 = ${made % 37};
         INSERT INTO customer_entity (entity_id, email, firstname)
           VALUES (500000 + ${made % 50}, '${made}@example.com', TO_BASE64(RANDOM_BYTES(150)))
           ON DUPLICATE KEY UPDATE email = VALUES(email), firstname = VALUES(firstname);
         COMMIT`,
      );
    }
  };
  const damages: ReadonlyArray<readonly [string, () => Promise<void>]> = [
    ["bits of its log", () => flipIn(spool, /\.log$/, random)],
    [
      "bits of its tables",
      async () => {
        await compacted(spool);
        await flipIn(spool, /\.ldb$/, random);
      },
    ],
    [
      "a missing MANIFEST",
      async () => {
        for (const name of await readdir(spool)) if (name.startsWith("MANIFEST")) await rm(join(spool, name));
      },
    ],
    [
      "a missing table",
      async () => {
        await compacted(spool);
        const names = (await readdir(spool)).filter((name) => name.endsWith(".ldb"));
        await rm(join(spool, names[0] ?? ""));
      },
    ],
    ["an emptied database", () => rm(spool, { recursive: true })],
    [
      "an older copy put back",
      async () => {
        await rm(stack.agent.stateDir, { recursive: true });
        await cp(`${stack.agent.stateDir}-copy`, stack.agent.stateDir, { recursive: true });
      },
    ],
  ];
  try {
    await stack.agent.start();
    await stack.untilReading();
    await write();
    for (const [what, damage] of damages) {
      if (!isWanted(what)) continue;
      await stack.broker.cutOff();
      await write();
      await stack.untilSpooled(100, 30_000);
      if (what === "an emptied database") {
        await stack.agent.kill();
        await cp(stack.agent.stateDir, `${stack.agent.stateDir}-copy`, { recursive: true });
      }
      assert.ok((await stat(spool)).isDirectory());
      await stack.agent.kill();
      await damage();
      await stack.agent.start();
      await stack.broker.reconnect();
      await stack.drain();
      const proof = await stack.prove(random);
      console.log(`${what}: ${proof.events} deliveries of ${proof.distinct} events`);
      assert.equal(await stack.agent.metric("edge_agent_spool_damaged_queues"), 0);
    }
  } finally {
    await rm(`${stack.agent.stateDir}-copy`, { recursive: true, force: true });
    await stack.stop();
  }
}

/** Flips a bit in the live records of every queue. */
async function flipRecords(stateDir: string): Promise<number> {
  let flipped = 0;
  await tamper(stateDir, async (database) => {
    const batch = database.batch();
    for await (const [key, value] of entriesOf(database, queueRoom)) {
      if (parseQueueKey(key)?.lane !== "live" || value.length < 200) continue;
      value[150] = (value[150] ?? 0) ^ 4;
      batch.put(key, value);
      flipped += 1;
    }
    await batch.write({ sync: true });
  });
  return flipped;
}

test("what no binlog brings again is read from the tables, whatever is killed behind the gap event", async () => {
  const random = new Random(runSeed());
  const stack = await Stack.start({ settings: { SNAPSHOT_MODE: "initial" } });
  let consumer: ConsumerProcess | null = null;
  try {
    const { database } = stack;
    await database.query(
      `INSERT INTO customer_entity (entity_id, email) SELECT seq, 'before' FROM ${numbersSql(1, 300)}`,
    );
    await stack.agent.start();
    await stack.untilReading();
    await stack.untilRowsRead();
    await stack.untilEmpty();
    await stack.broker.cutOff();
    for (let key = 1; key < 300; key += 3) {
      await database.query(`UPDATE customer_entity SET email = 'lost' WHERE entity_id = ${key}`);
      await database.query(`DELETE FROM customer_entity WHERE entity_id = ${key + 1}`);
      await database.query(`INSERT INTO customer_entity (entity_id, email) VALUES (${key + 1_000}, 'lost')`);
    }
    await database.query("FLUSH BINARY LOGS; UPDATE sales_order SET status = 'x' WHERE entity_id = 0");
    const [file = ""] = (await stack.databaseEnd()).split(":");
    await stack.agent.until(
      "the agent reads the new file",
      async () => (await stack.agent.command("status")).output.includes(`${file}:`),
      30_000,
    );
    await stack.agent.kill();
    assert.ok((await flipRecords(stack.agent.stateDir)) > 0);
    await stack.purgeBinlogs();
    for (let kill = 0; kill < 4; kill += 1) {
      await stack.agent.start();
      await sleep(random.int(0, 400));
      await stack.agent.kill();
    }
    await stack.agent.start();
    await stack.untilReading();
    await stack.broker.reconnect();
    await stack.agent.until(
      "the gap is told",
      async () => /the binlog no longer has them; a gap event says so/.test(stack.agent.log()),
      30_000,
    );
    await stack.untilRowsRead();
    consumer = await ConsumerProcess.start(stack.broker.redis);
    await stack.assertEqual(consumer);
    assert.match((await stack.agent.command("status")).output, /rows {7}all were read/);
  } finally {
    await consumer?.stop();
    await stack.stop();
  }
});
