/**
 * Events that are refused for their own content, on the real road: one of each kind among 10,000,
 * and a mapping that makes every event of an entity unacceptable.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { startDaprProxy, type DaprProxy, type ProxyAnswer } from "../faults/dapr-proxy.ts";
import { describeComparison } from "../oracle/compare.ts";
import { allEntries, checkHistory, parseDelivered, type DeliveredEvent } from "../oracle/history.ts";
import type { PublishRequest } from "../servers/dapr-stand-in.ts";
import { numbersSql } from "../servers/numbers.ts";
import { replicaOf, Stack, type StackOptions } from "./stack.ts";

const DLQ = "migration.dlq";
/** Double quotes take four bytes each on the wire, so that a TEXT column passes daprd's lowered limit. */
const LONG = `REPEAT('"', 60000)`;
const LIMIT = "--max-body-size=128Ki";

interface Road {
  readonly stack: Stack;
  readonly proxy: DaprProxy;
  stop(): Promise<void>;
}

async function startRoad(options: StackOptions): Promise<Road> {
  let proxy: DaprProxy | null = null;
  const stack = await Stack.start({
    ...options,
    wayToDapr: async (port) => {
      proxy = await startDaprProxy(`http://127.0.0.1:${port}`);
      return proxy.port;
    },
  });
  const made: DaprProxy | null = proxy;
  if (made === null) throw new Error("the proxy was not started");
  const there: DaprProxy = made;
  return {
    stack,
    proxy: there,
    stop: async () => {
      await stack.stop();
      await there.stop();
    },
  };
}

async function deadLettersOf(stack: Stack): Promise<DeliveredEvent[]> {
  const letters: DeliveredEvent[] = [];
  for await (const { id, fields } of allEntries(stack.broker.redis, DLQ)) {
    letters.push(parseDelivered(DLQ, id, fields["data"] ?? ""));
  }
  return letters;
}

interface Row {
  readonly id: string;
  readonly entity: string;
  readonly magento_id: number;
  readonly code: string;
  readonly attempts: number;
  readonly dead_letter_accepted: boolean;
  readonly newer_sequence: string | null;
}

async function quarantineOf(stack: Stack): Promise<readonly Row[]> {
  const { output } = await stack.agent.command("quarantine", "ls", "--json");
  return JSON.parse(output).events;
}

/** Refuses what holds one of the words, each in its way; everything else is daprd's business. */
function refuse({ topic, entries }: PublishRequest): ProxyAnswer | null {
  const idsWith = (word: string): string[] =>
    entries.filter(({ event }) => event.includes(word)).map(({ entryId }) => entryId);
  if (topic === DLQ) {
    // With the event in it and without.
    return idsWith('"magento_id":11,').length > 0 ? { kind: "answer", status: 413, body: "" } : null;
  }
  if (idsWith("POISON-BULK").length > 0 || idsWith("POISON-LETTER").length > 0) {
    return { kind: "answer", status: 400, body: '{"errorCode":"ERR_PUBSUB_EVENTS_SER","message":"m"}' };
  }
  const failedIds = idsWith("poison-entry@");
  if (failedIds.length === 0) return null;
  return { kind: "partial", failedIds, errorCode: "ERR_PUBSUB_CLOUD_EVENTS_SER" };
}

/** As `refuse`, and dead letters are forbidden altogether. */
function refuseWithoutLetters(publish: PublishRequest): ProxyAnswer | null {
  if (publish.topic !== DLQ) return refuse(publish);
  return { kind: "answer", status: 403, body: '{"errorCode":"ERR_PUBSUB_FORBIDDEN","message":"m"}' };
}

test("one poison event of each kind among 10,000: only its entity waits, and nothing is lost", async () => {
  // Half as many events a request as usual, so that an ordinary one is within the lowered limit.
  const road = await startRoad({
    settings: { BATCH_SIZE: "50" },
    broker: { daprdArgs: [LIMIT] },
  });
  const { stack, proxy } = road;
  try {
    const sql = (text: string) => stack.database.query(text);
    proxy.setScript(refuseWithoutLetters);
    await stack.agent.start();
    await stack.untilReading();
    await sql("SET SESSION sql_mode = ''");
    await sql("SET SESSION foreign_key_checks = 0");
    const half = (from: number): Promise<unknown> =>
      sql(
        `INSERT INTO magento_db.catalog_product_entity (entity_id, sku) SELECT ${from} + seq, CONCAT('s-', ${from} + seq) FROM ${numbersSql(1, 5000)}`,
      );
    await half(100_000);
    // daprd itself refuses the first; the others are refused in its place.
    await sql(
      `INSERT INTO magento_db.customer_address_entity SET entity_id = 7, parent_id = 1, street = ${LONG}`,
    );
    await sql("INSERT INTO magento_db.salesrule_coupon SET coupon_id = 8, rule_id = 1, code = 'POISON-BULK'");
    await sql("INSERT INTO magento_db.customer_entity SET entity_id = 9, email = 'poison-entry@example.com'");
    // The event that takes the poison away still has it, in `before`; only the next one is sound.
    for (const value of ["mended", "sound"]) {
      await sql(`UPDATE magento_db.customer_address_entity SET street = '${value}' WHERE entity_id = 7`);
      await sql(`UPDATE magento_db.salesrule_coupon SET code = '${value}' WHERE coupon_id = 8`);
    }
    await half(200_000);
    const products = "migration.product.changed";
    await stack.agent.until(
      "10,000 others are delivered",
      async () => (await stack.broker.redis.streamLength(products)) >= 10_000,
      60_000,
    );
    await stack.agent.until(
      "the dead letters are on hold",
      async () => (await stack.agent.health())?.includes(`${DLQ}: ERR_PUBSUB_FORBIDDEN`) === true,
      30_000,
    );
    assert.equal(
      await stack.broker.redis.streamLength("migration.address.changed"),
      0,
      "its successor waits",
    );
    assert.equal(await stack.broker.redis.streamLength("migration.coupon.changed"), 0);
    assert.deepEqual(
      await quarantineOf(stack),
      [],
      "nothing is put aside before its dead letter was accepted",
    );

    proxy.setScript(refuse);
    await stack.agent.until(
      "all of them are put aside",
      async () => (await quarantineOf(stack)).length === 5,
      30_000,
    );
    await stack.drain();
    const letters = await deadLettersOf(stack);
    checkLetters(letters, await stack.history());

    // The dead letter is refused too: quarantine alone keeps the event, and the stream goes on.
    await sql("INSERT INTO magento_db.catalog_product_entity SET entity_id = 11, sku = 'POISON-LETTER'");
    await stack.agent.until("it is put aside", async () => (await quarantineOf(stack)).length === 6, 30_000);
    await stack.drain();
    assert.equal((await deadLettersOf(stack)).length, 5);
    await retryAll(stack, proxy);
    const report = checkHistory(await stack.history());
    assert.deepEqual(report.problems, []);
    const comparison = await stack.compare(replicaOf(await stack.history()));
    assert.ok(comparison.equal, describeComparison(comparison));
  } finally {
    await road.stop();
  }
});

const expected: Readonly<Record<string, { key: number; code: string; attempts: number; letters: number }>> = {
  address: { key: 7, code: "ERR_PUBSUB_EVENTS_SER", attempts: 3, letters: 2 },
  coupon: { key: 8, code: "ERR_PUBSUB_EVENTS_SER", attempts: 3, letters: 2 },
  customer: { key: 9, code: "ERR_PUBSUB_CLOUD_EVENTS_SER", attempts: 1, letters: 1 },
};

/** What a dead letter holds; and that no successor was stored before its letter. */
function checkLetters(letters: readonly DeliveredEvent[], history: readonly DeliveredEvent[]): void {
  const counts: Record<string, number> = {};
  for (const letter of letters) {
    const { event, data } = letter;
    const entity = String(data["entity"]);
    const { key, code, attempts } = expected[entity] ?? {};
    counts[entity] = (counts[entity] ?? 0) + 1;
    assert.equal(event["type"], "magento.dead-letter");
    assert.deepEqual([data["code"], data["attempts"], data["magento_id"]], [code, attempts, key], entity);
    assert.equal(data["topic"], `migration.${entity}.changed`);
    for (const name of ["reason", "id", "sequence", "sha256"])
      assert.equal(typeof data[name], "string", name);
    const payload = data["payload"];
    // Of the one that was too large the letter with the event in it was too large as well.
    if (entity === "address") assert.equal(payload, undefined);
    else {
      assert.ok(typeof payload === "string");
      assert.equal(data["sha256"], createHash("sha256").update(payload).digest("hex"));
      assert.equal(data["bytes"], Buffer.byteLength(payload));
      assert.equal(JSON.parse(payload).data.magento_id, key);
    }
    const successor = history.find(({ data: one }) => one["entity"] === entity && one["magento_id"] === key);
    if (entity === "customer") assert.equal(successor, undefined);
    else {
      assert.ok(successor !== undefined && String(successor.data["sequence"]) > String(data["sequence"]));
      assert.ok(placeOf(successor) >= placeOf(letter), `${entity}: its successor came before a dead letter`);
    }
  }
  for (const [entity, { letters: wanted }] of Object.entries(expected)) assert.equal(counts[entity], wanted);
}

/** When Redis took it, in milliseconds. */
function placeOf({ entry }: DeliveredEvent): number {
  return Number(entry.split("-")[0]);
}

/** Two of them have no newer event and are accepted once nothing refuses them any more. */
async function retryAll(stack: Stack, proxy: DaprProxy): Promise<void> {
  const before = await quarantineOf(stack);
  assert.deepEqual(
    before
      .map(({ entity, magento_id, dead_letter_accepted, newer_sequence }) =>
        [entity, magento_id, dead_letter_accepted, newer_sequence !== null].join(" "),
      )
      .toSorted(),
    [
      "address 7 true true",
      "address 7 true true",
      "coupon 8 true true",
      "coupon 8 true true",
      "customer 9 true false",
      "product 11 false false",
    ],
  );
  const still = await stack.agent.command("quarantine", "retry", "--all", "--json");
  assert.equal(still.code, 1);
  assert.equal((await quarantineOf(stack)).length, 6, "each stays until it is accepted");
  proxy.setScript(null);
  // What the agent knows of newer events outlives its end.
  await stack.agent.kill();
  await stack.agent.start();
  await stack.untilReading();
  const done = await stack.agent.command("quarantine", "retry", "--all", "--json");
  const outcomes = JSON.parse(done.output).events.map((one: { outcome: string; code: string }) =>
    one.code === "" ? one.outcome : one.code,
  );
  assert.deepEqual(outcomes.toSorted(), [
    ...Array.from({ length: 4 }, () => "NEWER_ACCEPTED"),
    "accepted",
    "accepted",
  ]);
  assert.equal((await quarantineOf(stack)).length, 4);
  const dropped = await stack.agent.command("quarantine", "drop", "--all", "--yes");
  assert.match(dropped.output, /^4 dropped/);
  assert.equal(await stack.agent.metric("edge_agent_quarantine_events"), 0);
}

test("a mapping that makes every order too large holds their topic, and nothing is emptied into dead letters", async () => {
  const directory = mkdtempSync(join(tmpdir(), "mea-mapping-"));
  const mappingFile = join(directory, "mapping.json");
  writeFileSync(mappingFile, '{"entities":{"order":{"fields":{"customer_note":"note"}}}}');
  const daprdArgs = [LIMIT];
  const stack = await Stack.start({
    settings: { BATCH_SIZE: "50", MAPPING_FILE: mappingFile, QUARANTINE_MAX: "20" },
    broker: { daprdArgs },
  });
  try {
    await stack.agent.start();
    await stack.untilReading();
    const sql = (text: string) => stack.database.query(text);
    await sql("SET SESSION sql_mode = ''");
    await sql("SET SESSION foreign_key_checks = 0");
    await sql(
      `INSERT INTO magento_db.sales_order (entity_id, increment_id, customer_note) SELECT seq, seq, ${LONG} FROM ${numbersSql(1, 60)}`,
    );
    await sql(
      `INSERT INTO magento_db.catalog_product_entity (entity_id, sku) SELECT seq, CONCAT('s-', seq) FROM ${numbersSql(1, 1000)}`,
    );
    const orders = "migration.order.changed";
    const isHeld = async (): Promise<boolean> =>
      (await stack.agent.health())?.includes(`${orders}: STORM`) === true;
    await stack.agent.until("the orders are held", isHeld, 60_000);
    await stack.agent.until(
      "the products are delivered",
      async () => (await stack.broker.redis.streamLength("migration.product.changed")) >= 1000,
      60_000,
    );
    assert.equal(await stack.agent.healthStatus(), 503);
    assert.match((await stack.agent.command("status")).output, /on hold\s+migration\.order\.changed: STORM/);
    assert.ok(stack.agent.log().includes("STORM"), "the log names it");
    const metrics = (await stack.agent.metrics()) ?? "";
    assert.match(metrics, /^edge_agent_topic_held\{[^}]*topic="migration\.order\.changed"[^}]*\} 1$/m);
    const given = (await quarantineOf(stack)).length;
    assert.ok(given < 10, `${given} were given up before it was a storm`);
    assert.equal(await stack.broker.redis.streamLength(DLQ), given);

    // Somebody raises daprd's limit: the topic goes on by itself, and the rest is retried.
    daprdArgs[0] = "--max-body-size=4Mi";
    await stack.broker.gateway.restart();
    await stack.drain();
    assert.equal((await quarantineOf(stack)).length, given, "none was given up while the topic was held");
    assert.equal((await stack.agent.command("quarantine", "retry", "--all")).code, 0);
    assert.deepEqual(await quarantineOf(stack), []);
    assert.equal(await stack.agent.healthStatus(), 200);
    assert.equal(await stack.broker.redis.streamLength(orders), 61, "sixty, and the one that drain wrote");
  } finally {
    await stack.stop();
    rmSync(directory, { recursive: true, force: true });
  }
});

test("a retry after newer events reads the rows again, and takes the events out when that was accepted", async () => {
  const road = await startRoad({ settings: { SNAPSHOT_MODE: "initial" } });
  const { stack, proxy } = road;
  try {
    proxy.setScript(refuse);
    await stack.agent.start();
    await stack.untilReading();
    await stack.agent.until(
      "the first snapshot is done",
      async () => (await stack.agent.metric("edge_agent_snapshot_jobs")) === 0,
      60_000,
    );
    const sql = (text: string) => stack.database.query(text);
    await sql(
      "INSERT INTO magento_db.salesrule_coupon (coupon_id, rule_id, code) VALUES (8, 1, 'POISON-BULK-8'), (9, 1, 'POISON-BULK-9')",
    );
    for (const value of ["mended", "sound"])
      await sql(`UPDATE magento_db.salesrule_coupon SET code = CONCAT('${value}-', coupon_id)`);
    await sql("DELETE FROM magento_db.salesrule_coupon WHERE coupon_id = 9");
    await stack.agent.until(
      "newer events of both were accepted",
      async () => {
        const rows = await quarantineOf(stack);
        return rows.length === 4 && rows.every(({ newer_sequence }) => newer_sequence !== null);
      },
      30_000,
    );
    const { code, output } = await stack.agent.command("quarantine", "retry", "--all");
    assert.equal(code, 0, output);
    assert.equal(output.match(/read-again: a newer event .* resync \d+ sends the state of now/g)?.length, 4);
    await stack.agent.until(
      "nothing is in quarantine",
      async () => (await quarantineOf(stack)).length === 0,
      30_000,
    );
    assert.match(stack.agent.log(), /the state of now was accepted in the place of events in quarantine/);
    await stack.drain();
    const read = (await stack.history()).filter(({ data }) => data["op"] === "r");
    assert.deepEqual(
      read.map(({ data }) => [data["magento_id"], data["code"]]),
      [[8, "sound-8"]],
    );
    const comparison = await stack.compare(replicaOf(await stack.history()));
    assert.ok(comparison.equal, describeComparison(comparison));
  } finally {
    await road.stop();
  }
});
