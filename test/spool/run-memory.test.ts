/** When the bytes that a run was decompressed into are given back. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { SpooledEvent } from "../../agent/change.ts";
import { queueKey } from "../../agent/spool/keys.ts";
import { RecordEncoder, RunReader } from "../../agent/spool/record.ts";
import { areAlone } from "../../agent/spool/run-memory.ts";
import { event, ORDERS, plain, randomOf, seedOf } from "./fixtures.ts";

const key = queueKey(3, { tag: 3, lane: "live" }, 1);

const place = { queue: ORDERS, lane: "live", seq: 1 } as const;
/** Enough that Node does not take the memory out of the pool for small buffers. */
const payload = Buffer.alloc(1000, "some text that is packed well ");

function recordOf(count: number): Buffer {
  const given = Array.from({ length: count }, (_, n) => event(n, { payload }));
  return Buffer.from(new RecordEncoder().run(key, given, { from: 0, to: count }));
}

/** As it stands now; the payload of `plain` is a view of memory that goes. */
function copyOf(one: SpooledEvent): SpooledEvent {
  return { ...plain(one), payload: Buffer.from(one.payload) };
}

function readRest(run: RunReader): SpooledEvent[] {
  const events: SpooledEvent[] = [];
  while (run.next <= run.last) {
    const found = run.read();
    assert.ok(found !== null);
    events.push(found);
  }
  return events;
}

describe("the memory of a compressed run", () => {
  it("is given back with the last event that needs it, in whatever order they are done, detached or left out", (t) => {
    const random = randomOf(seedOf(t));
    for (let round = 0; round < 100; round++) {
      const run = new RunReader(key, recordOf(60), place);
      run.skipTo(1 + Math.floor(random() * 59));
      const events = readRest(run);
      const expected = events.map(copyOf);
      const bytes = events[0]?.bytes?.of;
      assert.ok(bytes !== undefined && bytes.length > 0);
      const detached = new Set<number>();
      const left = events.map((_, at) => at);
      while (left.length > 0) {
        assert.ok(bytes.length > 0, `${left.length} need it`);
        for (const at of left) assert.equal(events[at]?.id, expected[at]?.id);
        const [at = 0] = left.splice(Math.floor(random() * left.length), 1);
        if (random() < 0.3) {
          events[at]?.bytes?.detach();
          detached.add(at);
        } else events[at]?.bytes?.release();
      }
      assert.equal(bytes.length, 0);
      assert.equal(bytes.buffer.byteLength, 0);
      for (const at of detached) {
        const kept = events[at];
        assert.ok(kept !== undefined);
        assert.deepEqual(plain(kept), expected[at]);
        // Done at last, and done again by whoever comes late: it is counted once.
        kept.bytes?.release();
        kept.bytes?.detach();
        assert.deepEqual(plain(kept), expected[at]);
      }
    }
  });

  it("is one piece that a reader makes for itself: another one of the same record is not touched", () => {
    const value = recordOf(60);
    const [one, other] = [
      readRest(new RunReader(key, value, place)),
      readRest(new RunReader(key, value, place)),
    ];
    const expected = other.map(copyOf);
    for (const each of one) each.bytes?.release();
    assert.equal(one[0]?.bytes?.of.length, 0);
    assert.deepEqual(other.map(plain), expected);
  });

  it("of a record that is not compressed is left to its reader", () => {
    const run = new RunReader(key, recordOf(2), place);
    assert.equal(run.memory, null);
    const events = readRest(run);
    const expected = events.map(copyOf);
    for (const each of events) each.bytes?.release();
    assert.deepEqual(events.map(plain), expected);
  });

  it("is nobody's who has a part of more", () => {
    const whole = Buffer.allocUnsafeSlow(100);
    assert.ok(areAlone(whole));
    assert.ok(areAlone(whole.subarray(0, 99)));
    assert.ok(!areAlone(whole.subarray(0, 98)));
    assert.ok(!areAlone(whole.subarray(1)));
    assert.ok(!areAlone(Buffer.from("in the pool that all share")));
  });
});
