/** The same promises, on LevelDB and on another database, and again after close and reopen. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import type { Lane } from "../../agent/change.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { QueueState } from "../../agent/ports.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import type { SpoolOptions } from "../../agent/spool/spool-options.ts";
import {
  checkpoint,
  CUSTOMERS,
  event,
  eventually,
  memoryDatabase,
  openSpool,
  ORDERS,
  quarantinedIn,
  readAll,
  spooled,
  stateDirOf,
  Witness,
  plain,
} from "./fixtures.ts";

type Opener = (options?: Partial<SpoolOptions> & { readonly witness?: Witness }) => Promise<Spool>;

async function levelOpener(t: TestContext): Promise<Opener> {
  const dir = await stateDirOf(t);
  return (options) => openSpool(dir, options);
}

async function memoryOpener(t: TestContext): Promise<Opener> {
  const dir = await stateDirOf(t);
  const database = memoryDatabase();
  return (options) => openSpool(dir, { database, ...options });
}

function stateOf(queue: string, acked: number, last: number, lane: Lane = "live"): QueueState {
  return { queue, lane, acked, last, readable: last, unboundThrough: 0 };
}

const verdict = { code: "X", reason: "refused", attempts: 3, deadLetterAccepted: false, about: null };

for (const [name, opener] of [
  ["LevelDB", levelOpener],
  ["memory-level", memoryOpener],
] as const) {
  describe(`spool contract on ${name}`, () => {
    it("gives back what was appended, in order and by queue, also after a reopen", async (t) => {
      const open = await opener(t);
      let spool = await open();
      assert.equal(spool.checkpoint(), null);
      assert.deepEqual(spool.queues(), []);
      const first = [event(1), event(2, { queue: CUSTOMERS }), event(3, { kind: "control", barrier: true })];
      await spool.append({ events: first, checkpoint: checkpoint(10) });
      await spool.append({ events: [event(4)], checkpoint: checkpoint(20) });
      for (const round of ["before", "after"]) {
        assert.deepEqual(spool.checkpoint(), checkpoint(20), round);
        assert.deepEqual(spool.queues(), [stateOf(ORDERS, 0, 3), stateOf(CUSTOMERS, 0, 1)]);
        const orders = [event(1), event(3, { kind: "control", barrier: true }), event(4)];
        assert.deepEqual(
          await readAll(spool, ORDERS),
          orders.map((each, at) => spooled(each, at + 1)),
        );
        assert.deepEqual(await readAll(spool, CUSTOMERS), [spooled(event(2, { queue: CUSTOMERS }), 1)]);
        await spool.close();
        spool = await open();
      }
      await spool.close();
    });

    it("has a checkpoint without events on disk when its append resolves, where that is asked for", async (t) => {
      const witness = new Witness();
      const spool = await (await opener(t))({ witness });
      await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
      const synced = witness.syncs.length;
      await spool.append({ events: [], checkpoint: checkpoint(2) });
      assert.equal(witness.syncs.length, synced, "progress alone is no fsync of its own");
      await spool.append({ events: [], checkpoint: checkpoint(3), durable: true });
      assert.equal(witness.syncs.length, synced + 1);
      assert.equal(spool.checkpoint()?.position, 3);
      await spool.close();
    });

    it("numbers, reads and acknowledges the two lanes of a queue each by itself, also after a reopen", async (t) => {
      const open = await opener(t);
      let spool = await open();
      const bulk = [1, 2, 3].map((n) => event(n, { lane: "bulk", op: "r" }));
      await spool.append({ events: [...bulk, event(4)], checkpoint: checkpoint(1) });
      spool.ack(ORDERS, 1);
      spool.ack(ORDERS, 2, "bulk");
      for (const round of ["before", "after"]) {
        assert.deepEqual(spool.queues(), [stateOf(ORDERS, 1, 1), stateOf(ORDERS, 2, 3, "bulk")], round);
        assert.deepEqual(await readAll(spool, ORDERS), []);
        assert.deepEqual(
          await readAll(spool, ORDERS, "bulk"),
          bulk.slice(2).map((one) => spooled(one, 3)),
        );
        await spool.close();
        spool = await open();
      }
      await spool.append({
        events: [event(5), event(6, { lane: "bulk", op: "r" })],
        checkpoint: checkpoint(2),
      });
      assert.deepEqual(
        (await readAll(spool, ORDERS)).map(({ id, seq }) => [id, seq]),
        [["id-5", 2]],
      );
      assert.deepEqual(
        (await readAll(spool, ORDERS, "bulk")).map(({ id, seq }) => [id, seq]),
        [
          ["id-3", 3],
          ["id-6", 4],
        ],
      );
      await spool.close();
    });

    it("says of a barrier where the other lane ended, and of bulk work which live barrier it follows", async (t) => {
      const open = await opener(t);
      let spool = await open();
      const live = event(1);
      const row = event(2, { lane: "bulk" });
      const liveBarrier = event(3, { kind: "control", barrier: true });
      const later = event(4, { lane: "bulk" });
      const bulkBarrier = event(5, { kind: "control", lane: "bulk", barrier: true });
      await spool.append({ events: [live, row, liveBarrier, later], checkpoint: checkpoint(1) });
      await spool.close();
      spool = await open();
      await spool.append({ events: [live, bulkBarrier, live, later], checkpoint: checkpoint(2) });
      assert.deepEqual(await readAll(spool, ORDERS), [
        spooled(live, 1),
        spooled(liveBarrier, 2, 1),
        spooled(live, 3),
        spooled(live, 4),
      ]);
      assert.deepEqual(await readAll(spool, ORDERS, "bulk"), [
        spooled(row, 1),
        spooled(later, 2, 2),
        spooled(bulkBarrier, 3, 3),
        spooled(later, 4, 2),
      ]);
      await spool.close();
    });

    it("keeps quarantined events of the two lanes apart", async (t) => {
      const open = await opener(t);
      let spool = await open();
      await spool.append({
        events: [event(1), event(2, { lane: "bulk" })],
        checkpoint: checkpoint(1),
      });
      for (const lane of ["live", "bulk"] as const) {
        for (const each of await readAll(spool, ORDERS, lane)) await spool.quarantine(each, verdict);
      }
      await spool.close();
      spool = await open();
      assert.equal((await spool.quarantined.find("id-2"))?.event.lane, "bulk");
      assert.equal(await spool.quarantined.drop(ORDERS, 1, "bulk"), true);
      assert.deepEqual(
        [spool.quarantined.has(ORDERS, 1), spool.quarantined.has(ORDERS, 1, "bulk")],
        [true, false],
      );
      await spool.close();
    });

    it("keeps to the read's limits and delivers at least one record", async (t) => {
      const spool = await (await opener(t))();
      const events = Array.from({ length: 50 }, (_, n) => event(n, { payload: Buffer.alloc(1000) }));
      await spool.append({ events, checkpoint: checkpoint(1) });
      assert.equal((await spool.read(ORDERS, 0, { maxEvents: 7, maxBytes: 1e9 })).length, 7);
      assert.equal((await spool.read(ORDERS, 0, { maxEvents: 50, maxBytes: 1 })).length, 1);
      const some = await spool.read(ORDERS, 10, { maxEvents: 50, maxBytes: 5000 });
      assert.deepEqual(
        some.map(({ seq }) => seq),
        [11, 12, 13, 14, 15],
      );
      assert.deepEqual(await spool.read(ORDERS, 50, { maxEvents: 9, maxBytes: 9 }), []);
      assert.deepEqual(await spool.read("unknown", 0, { maxEvents: 9, maxBytes: 9 }), []);
      await spool.close();
    });

    it("goes on after what was acknowledged, and numbers on where it was", async (t) => {
      const open = await opener(t);
      let spool = await open();
      await spool.append({ events: [event(1), event(2), event(3)], checkpoint: checkpoint(1) });
      spool.ack(ORDERS, 2);
      await spool.close();
      spool = await open();
      assert.deepEqual(spool.queues(), [stateOf(ORDERS, 2, 3)]);
      spool.ack(ORDERS, 3);
      spool.ack(ORDERS, 1);
      await spool.close();
      spool = await open();
      await spool.append({ events: [event(4)], checkpoint: checkpoint(2) });
      assert.deepEqual(await readAll(spool, ORDERS), [spooled(event(4), 4)]);
      await spool.close();
    });

    it("moves the checkpoint without an fsync of its own when nothing of ours happened", async (t) => {
      const open = await opener(t);
      const witness = new Witness();
      let spool = await open({ witness });
      await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
      for (let position = 2; position < 500; position++) {
        await spool.append({ events: [], checkpoint: checkpoint(position) });
      }
      assert.equal(spool.checkpoint()?.position, 499);
      assert.equal(witness.syncs.length, 1);
      await spool.close();
      spool = await open();
      assert.equal(spool.checkpoint()?.position, 499);
      await spool.close();
    });

    it("writes index changes with the events, and reads them by key and prefix", async (t) => {
      const open = await opener(t);
      let spool = await open();
      const child = (id: string): Buffer => Buffer.from(`order|12|order-item|${id}`);
      const index = ["1", "2", "3"].map((id) => ({ key: child(id), value: Buffer.from(`v${id}`) }));
      await spool.append({ events: [event(1)], checkpoint: checkpoint(1), index });
      await spool.append({
        events: [],
        checkpoint: checkpoint(2),
        index: [
          { key: child("2"), value: null },
          { key: Buffer.from("order|123"), value: Buffer.from("other") },
        ],
      });
      await spool.close();
      spool = await open();
      assert.equal(spool.checkpoint()?.position, 2);
      assert.equal((await spool.index.get(child("1")))?.toString(), "v1");
      assert.equal(await spool.index.get(child("2")), null);
      const found: string[] = [];
      for await (const entry of spool.index.entries(Buffer.from("order|12|"))) {
        found.push(entry.value.toString());
      }
      assert.deepEqual(found, ["v1", "v3"]);
      await spool.close();
    });

    it("keeps the agent's own small values", async (t) => {
      const open = await opener(t);
      let spool = await open();
      assert.equal(await spool.meta.get("identity"), undefined);
      await spool.meta.put("identity", { shop: "magento", namespace: "n" });
      await spool.close();
      spool = await open();
      assert.deepEqual(await spool.meta.get("identity"), { shop: "magento", namespace: "n" });
      await spool.close();
    });

    it("keeps quarantined events until they are dropped or too old", async (t) => {
      const open = await opener(t);
      let spool = await open();
      await spool.append({ events: [event(1), event(2)], checkpoint: checkpoint(1) });
      for (const each of await readAll(spool, ORDERS)) {
        await spool.quarantine(each, verdict);
        await spool.quarantine(each, verdict);
      }
      spool.ack(ORDERS, 2);
      await spool.close();
      spool = await open();
      assert.equal(spool.stats().quarantined, 2);
      const listed = await quarantinedIn(spool);
      assert.deepEqual(
        listed.map((each) => [each.event, each.verdict]),
        [
          [spooled(event(1), 1), verdict],
          [spooled(event(2), 2), verdict],
        ],
      );
      assert.equal(await spool.quarantined.drop(ORDERS, 1), true);
      assert.equal(await spool.quarantined.drop(ORDERS, 1), false);
      assert.equal(await spool.quarantined.get(ORDERS, 1), null);
      const got = await spool.quarantined.get(ORDERS, 2);
      assert.ok(got !== null);
      assert.deepEqual(plain(got.event), spooled(event(2), 2));
      await spool.close();
      const later = { ...systemClock, wallMs: () => Date.now() + 31 * 24 * 3600 * 1000 };
      spool = await open({ clock: later });
      await eventually(() => spool.stats().quarantined === 0, "the old one expires");
      assert.deepEqual(await quarantinedIn(spool), []);
      await spool.close();
    });

    it("tells of the queues that grew, after they grew", async (t) => {
      const spool = await (await opener(t))();
      const told: string[][] = [];
      const stop = spool.onAppended((queues) => {
        assert.equal(spool.queues().length, 2);
        told.push([...queues]);
      });
      const events = [event(1), event(2, { queue: CUSTOMERS }), event(3)];
      await spool.append({ events, checkpoint: checkpoint(1) });
      await spool.append({ events: [], checkpoint: checkpoint(2) });
      stop();
      await spool.append({ events: [event(4)], checkpoint: checkpoint(3) });
      assert.deepEqual(told, [[ORDERS, CUSTOMERS]]);
      await spool.close();
    });

    it("counts what waits, its bytes and its oldest", async (t) => {
      const open = await opener(t);
      let spool = await open();
      const events = Array.from({ length: 10 }, (_, n) => event(n, { payload: randomBytes(1000) }));
      await spool.append({ events, checkpoint: checkpoint(1) });
      spool.ack(ORDERS, 4);
      for (const round of ["before", "after"]) {
        const stats = spool.stats();
        assert.equal(stats.events, 6, round);
        assert.ok(stats.bytes > 6000 && stats.bytes < 7000, `${stats.bytes} bytes`);
        await eventually(
          () => spool.stats().queues[0]?.oldestCapturedAtMs === event(4).capturedAtMs,
          "the oldest is known",
        );
        await spool.close();
        spool = await open();
      }
      spool.ack(ORDERS, 10);
      assert.equal(spool.stats().events, 0);
      assert.equal(spool.stats().bytes, 0);
      assert.equal(spool.stats().queues[0]?.oldestCapturedAtMs, null);
      await spool.close();
    });

    it("refuses every call after close, and can be closed twice", async (t) => {
      const spool = await (await opener(t))();
      await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
      await spool.close();
      await spool.close();
      await assert.rejects(spool.append({ events: [event(2)], checkpoint: checkpoint(2) }), {
        name: "AbortError",
      });
      await assert.rejects(spool.read(ORDERS, 0, { maxEvents: 1, maxBytes: 1 }), {
        name: "AbortError",
      });
    });
  });
}
