import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { entriesOf } from "../../agent/spool/database.ts";
import { parseQueueKey, queueRoom } from "../../agent/spool/keys.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import {
  checkpoint,
  CUSTOMERS,
  event,
  eventually,
  openSpool,
  ORDERS,
  plain,
  randomOf,
  readAll,
  seedOf,
  spooled,
  stateDirOf,
  tamper,
} from "./fixtures.ts";

/** First numbers of the records of the queue with that tag, as they lie on disk. */
async function recordsOnDisk(dir: string, tag: number): Promise<number[]> {
  const found: number[] = [];
  await tamper(dir, async (database) => {
    for await (const [key] of entriesOf(database, queueRoom)) {
      const place = parseQueueKey(key);
      if (place?.tag === tag) found.push(place.seq);
    }
  });
  return found;
}

/** Waits until the spool has written its cursors and deletes. */
async function upkeepDone(spool: Spool): Promise<void> {
  await spool.meta.put("barrier", 1);
  await spool.meta.put("barrier", 2);
}

describe("records of several events", () => {
  it("hold events of one queue that came together, within their limits", async (t) => {
    const dir = await stateDirOf(t);
    const spool = await openSpool(dir);
    const small = Array.from({ length: 600 }, (_, n) => event(n, { payload: Buffer.alloc(10, "x") }));
    const large = Array.from({ length: 4 }, (_, n) =>
      event(n, { queue: CUSTOMERS, payload: Buffer.alloc(80_000, "x") }),
    );
    const huge = event(9, { queue: CUSTOMERS, payload: Buffer.alloc(300_000, "x") });
    await spool.append({ events: [...small, ...large, huge], checkpoint: checkpoint(1) });
    assert.equal((await readAll(spool, ORDERS)).length, 600);
    assert.equal((await readAll(spool, CUSTOMERS)).length, 5);
    await spool.close();
    assert.deepEqual(await recordsOnDisk(dir, 1), [1, 257, 513]);
    assert.deepEqual(await recordsOnDisk(dir, 2), [1, 2, 3, 4, 5]);
    const { faults, queues } = await verifySpool(dir);
    assert.deepEqual(faults, []);
    assert.deepEqual(
      queues.map(({ events }) => events),
      [600, 5],
    );
  });

  it("give what follows the acknowledged event after a start in the midst of one", async (t) => {
    const random = randomOf(seedOf(t));
    const dir = await stateDirOf(t);
    const all = Array.from({ length: 1000 }, (_, n) => event(n));
    let spool = await openSpool(dir);
    for (let at = 0; at < all.length;) {
      const to = Math.min(all.length, at + 1 + Math.floor(random() * 90));
      await spool.append({ events: all.slice(at, to), checkpoint: checkpoint(to) });
      at = to;
    }
    let acked = 0;
    while (acked < all.length) {
      const step = 1 + Math.floor(random() * 150);
      const limits = { maxEvents: step, maxBytes: 1 + Math.floor(random() * 40_000) };
      // Others look at the head while the queue is read.
      const [events, [head]] = await Promise.all([
        spool.read(ORDERS, acked, limits),
        spool.read(ORDERS, acked, { maxEvents: 1, maxBytes: 1 }),
      ]);
      const expected = all.slice(acked, acked + events.length);
      assert.deepEqual(
        events.map(plain),
        expected.map((each, at) => spooled(each, acked + 1 + at)),
      );
      assert.equal(head?.id, events[0]?.id);
      acked += 1 + Math.floor(random() * events.length);
      spool.ack(ORDERS, Math.min(acked, all.length));
      if (random() < 0.3) {
        await upkeepDone(spool);
        await spool.close();
        assert.deepEqual((await verifySpool(dir)).faults, []);
        const [first] = await recordsOnDisk(dir, 1);
        assert.ok(first === undefined || first <= acked + 1, `${first} is kept, ${acked} is acknowledged`);
        spool = await openSpool(dir);
      }
    }
    assert.deepEqual(await readAll(spool, ORDERS), []);
    await spool.close();
  });

  it("are all deleted once all of their events are acknowledged, and not before", async (t) => {
    const dir = await stateDirOf(t);
    let spool = await openSpool(dir);
    for (let at = 0; at < 10; at += 1) {
      const events = Array.from({ length: 10 }, (_, n) => event(at * 10 + n));
      await spool.append({ events, checkpoint: checkpoint(at + 1) });
    }
    assert.equal((await spool.read(ORDERS, 0, { maxEvents: 45, maxBytes: 1e6 })).length, 45);
    spool.ack(ORDERS, 45);
    await upkeepDone(spool);
    await spool.close();
    assert.deepEqual(await recordsOnDisk(dir, 1), [41, 51, 61, 71, 81, 91]);
    spool = await openSpool(dir);
    assert.equal((await spool.read(ORDERS, 45, { maxEvents: 99, maxBytes: 1e6 })).length, 55);
    spool.ack(ORDERS, 100);
    await spool.close();
    // The cursors are on disk, the deletes were cut off by the end: the next start finds what is left.
    spool = await openSpool(dir);
    await eventually(() => spool.stats().events === 0, "nothing waits");
    await upkeepDone(spool);
    await eventually(async () => {
      await spool.close();
      const left = await recordsOnDisk(dir, 1);
      spool = await openSpool(dir);
      await upkeepDone(spool);
      return left.length === 0;
    }, "everything is deleted");
    await spool.close();
  });
});
