import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { writeRandomly } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { Stack } from "./stack.ts";

for (const kind of serverKinds) {
  const kills = kind === usualKind ? 20 : 6;

  test(`killed with kill -9 ${kills} times under load it loses nothing, invents nothing and repeats under the same id, on ${kind.name}`, async () => {
    const random = new Random(runSeed());
    const stack = await Stack.start({ kind });
    const ending = new AbortController();
    try {
      await stack.agent.start();
      await stack.untilReading();
      const load = writeRandomly({
        connect: () => stack.database.connection({ database: stack.identity.database }),
        database: stack.identity.database,
        prefix: "",
        random: random.fork(1),
        connections: 3,
        transactions: 1_000_000,
        largeRows: 12_000,
        pauseMs: 15,
        signal: ending.signal,
      });
      for (let round = 0; round < kills; round += 1) {
        // From "still starting" to "streaming and publishing": the kill meets every phase.
        await sleep(random.int(50, 1500));
        await stack.agent.kill();
        assert.equal(stack.agent.running(), false);
        if (round % 3 === 0) stack.agent.launch();
        else await stack.agent.start();
      }
      await sleep(1000);
      ending.abort();
      console.log(JSON.stringify(await load));
      await stack.drain();
      const proof = await stack.prove(random);
      console.log(`${proof.events} deliveries of ${proof.distinct} events`);
      assert.ok(proof.distinct > 50 * kills, "the load was too small to prove anything");
    } finally {
      ending.abort();
      await stack.stop();
    }
  });
}
