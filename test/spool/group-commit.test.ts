import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemClock } from "../../agent/kernel/service.ts";
import type { Database } from "../../agent/spool/database.ts";
import {
  checkpoint,
  event,
  memoryDatabase,
  openSpool,
  ORDERS,
  readAll,
  stateDirOf,
  Witness,
} from "./fixtures.ts";

/** A database whose writes take as long, and end, as the test says. */
function slowDatabase(write: (sync: boolean) => Promise<void>): Database {
  const inner = memoryDatabase();
  return {
    ...inner,
    batch: () => {
      const batch = inner.batch();
      return {
        put: (key, value) => batch.put(key, value),
        del: (key) => batch.del(key),
        write: async (options) => {
          await write(options.sync);
          await batch.write(options);
        },
      };
    },
  };
}

describe("group commit", () => {
  it("writes many appends with few fsyncs, in their order", async (t) => {
    const witness = new Witness();
    const spool = await openSpool(await stateDirOf(t), { witness });
    const done: number[] = [];
    const appends = Array.from({ length: 500 }, async (_, n) => {
      await spool.append({ events: [event(n)], checkpoint: checkpoint(n + 1) });
      done.push(n);
    });
    await Promise.all(appends);
    assert.ok(witness.syncs.length <= 5, `${witness.syncs.length} fsyncs for 500 appends`);
    assert.deepEqual(
      done,
      Array.from({ length: 500 }, (_, n) => n),
    );
    const ids = (await readAll(spool, ORDERS)).map(({ id }) => id);
    assert.deepEqual(
      ids,
      Array.from({ length: 500 }, (_, n) => `id-${n}`),
    );
    await spool.close();
  });

  it("never shows a checkpoint, or a record, before its fsync returned (invariant 1)", async (t) => {
    const syncing = { gate: Promise.withResolvers<void>() };
    const database = slowDatabase((sync) => (sync ? syncing.gate.promise : Promise.resolve()));
    syncing.gate.resolve();
    const spool = await openSpool(await stateDirOf(t), { database });
    syncing.gate = Promise.withResolvers<void>();
    let resolved = 0;
    const appends = [1, 2, 3].map(async (n) => {
      await spool.append({ events: [event(n)], checkpoint: checkpoint(n) });
      resolved = n;
    });
    // Progress after events that are under way must not overtake them.
    await spool.append({ events: [], checkpoint: checkpoint(4) });
    await systemClock.sleep(20);
    assert.equal(resolved, 0);
    assert.equal(spool.checkpoint(), null);
    assert.deepEqual(await spool.read(ORDERS, 0, { maxEvents: 9, maxBytes: 9 }), []);
    syncing.gate.resolve();
    await Promise.all(appends);
    assert.equal(spool.checkpoint()?.position, 4);
    await spool.close();
  });

  it("lets SPOOL_SYNC_MIN_MS pass between fsyncs", async (t) => {
    const witness = new Witness();
    const spool = await openSpool(await stateDirOf(t), { witness, syncMinMs: 40 });
    const startMs = performance.now();
    for (let n = 1; n <= 5; n++) {
      await spool.append({ events: [event(n)], checkpoint: checkpoint(n) });
    }
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs >= 4 * 39, `five fsyncs in ${tookMs} ms`);
    assert.equal(witness.syncs.length, 5);
    await spool.close();
  });

  it("ends the spool when a write fails: what waits and every later call rejects", async (t) => {
    const broken = { by: null as Error | null };
    const database = slowDatabase(() =>
      broken.by === null ? systemClock.sleep(1) : Promise.reject(broken.by),
    );
    const spool = await openSpool(await stateDirOf(t), { database });
    await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
    broken.by = Object.assign(new Error("IO error"), { code: "LEVEL_IO_ERROR" });
    const results = await Promise.allSettled(
      [2, 3, 4].map((n) => spool.append({ events: [event(n)], checkpoint: checkpoint(n) })),
    );
    for (const result of results) {
      assert.equal(result.status, "rejected");
      assert.equal(result.reason.code, "SPOOL_IO");
    }
    const failure = { code: "SPOOL_IO", cause: broken.by };
    broken.by = null;
    await assert.rejects(spool.append({ events: [event(5)], checkpoint: checkpoint(5) }), failure);
    await assert.rejects(spool.append({ events: [], checkpoint: checkpoint(5) }), failure);
    await assert.rejects(spool.read(ORDERS, 0, { maxEvents: 1, maxBytes: 1 }), failure);
    await assert.rejects(spool.meta.put("x", 1), failure);
    assert.equal((await spool.whenFailed()).code, "SPOOL_IO");
    assert.equal(spool.stats().intake, "failed");
    assert.equal(spool.checkpoint()?.position, 1);
    await spool.close();
  });
});
