import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { describeComparison, type Comparison } from "../oracle/compare.ts";
import { writeRandomly, type DmlCounts } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack, type Proof, type StackOptions } from "./stack.ts";

interface Outcome {
  /** Made from the recorded history: as delivered, and shuffled with 30 % doubled. */
  readonly proof: Proof;
  /** The running consumer's own SQLite file. */
  readonly consumer: Comparison;
}

/** Random transactions on all ten tables through the whole road, up to the consumer's tables. */
async function runOracle(
  options: StackOptions,
  size: { transactions: number; largeRows: number },
): Promise<Outcome> {
  const random = new Random(runSeed());
  const stack = await Stack.start(options);
  let consumer: ConsumerProcess | null = null;
  try {
    await stack.agent.start();
    consumer = await ConsumerProcess.start(stack.broker.redis);
    await stack.untilReading();
    const counts: DmlCounts = await writeRandomly({
      connect: () => stack.database.connection({ database: stack.identity.database }),
      database: stack.identity.database,
      prefix: stack.identity.prefix,
      random,
      connections: 4,
      ...size,
    });
    console.log(JSON.stringify(counts));
    await stack.drain();
    await consumer.caughtUp(120_000);
    const replica = consumer.replica();
    const compared = await stack.compare(replica);
    replica.close();
    console.log(describeComparison(compared));
    const proof = await stack.prove(random);
    console.log(`${proof.events} events delivered, ${proof.distinct} distinct`);
    return { proof, consumer: compared };
  } finally {
    await consumer?.stop();
    await stack.stop();
  }
}

/** What each kind of server is asked beside the random statements: one corner each. */
const corners: readonly (StackOptions & { readonly what: string })[] = [
  { what: "with small binlog files", database: { args: ["--max-binlog-size=64K"] } },
  { what: "with a table prefix", prefix: "mg_" },
];

describe("replica equality after random DML", () => {
  test("over all ten tables with FULL metadata, large transactions, rollbacks and savepoints", async () => {
    const { proof, consumer } = await runOracle({}, { transactions: 600, largeRows: 12_000 });
    assert.equal(consumer.equal, true);
    assert.equal(proof.comparison.equal, true);
    assert.ok(consumer.counts.every((row) => row.live > 20 && row.deleted > 0));
  });

  test("with NO_LOG metadata and a table prefix", async () => {
    const { proof, consumer } = await runOracle(
      { database: { rowMetadata: "NO_LOG" }, prefix: "mg_" },
      { transactions: 300, largeRows: 9000 },
    );
    assert.equal(consumer.equal, true);
    assert.equal(proof.comparison.equal, true);
  });

  test("with small binlog files, MINIMAL metadata and compressed events", async () => {
    const args = ["--max-binlog-size=64K", "--log-bin-compress=ON", "--log-bin-compress-min-len=10"];
    const { proof, consumer } = await runOracle(
      { database: { rowMetadata: "MINIMAL", args } },
      { transactions: 300, largeRows: 9000 },
    );
    assert.equal(consumer.equal, true);
    assert.equal(proof.comparison.equal, true);
  });

  for (const [index, kind] of serverKinds.filter((one) => one !== usualKind).entries()) {
    const { what, ...corner } = corners[index % corners.length] ?? { what: "" };
    test(`on ${kind.name}, ${what}`, async () => {
      const { proof, consumer } = await runOracle(
        { kind, ...corner },
        { transactions: 200, largeRows: 9000 },
      );
      assert.equal(consumer.equal, true);
      assert.equal(proof.comparison.equal, true);
      assert.ok(consumer.counts.every((row) => row.live > 20 && row.deleted > 0));
    });
  }
});
