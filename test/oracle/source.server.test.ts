import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { startMariadb, type MariadbServer } from "../servers/mariadb.ts";
import { compareReplica, describeComparison, type Comparison } from "./compare.ts";
import { writeRandomly } from "./dml.ts";
import { entities } from "./entities.ts";
import { Random, runSeed } from "./random.ts";
import { MemoryReplica } from "./replica.ts";
import { describeSource, sourceRows, type ShopIdentity } from "./source-rows.ts";

const identity: ShopIdentity = {
  shop: "oracle",
  namespace: "7d444840-9dc0-11d1-b245-5ffdce74fad2",
  database: "magento_db",
  prefix: "mg_",
};

let server: MariadbServer;
let connection: Connection;

before(async () => {
  server = await startMariadb();
  await server.loadMagento({ prefix: identity.prefix });
  connection = await server.connection();
  const random = new Random(runSeed());
  const counts = await writeRandomly({
    connect: () => server.connection({ database: identity.database }),
    database: identity.database,
    prefix: identity.prefix,
    random,
    connections: 3,
    transactions: 150,
    largeRows: 2000,
  });
  console.log(JSON.stringify(counts));
});

after(() => server.stop());

/** A replica that holds exactly the source, with one hand on each event. */
async function faithful(
  spoil: (data: Record<string, unknown>) => void = () => undefined,
): Promise<MemoryReplica> {
  const replica = new MemoryReplica();
  for (const spec of entities) {
    const shape = await describeSource(connection, identity, spec);
    for await (const row of sourceRows(connection, shape, identity)) {
      const { id, magentoId } = row;
      const data = { op: "c", entity: spec.entity, id, magento_id: magentoId, sequence: "1", ...row.fields };
      spoil(data);
      replica.apply(data);
    }
  }
  return replica;
}

async function comparisonWith(replica: MemoryReplica): Promise<Comparison> {
  return compareReplica({ connection, identity, replica });
}

test("a faithful replica of random rows is equal, and every table has rows", async () => {
  const comparison = await comparisonWith(await faithful());
  console.log(describeComparison(comparison));
  assert.equal(comparison.equal, true);
  assert.ok(comparison.counts.every((row) => row.source > 20));
});

test("one spoiled field in any entity is reported by its name", async () => {
  for (const spec of entities) {
    const field = spec.fields.at(-1)?.field ?? "";
    let spoiled = false;
    const replica = await faithful((data) => {
      if (data["entity"] !== spec.entity || spoiled) return;
      spoiled = true;
      data[field] = "spoiled";
    });
    const comparison = await comparisonWith(replica);
    assert.equal(comparison.total, 1, describeComparison(comparison));
    assert.ok(comparison.differences[0]?.includes(`: ${field}: source `), comparison.differences[0]);
  }
});

test("a lost row, a surviving row, an extra field and a kept person are each reported", async () => {
  let dropped = false;
  const replica = await faithful((data) => {
    if (data["entity"] === "order" && !dropped) {
      dropped = true;
      data["op"] = "d";
    }
    if (data["entity"] === "coupon" && data["extra"] === undefined) data["extra"] = 1;
  });
  replica.apply({ op: "c", entity: "product", id: "ghost", magento_id: 99_999_999, sequence: "1" });
  const { differences } = await comparisonWith(replica);
  const all = differences.join("\n");
  assert.match(all, /order \S+: deleted in the replica/);
  assert.match(all, /product 99999999: lives in the replica/);
  assert.match(all, /coupon \d+: extra: source \(absent\), replica 1/);
});

test("an empty table proves nothing and is not equal", async () => {
  await connection.query("DELETE FROM magento_db.mg_salesrule_coupon");
  const comparison = await comparisonWith(await faithful());
  assert.equal(comparison.equal, false);
  assert.match(comparison.differences.join(), /salesrule_coupon is empty/);
});
