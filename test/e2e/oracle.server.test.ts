import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { describeComparison } from "../oracle/compare.ts";
import { writeRandomly, type DmlCounts } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { Stack, type Proof, type StackOptions } from "./stack.ts";

/** Random transactions on all ten tables through the whole road; resolves with the proof of equality. */
async function runOracle(
  options: StackOptions,
  size: { transactions: number; largeRows: number },
): Promise<Proof> {
  const random = new Random(runSeed());
  const stack = await Stack.start(options);
  try {
    await stack.agent.start();
    await stack.untilReading();
    const counts: DmlCounts = await writeRandomly({
      connect: () => stack.mariadb.connection({ database: stack.identity.database }),
      database: stack.identity.database,
      prefix: stack.identity.prefix,
      random,
      connections: 4,
      ...size,
    });
    console.log(JSON.stringify(counts));
    await stack.drain();
    const proof = await stack.prove(random);
    console.log(`${proof.events} events delivered, ${proof.distinct} distinct`);
    console.log(describeComparison(proof.comparison));
    return proof;
  } finally {
    await stack.stop();
  }
}

describe("replica equality after random DML", () => {
  test("over all ten tables with FULL metadata, large transactions, rollbacks and savepoints", async () => {
    const proof = await runOracle({}, { transactions: 600, largeRows: 12_000 });
    assert.equal(proof.comparison.equal, true);
    assert.ok(proof.comparison.counts.every((row) => row.live > 20 && row.deleted > 0));
  });

  test("with NO_LOG metadata and a table prefix", async () => {
    const proof = await runOracle(
      { mariadb: { rowMetadata: "NO_LOG" }, prefix: "mg_" },
      { transactions: 300, largeRows: 9000 },
    );
    assert.equal(proof.comparison.equal, true);
  });

  test("with small binlog files, MINIMAL metadata and compressed events", async () => {
    const args = ["--max-binlog-size=64K", "--log-bin-compress=ON", "--log-bin-compress-min-len=10"];
    const proof = await runOracle(
      { mariadb: { rowMetadata: "MINIMAL", args } },
      { transactions: 300, largeRows: 9000 },
    );
    assert.equal(proof.comparison.equal, true);
  });
});
