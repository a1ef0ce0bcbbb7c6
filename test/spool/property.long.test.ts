/** Random appends, reads, acknowledgements and reopens against a model in memory. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { Lane, OutboundEvent, SpooledEvent } from "../../agent/change.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import { checkpoint, event, openSpool, plain, randomOf, seedOf, spooled, stateDirOf } from "./fixtures.ts";

const QUEUES = ["a", "b", "c", "d"] as const;

class ModelLane {
  readonly queue: string;
  readonly lane: Lane;
  readonly records: SpooledEvent[] = [];
  acked = 0;
  barrierAt = 0;

  constructor(queue: string, lane: Lane) {
    this.queue = queue;
    this.lane = lane;
  }
}

class Model {
  readonly lanes = new Map<string, ModelLane>();
  position = 0;

  laneOf(queue: string, lane: Lane): ModelLane {
    const known = this.lanes.get(`${queue} ${lane}`);
    if (known !== undefined) return known;
    if (lane === "bulk") this.laneOf(queue, "live");
    const fresh = new ModelLane(queue, lane);
    this.lanes.set(`${queue} ${lane}`, fresh);
    return fresh;
  }

  append(appended: OutboundEvent): void {
    const own = this.laneOf(appended.queue, appended.lane);
    const other = this.lanes.get(`${appended.queue} ${appended.lane === "live" ? "bulk" : "live"}`);
    const seq = own.records.length + 1;
    const behind = appended.barrier
      ? (other?.records.length ?? 0)
      : appended.lane === "bulk"
        ? (other?.barrierAt ?? 0)
        : 0;
    if (appended.barrier) own.barrierAt = seq;
    own.records.push(spooled(appended, seq, behind));
  }

  check(spool: Spool): void {
    assert.equal(spool.checkpoint()?.position ?? 0, this.position);
    const known = Array.from(this.lanes.values(), ({ queue, lane, acked, records }) => ({
      queue,
      lane,
      acked,
      last: records.length,
      readable: records.length,
      unboundThrough: 0,
    }));
    assert.deepEqual(spool.queues(), known);
  }
}

it("behaves like a list per lane of a queue under any sequence of calls (invariants 1 and 4)", async (t) => {
  const random = randomOf(seedOf(t));
  const below = (limit: number): number => Math.floor(random() * limit);
  const dir = await stateDirOf(t);
  const tuning = { compactStepBytes: 20_000, compactIdleMs: 5, segmentBytes: 4_000 };
  const model = new Model();
  let spool = await openSpool(dir, { tuning });
  let made = 0;
  const append = (): Promise<void> => {
    const events = Array.from({ length: below(8) }, () => {
      made += 1;
      const queue = QUEUES[below(1 + below(QUEUES.length))] ?? "a";
      const lane = below(3) === 0 ? "bulk" : "live";
      const barrier = below(20) === 0;
      return event(made, {
        queue,
        lane,
        barrier,
        payload: Buffer.alloc(below(3) === 0 ? below(60_000) : below(300), made),
      });
    });
    for (const each of events) model.append(each);
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
      const all = [...model.lanes.values()];
      const own = all[below(all.length)];
      if (own === undefined) continue;
      const { queue, lane, acked, records } = own;
      const after = acked + below(records.length - acked + 1);
      const limits = { maxEvents: 1 + below(20), maxBytes: 1 + below(100_000) };
      const events = await spool.read(queue, after, limits, lane);
      assert.deepEqual(events.map(plain), records.slice(after, after + events.length), `step ${step}`);
      assert.equal(
        events.length === 0,
        after === records.length,
        `step ${step}: a read before the end gives something`,
      );
      const last = events.at(-1);
      if (last !== undefined && below(2) === 0) {
        spool.ack(queue, last.seq, lane);
        own.acked = last.seq;
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
