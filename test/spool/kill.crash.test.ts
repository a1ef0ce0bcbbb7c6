import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { it } from "node:test";
import { verifySpool } from "../../agent/spool/verify.ts";
import { batchOf, QUEUES } from "./batches.ts";
import { openSpool, randomOf, readAll, seedOf, stateDirOf } from "./fixtures.ts";

const LANES = QUEUES.flatMap((queue) => (["live", "bulk"] as const).map((lane) => ({ queue, lane })));
const ROUNDS = 12;

/** Lets the child append until it is killed at a random moment; says what it acknowledged last. */
async function appendUntilKilled(dir: string, afterMs: number): Promise<number> {
  const appender = join(import.meta.dirname, "appender.ts");
  const child = spawn(process.execPath, [appender, dir], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  let errors = "";
  child.stderr.on("data", (text: Buffer) => {
    errors += text.toString();
  });
  let acked = -1;
  for await (const line of createInterface({ input: child.stdout })) {
    const [word, number] = line.split(" ");
    if (word === "start") setTimeout(() => child.kill("SIGKILL"), afterMs);
    // The pipe can hold half a line when the end comes; a whole one has both words.
    if (word === "start" || word === "acked") acked = Math.max(acked, Number(number));
  }
  const [, signal] = await exited;
  assert.equal(signal, "SIGKILL", `the child ended by itself: ${errors}`);
  return acked;
}

it("keeps every acknowledged batch, whole and in order, through kill -9 at any moment (invariant 1)", async (t) => {
  const random = randomOf(seedOf(t));
  const dir = await stateDirOf(t);
  const expected = new Map<string, string[]>(LANES.map(({ queue, lane }) => [`${queue} ${lane}`, []]));
  let built = 0;
  let batches = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const acked = await appendUntilKilled(dir, 5 + random() * 400);
    const spool = await openSpool(dir);
    const covered = spool.checkpoint()?.position ?? 0;
    assert.ok(covered >= acked, `round ${round}: ${acked} was acknowledged, the checkpoint is ${covered}`);
    for (; built < covered; built++) {
      for (const each of batchOf(built + 1).events) expected.get(`${each.queue} ${each.lane}`)?.push(each.id);
    }
    for (const { queue, lane } of LANES) {
      const state = spool.queues().find((each) => each.queue === queue && each.lane === lane);
      const ids = expected.get(`${queue} ${lane}`) ?? [];
      assert.equal(state?.last ?? 0, ids.length, `round ${round}: end of ${lane} ${queue}`);
      const found = (await readAll(spool, queue, lane)).map(({ id }) => id);
      assert.deepEqual(found, ids.slice(state?.acked ?? 0), `round ${round}: ${lane} ${queue}`);
    }
    await spool.close();
    assert.deepEqual((await verifySpool(dir)).faults, []);
    batches = covered;
  }
  t.diagnostic(`${batches} batches through ${ROUNDS} kills`);
  assert.ok(batches > ROUNDS, "the child came to append");
});
