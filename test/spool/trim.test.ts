import assert from "node:assert/strict";
import { it } from "node:test";
import type { Database } from "../../agent/spool/database.ts";
import { readState } from "../../agent/spool/state.ts";
import {
  checkpoint,
  event,
  eventually,
  memoryDatabase,
  openSpool,
  ORDERS,
  readAll,
  stateDirOf,
} from "./fixtures.ts";

it("keeps what a segment took while it was compacted, also when a newer one took its place meanwhile", async (t) => {
  const dir = await stateDirOf(t);
  const begun = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  let compactions = 0;
  const database: Database = {
    ...memoryDatabase(),
    compactRange: async () => {
      begun.resolve();
      await held.promise;
      compactions += 1;
    },
  };
  // Whatever is deleted is due, in the segment that is appended to as well. Three of these events fill one.
  const tuning = { segmentBytes: 10_000, compactAgeMs: 0, compactStepBytes: 1e12, compactIdleMs: 1e12 };
  let spool = await openSpool(dir, { database, tuning });
  const append = (n: number): Promise<void> =>
    spool.append({ events: [event(n, { payload: Buffer.alloc(4_000, "x") })], checkpoint: checkpoint(n) });
  const waiting = async (): Promise<string[]> => (await readAll(spool, ORDERS)).map(({ id }) => id);
  const segments = async (): Promise<string> => String((await readState(database)).segments?.numbers);

  await append(1);
  assert.deepEqual(await waiting(), ["id-1"]);
  spool.ack(ORDERS, 1);
  await begun.promise;
  for (const n of [2, 3, 4]) await append(n);
  assert.equal(await segments(), "1,2");
  held.resolve();
  // Once over the tables, and once more over the deletions; what is left is forgotten right after it.
  await eventually(() => compactions >= 2, "the compaction ends");
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  const assertWaiting = async (): Promise<void> => {
    assert.deepEqual(await waiting(), ["id-2", "id-3", "id-4"]);
    assert.deepEqual(spool.damages.all, []);
  };
  await assertWaiting();
  await spool.close();
  spool = await openSpool(dir, { database, tuning });
  await assertWaiting();
  spool.ack(ORDERS, 3);
  await eventually(async () => (await segments()) === "2", "the segment goes when nothing in it waits");
  assert.deepEqual(await waiting(), ["id-4"]);
});
