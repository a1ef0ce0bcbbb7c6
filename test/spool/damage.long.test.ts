/**
 * The table of damage: each kind of byte of a spool's files flipped, files cut, emptied, taken away,
 * mixed with those of another state, put back from an older copy. The promise for each of them:
 * nothing is delivered that was not appended, and in the end everything was, each queue's events
 * first in their order.
 */
import assert from "node:assert/strict";
import { cp, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Database } from "../../agent/spool/database.ts";
import { queueKey } from "../../agent/spool/keys.ts";
import { withJobs } from "../../agent/snapshot-jobs.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import {
  compacted,
  deleteKey,
  filesOf,
  flip,
  flipValue,
  largest,
  orderKey,
  putStranger,
  table,
} from "./damage-cases.ts";
import { capture, Consumer, COUNT, filled, recover, tuning } from "./damage-model.ts";
import {
  checkpoint,
  copyOpenState,
  event,
  eventually,
  memoryDatabase,
  openSpool,
  ORDERS,
  randomOf,
  readAll,
  seedOf,
  spooled,
  stateDirOf,
  plain,
} from "./fixtures.ts";

/** Places of metaindex and index, padding that means nothing, and the magic. */
const FOOTER_BYTES = 48;
const live = { queue: ORDERS, lane: "live" } as const;
const bulk = { queue: ORDERS, lane: "bulk" } as const;

describe("a damaged spool", () => {
  for (const [what, damage] of table) {
    it(`is healed, and delivers nothing that is not sound: ${what}`, async (t) => {
      const dir = await stateDirOf(t);
      const consumer = await filled(dir);
      await damage(dir, randomOf(seedOf(t)));
      const { healed, rewinds, skips } = await recover(dir, consumer);
      t.diagnostic(`${healed ?? "opened as it is"}, ${rewinds} rewinds, ${skips} skips`);
    });
  }

  it("is healed wherever a bit of its files flips (invariant 8)", async (t) => {
    const random = randomOf(seedOf(t));
    const dir = await stateDirOf(t);
    for (let round = 0; round < 24; round += 1) {
      const one = join(dir, String(round));
      const consumer = await filled(one);
      if (round % 2 === 0) await compacted(one);
      const files = await filesOf(one, /^(MANIFEST|CURRENT|\d)/);
      const file = files[Math.floor(random() * files.length)] ?? "";
      let place = "";
      let provable = false;
      await flip(file, (bytes) => {
        const at = Math.floor(random() * bytes.length);
        place = `byte ${at} of ${bytes.length} of ${file}`;
        provable = file.endsWith(".ldb") && at < bytes.length - FOOTER_BYTES;
        return at;
      });
      try {
        const { healed } = await recover(one, consumer);
        // Whatever is done with a table later, its damage was seen before it was used.
        if (provable) assert.ok(healed !== null, "the damaged table was opened");
      } catch (cause) {
        throw new Error(`round ${round}: ${place}`, { cause });
      }
    }
  });

  it("larger than what every start proves is proven after a process that did not close it", async (t) => {
    const [dir, killed] = [join(await stateDirOf(t), "one"), join(await stateDirOf(t), "two")];
    await filled(dir);
    await compacted(dir);
    const options = { tuning: { ...tuning, provenBytesMax: 0 } };
    const spool = await openSpool(dir, options);
    await copyOpenState(dir, killed);
    await spool.close();
    for (const each of [dir, killed]) {
      await flip(await largest(each, /\.ldb$/), (bytes) => bytes.length >> 1);
      const again = await openSpool(each, options);
      assert.equal(again.healedAtOpen, each === killed ? "repaired" : null);
      await again.close();
    }
  });

  it("whose binlog is gone passes over exactly what is damaged, and says so in its place", async (t) => {
    const dir = await stateDirOf(t);
    const consumer = await filled(dir);
    const random = randomOf(seedOf(t));
    const key = await orderKey("middle")(dir);
    await (random() < 0.5 ? flipValue(key, 50) : deleteKey(key))(dir);
    const spool = await openSpool(dir, { tuning });
    await consumer.deliver(spool);
    const [damage] = spool.damages.all;
    assert.ok(damage !== undefined);
    const gap = await spool.damages.gap(live);
    assert.ok(gap !== null);
    assert.equal(gap.first, damage.seq);
    assert.ok(gap.from !== null && gap.to !== null && gap.from.position < gap.to.position);
    const told = event(9999, { kind: "control", topic: "migration.control", barrier: true });
    await spool.damages.skip(live, gap, { event: told, checkpoint: checkpoint(COUNT) });
    const rest = await spool.read(ORDERS, gap.first - 1, { maxEvents: 1, maxBytes: 1 });
    assert.deepEqual(rest.map(plain), [spooled(told, gap.last)]);
    const lost = gap.last - gap.first + 1;
    const before = [...consumer.first.values()].flat().length;
    spool.ack(ORDERS, gap.last);
    await consumer.deliver(spool);
    assert.equal([...consumer.first.values()].flat().length, COUNT - lost, `${before} before`);
    await capture(spool, COUNT);
    assert.ok(spool.queues().every(({ acked, last }) => acked === last));
    await eventually(() => spool.stats().events === 0, "all of it is trimmed");
    await spool.close();
    const again = await openSpool(dir, { tuning });
    assert.deepEqual(again.damages.all, []);
    await again.close();
  });

  it("put back from an older copy goes on from there", async (t) => {
    const dir = await stateDirOf(t);
    const [state, copy] = [join(dir, "state"), join(dir, "copy")];
    const spool = await openSpool(state, { tuning });
    const consumer = new Consumer();
    await spool.meta.put("identity", { shop: "one" });
    await capture(spool, 300);
    await spool.close();
    await cp(state, copy, { recursive: true });
    const later = await openSpool(state, { tuning });
    await capture(later, 500);
    await consumer.deliver(later);
    await later.close();
    await rm(state, { recursive: true });
    await cp(copy, state, { recursive: true });
    assert.deepEqual(await recover(state, consumer), { healed: null, rewinds: 0, skips: 0 });
  });

  it("mixed with the files of another state is made anew from its own marker", async (t) => {
    const dir = await stateDirOf(t);
    const [one, two] = [join(dir, "one"), join(dir, "two")];
    for (const pattern of [/./, /\.log$/, /\.(ldb|log)$/, /^(CURRENT|MANIFEST)/]) {
      await rm(one, { recursive: true, force: true });
      await rm(two, { recursive: true, force: true });
      const consumer = await filled(one);
      const other = await openSpool(two, { tuning });
      await other.append({
        events: Array.from({ length: 700 }, (_, n) => event(n, { payload: Buffer.from('"foreign"') })),
        checkpoint: checkpoint(COUNT),
      });
      await other.close();
      for (const file of await filesOf(two, pattern)) {
        await cp(file, join(one, "spool", file.slice(file.lastIndexOf("/") + 1)));
      }
      await recover(one, consumer);
    }
  });

  it("is not what was acknowledged and deleted while somebody read it", async (t) => {
    const dir = await stateDirOf(t);
    const database = memoryDatabase();
    const gate: { waits: Promise<void> | null } = { waits: null };
    const slow: Database = {
      ...database,
      get: async (key) => {
        await gate.waits;
        return database.get(key);
      },
    };
    const spool = await openSpool(dir, { database: slow });
    await spool.append({ events: [event(1), event(2)], checkpoint: checkpoint(1) });
    assert.equal((await readAll(spool, ORDERS)).length, 2);
    let open = (): void => undefined;
    gate.waits = new Promise((resolve) => {
      open = resolve;
    });
    // As status and metrics look at the head while the forwarder drains.
    const reading = spool.read(ORDERS, 0, { maxEvents: 1, maxBytes: 1 });
    spool.ack(ORDERS, 2);
    await spool.meta.put("barrier", 1);
    await spool.meta.put("barrier", 2);
    open();
    assert.deepEqual(await reading, []);
    assert.deepEqual(spool.damages.all, []);
    gate.waits = null;
    await spool.append({ events: [event(3)], checkpoint: checkpoint(2) });
    assert.equal((await spool.read(ORDERS, 2, { maxEvents: 1, maxBytes: 1 })).length, 1);
  });

  it("that nobody needs any more is not healed: neither rewind nor skip does anything", async (t) => {
    const spool = await openSpool(await stateDirOf(t));
    await spool.append({ events: [event(1), event(2), event(3)], checkpoint: checkpoint(1) });
    await spool.damages.rewind(live);
    assert.equal(await spool.damages.gap(live), null);
    assert.equal((await spool.read(ORDERS, 0, { maxEvents: 3, maxBytes: 1 << 20 })).length, 3);
  });

  it("in a bulk lane holds neither the live lane nor takes anything from the rest of its own", async (t) => {
    const dir = await stateDirOf(t);
    let spool = await openSpool(dir);
    for (let n = 1; n <= 5; n += 1) {
      const events = [event(n), event(10 + n, { lane: "bulk" })];
      await spool.append({ events, checkpoint: checkpoint(n) });
    }
    await spool.close();
    await flipValue(queueKey(1, { tag: 1, lane: "bulk" }, 3), 50)(dir);
    const report = await verifySpool(dir);
    assert.deepEqual(report.faults, [{ queue: ORDERS, lane: "bulk", seq: 3, what: "wrong checksum" }]);
    spool = await openSpool(dir);
    assert.equal((await readAll(spool, ORDERS)).length, 5);
    assert.equal((await readAll(spool, ORDERS, "bulk")).length, 2);
    assert.deepEqual(spool.damages.all, [{ ...bulk, seq: 3, rewindTo: null }]);
    const gap = await spool.damages.gap(bulk);
    assert.deepEqual([gap?.first, gap?.last], [3, 3]);
    assert.ok(gap !== null);
    const told = event(99, { kind: "control", lane: "bulk", barrier: true });
    await spool.damages.skip(bulk, gap, { event: told, checkpoint: checkpoint(5) });
    const ids = (await readAll(spool, ORDERS, "bulk")).map(({ id }) => id);
    assert.deepEqual(ids, ["id-11", "id-12", "id-99", "id-14", "id-15"]);
    assert.deepEqual((await readAll(spool, ORDERS, "bulk"))[2]?.otherLaneThrough, 0);
    await spool.close();
    assert.deepEqual((await verifySpool(dir)).faults, []);
  });

  it("whose live lane is cut unbinds what waits in the bulk lane, also after a start", async (t) => {
    const dir = await stateDirOf(t);
    let spool = await openSpool(dir, { tuning: { everyBytes: 1 } });
    const barrier = event(2, { kind: "control", barrier: true });
    await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
    await spool.append({ events: [event(3, { lane: "bulk" })], checkpoint: checkpoint(2) });
    await spool.append({ events: [barrier], checkpoint: checkpoint(3) });
    await spool.append({ events: [event(4, { lane: "bulk" })], checkpoint: checkpoint(4) });
    await spool.close();
    await deleteKey(queueKey(1, { tag: 1, lane: "live" }, 2))(dir);
    spool = await openSpool(dir, { tuning: { everyBytes: 1 } });
    await spool.damages.rewind(live);
    assert.equal(spool.checkpoint()?.position, 2);
    // The same barrier comes again, after what once came after it: they must not wait for each other.
    await spool.append({ events: [barrier], checkpoint: checkpoint(3) });
    await spool.append({ events: [event(5, { lane: "bulk" })], checkpoint: checkpoint(4) });
    for (const round of ["before", "after"]) {
      const [, state] = spool.queues();
      assert.deepEqual([state?.lane, state?.last, state?.unboundThrough], ["bulk", 3, 2], round);
      assert.deepEqual((await readAll(spool, ORDERS)).at(-1), spooled(barrier, 2, 2), round);
      assert.deepEqual(
        (await readAll(spool, ORDERS, "bulk")).map((one) => one.otherLaneThrough),
        [0, 2, 2],
        round,
      );
      await spool.close();
      spool = await openSpool(dir, { tuning: { everyBytes: 1 } });
    }
    await spool.close();
  });

  it("takes back nothing of what was read or asked for, where capture goes back", async (t) => {
    const dir = await stateDirOf(t);
    let spool = await openSpool(dir, { tuning: { everyBytes: 1 } });
    await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
    await spool.append({ events: [event(2)], checkpoint: checkpoint(2) });
    const snapshot = withJobs({ generation: 4, paused: true, jobs: [], complete: ["sales_order"] }, [
      { table: "customer_entity", reason: "resync", scope: { kind: "all" }, topic: null },
    ]);
    await spool.append({ events: [event(3)], checkpoint: { ...checkpoint(3), snapshot } });
    await spool.close();
    await deleteKey(queueKey(1, { tag: 1, lane: "live" }, 2))(dir);
    spool = await openSpool(dir, { tuning: { everyBytes: 1 } });
    assert.equal((await readAll(spool, ORDERS)).length, 1);
    await spool.damages.rewind(live);
    assert.deepEqual(spool.checkpoint(), { ...checkpoint(1), snapshot });
    await spool.close();
  });

  it("loses records of a lane that its table of queues does not name: no checkpoint covers them", async (t) => {
    const dir = await stateDirOf(t);
    let spool = await openSpool(dir);
    await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
    await spool.close();
    await putStranger(queueKey(1, { tag: 1, lane: "bulk" }, 2))(dir);
    spool = await openSpool(dir);
    const rows = [event(2, { lane: "bulk" }), event(3, { lane: "bulk" }), event(4, { lane: "bulk" })];
    await spool.append({ events: rows, checkpoint: checkpoint(2) });
    await spool.close();
    assert.deepEqual((await verifySpool(dir)).faults, []);
    spool = await openSpool(dir);
    assert.equal((await readAll(spool, ORDERS, "bulk")).length, 3);
    await spool.close();
  });
});
