import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { compacted, deleteKey, flip, flipValue, largest, orderKey } from "./damage-cases.ts";
import { ACKED, capture, COUNT, filled, tuning } from "./damage-model.ts";
import { openSpool, ORDERS, stateDirOf } from "./fixtures.ts";

describe("a proof of an open spool", () => {
  it("finds all that waits sound, and nothing wrong with what is acknowledged, appended and trimmed meanwhile", async (t) => {
    const dir = await stateDirOf(t);
    const consumer = await filled(dir);
    const spool = await openSpool(dir, { tuning: { ...tuning, compactStepBytes: 1, compactIdleMs: 1 } });
    const first = spool.proof();
    await Promise.all([first.run(), capture(spool, COUNT + 100)]);
    assert.deepEqual(first.proof.report?.faults, []);
    const waiting = first.proof.report?.queues.reduce((sum, { events }) => sum + events, 0) ?? 0;
    assert.ok(waiting >= COUNT - ACKED, `${waiting} events were proven`);
    assert.ok(first.proof.bytes > 0 && first.proof.bytes <= first.proof.ofBytes);
    const second = spool.proof();
    await Promise.all([second.run(), consumer.deliver(spool)]);
    assert.deepEqual(second.proof.report?.faults, []);
    await spool.close();
  });

  it("names what is damaged or missing as a stopped spool's proof does, and changes nothing", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    for (const [change, what] of [
      [flipValue(await orderKey("middle")(dir), 60), /^wrong checksum$/],
      [deleteKey(await orderKey("middle")(dir)), /^it is missing/],
    ] as const) {
      const one = join(await stateDirOf(t), "state");
      await cp(dir, one, { recursive: true });
      await change(one);
      const spool = await openSpool(one, { tuning });
      const verify = spool.proof();
      await verify.run();
      const [fault, ...others] = verify.proof.report?.faults ?? [];
      assert.equal(fault?.queue, ORDERS);
      assert.match(fault?.what ?? "", what);
      assert.deepEqual(others, []);
      assert.deepEqual(spool.damages.all, []);
      await spool.close();
    }
  });

  it("sees a table that went bad under it by its blocks, before it reads a record of it", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    await compacted(dir);
    const spool = await openSpool(dir, { tuning });
    await flip(await largest(dir, /\.ldb$/), (bytes) => bytes.length >> 1);
    const verify = spool.proof();
    await verify.run();
    const { faults = [], queues } = verify.proof.report ?? {};
    assert.equal(faults.length, 1);
    assert.match(faults[0]?.what ?? "", /^\d+\.ldb: the block at byte \d+ is damaged$/);
    assert.deepEqual(queues, [], "no record was read");
    await spool.close();
  });

  it("ends without a word when the spool closes", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    const spool = await openSpool(dir, { tuning });
    const verify = spool.proof();
    const running = verify.run();
    await spool.close();
    await running;
    assert.equal(verify.proof.report, null);
  });
});
