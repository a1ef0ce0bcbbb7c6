/**
 * The shop fails over to a promoted replica, twice: first to one that has everything, then to one that
 * never got the last transactions, which consumers have already (an errant tail).
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { checkHistory, deadLetters } from "../oracle/history.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { startTcpProxy, type TcpProxy } from "../faults/tcp-proxy.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { type ServerKind, serverKinds, usualKind } from "../servers/matrix.ts";
import { pauseReplication, promote, replicated, startReplica } from "../servers/replication.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

const kinds = serverKinds.filter(
  ({ name, flavour, hasGtids }) => name === usualKind.name || (flavour === "mysql" && hasGtids),
);

interface Shop {
  readonly kind: ServerKind;
  readonly stack: Stack;
  readonly consumer: ConsumerProcess;
  /** The address of the shop's database. */
  readonly address: TcpProxy;
  readonly random: Random;
}

function write({ stack, random }: Shop, transactions: number): Promise<unknown> {
  return stack.write({ random, connections: 3, transactions });
}

async function assertEqual({ stack, consumer }: Shop): Promise<void> {
  await stack.untilRowsRead();
  await stack.assertEqual(consumer);
}

/** The primary dies, the replica takes its place behind the same address. */
async function failOver({ stack, address }: Shop, to: DatabaseServer): Promise<void> {
  const from = stack.database;
  await promote(to);
  await from.kill();
  address.setTarget({ port: to.port });
  address.cut();
  await stack.failedOver(to);
}

/** No entity's events out of order, no id for two changes, no dead letter; the epochs in which events came. */
async function assertSound({ stack }: Shop): Promise<string[]> {
  const history = await stack.history();
  assert.deepEqual(checkHistory(history).problems.slice(0, 10), []);
  assert.equal(await deadLetters(stack.broker.redis), 0);
  return [...new Set(history.map(({ data }) => String(data["sequence"]).slice(0, 10)))].sort();
}

/** The customer as the consumer has it: its last name, "gone", or null where it was never heard of. */
function customerOf({ consumer }: Shop, id: number): string | null {
  const replica = consumer.replica();
  const found = [...replica.all("customer")].find(({ magentoId }) => magentoId === id);
  replica.close();
  if (found === undefined) return null;
  return found.deleted ? "gone" : String(found.fields["last_name"]);
}

async function withTwoReplicas(
  kind: ServerKind,
  use: (shop: Shop, first: DatabaseServer, second: DatabaseServer) => Promise<void>,
): Promise<void> {
  const servers: DatabaseServer[] = [];
  let address: TcpProxy | null = null;
  let consumer: ConsumerProcess | null = null;
  // The settings that matter here are the defaults.
  const stack = await Stack.start({
    kind,
    form: "bundle",
    settings: { SNAPSHOT_MODE: undefined, ON_POSITION_LOST: undefined },
    wayToDatabase: async (port) => (address = await startTcpProxy({ port })).port,
  });
  servers.push(stack.database);
  try {
    const first = await startReplica(kind, stack.database);
    servers.push(first);
    await replicated(stack.database, first);
    const second = await startReplica(kind, first, { serverId: 3 });
    servers.push(second);
    if (address === null) throw new Error("the agent has no way to the database");
    consumer = await ConsumerProcess.start(stack.broker.redis);
    const shop = { kind, stack, consumer, address, random: new Random(runSeed()) };
    await use(shop, first, second);
  } finally {
    await consumer?.stop();
    await stack.stop();
    for (const server of servers) await server.stop();
    await (address as TcpProxy | null)?.stop();
  }
}

/** Beyond what random writes choose; auto-increment goes on behind the stack's markers, which are higher. */
const ids = [2_900_000_001, 2_900_000_002, 2_900_000_003, 2_900_000_004, 2_900_000_005] as const;
const customers = (...rows: readonly (readonly [id: number, name: string])[]): string =>
  `INSERT INTO customer_entity (entity_id, email, lastname) VALUES ${rows
    .map(([id, name]) => `(${id}, '${id}@example.com', '${name}')`)
    .join(", ")}`;

// At once: for most of the time each waits, 30 s of it for transactions that the new primary might still get.
describe("failover of the shop", { concurrency: true }, () => {
  for (const kind of kinds)
    test(`consumers end equal to the new primary, also where it lacks what they already have, on ${kind.name}`, async () => {
      await withTwoReplicas(kind, async (shop, first, second) => {
        const { stack } = shop;
        const [updated, deleted, kept, inserted, usedAgain] = ids;
        await write(shop, 40);
        await stack.agent.start();
        await stack.untilReading();
        await write(shop, 40);
        await assertEqual(shop);
        await replicated(stack.database, first);

        await failOver(shop, first);
        await write(shop, 40);
        await assertEqual(shop);
        const afterFirst = await assertSound(shop);
        assert.equal(afterFirst.length, 2, `epochs ${afterFirst.join()}`);
        assert.doesNotMatch(stack.agent.log(), /POSITION_LOST|position-lost/);

        await first.query(customers([updated, "kept"], [deleted, "kept"], [kept, "kept"]));
        await replicated(first, second);
        await pauseReplication(second);
        await first.query(
          `${customers([inserted, "errant"], [usedAgain, "errant"])};
           UPDATE customer_entity SET lastname = 'errant' WHERE entity_id = ${updated};
           DELETE FROM customer_entity WHERE entity_id = ${deleted};
           INSERT INTO cataloginventory_stock_item (item_id, product_id, stock_id, qty)
             VALUES (${inserted}, ${inserted}, 7, 1)`,
        );
        await assertEqual(shop);
        assert.deepEqual(
          ids.map((id) => customerOf(shop, id)),
          ["errant", "gone", "kept", "errant", "errant"],
        );
        await write(shop, 40);
        await assertEqual(shop);

        await failOver(shop, second);
        await second.query(
          `UPDATE customer_entity SET lastname = 'after' WHERE entity_id = ${kept}; ${customers([usedAgain, "after"])}`,
        );
        await stack.agent.until(
          "all rows are read again",
          async () => stack.agent.log().includes("a new epoch begins, and all rows are read again"),
          90_000,
        );
        await assertEqual(shop);
        assert.deepEqual(
          ids.map((id) => customerOf(shop, id)),
          ["kept", "kept", "after", "gone", "after"],
        );
        assert.match(stack.agent.log(), /never got GTID/);
        await write(shop, 40);
        await assertEqual(shop);
        const afterSecond = await assertSound(shop);
        assert.deepEqual(afterSecond.slice(0, 2), afterFirst);
        assert.equal(afterSecond.length, 3, `epochs ${afterSecond.join()}`);
      });
    });
});
