/** Random appends, reads, acknowledgements and reopens against a model in memory. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { OutboundEvent } from "../../agent/change.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import { checkpoint, event, openSpool, randomOf, seedOf, spooled, stateDirOf } from "./fixtures.ts";

const QUEUES = ["a", "b", "c", "d"] as const;

class Model {
  readonly records = new Map<string, OutboundEvent[]>();
  readonly acked = new Map<string, number>();
  position = 0;

  check(spool: Spool): void {
    assert.equal(spool.checkpoint()?.position ?? 0, this.position);
    const known = [...this.records].map(([queue, records]) => ({
      queue,
      acked: this.acked.get(queue) ?? 0,
      last: records.length,
      readable: records.length,
    }));
    assert.deepEqual(spool.queues(), known);
  }
}

it("behaves like a list per queue under any sequence of calls (invariants 1 and 4)", async (t) => {
  const random = randomOf(seedOf(t));
  const below = (limit: number): number => Math.floor(random() * limit);
  const dir = await stateDirOf(t);
  const tuning = { compactStepBytes: 20_000, compactIdleMs: 5 };
  const model = new Model();
  let spool = await openSpool(dir, { tuning });
  let made = 0;
  const append = (): Promise<void> => {
    const events = Array.from({ length: below(8) }, () => {
      made += 1;
      const queue = QUEUES[below(1 + below(QUEUES.length))] ?? "a";
      return event(made, { queue, payload: Buffer.alloc(below(3) === 0 ? below(60_000) : below(300), made) });
    });
    for (const each of events) {
      const records = model.records.get(each.queue) ?? [];
      records.push(each);
      model.records.set(each.queue, records);
    }
    model.position += 1;
    return spool.append({ events, checkpoint: checkpoint(model.position) });
  };
  for (let step = 0; step < 1500; step++) {
    const what = below(100);
    if (what < 40) {
      await append();
    } else if (what < 45) {
      await Promise.all(Array.from({ length: below(20) }, append));
    } else if (what < 97) {
      const queue = QUEUES[below(QUEUES.length)] ?? "a";
      const acked = model.acked.get(queue) ?? 0;
      const records = model.records.get(queue) ?? [];
      const after = acked + below(records.length - acked + 1);
      const events = await spool.read(queue, after, {
        maxEvents: 1 + below(20),
        maxBytes: 1 + below(100_000),
      });
      const expected = records.slice(after, after + events.length);
      assert.deepEqual(
        events,
        expected.map((each, at) => spooled(each, after + 1 + at)),
        `step ${step}`,
      );
      assert.equal(
        events.length === 0,
        after === records.length,
        `step ${step}: a read before the end gives something`,
      );
      const last = events.at(-1);
      if (last !== undefined && below(2) === 0) {
        spool.ack(queue, last.seq);
        model.acked.set(queue, last.seq);
      }
    } else {
      model.check(spool);
      await spool.close();
      assert.deepEqual((await verifySpool(dir)).faults, []);
      spool = await openSpool(dir, { tuning });
    }
    if (what % 10 === 0) model.check(spool);
  }
  model.check(spool);
  await spool.close();
});
