import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Fifo } from "../../agent/forward/fifo.ts";
import { seededRandom } from "./fakes.ts";

test("gives what came first, whatever the mix of coming and going", () => {
  const random = seededRandom(11);
  const fifo = new Fifo<number>();
  const expected: number[] = [];
  for (let round = 0; round < 20_000; round++) {
    // It fills up to some thousands, so that the room before the head is given back, too.
    if (random() < (round < 12_000 ? 0.7 : 0.4)) {
      fifo.push(round);
      expected.push(round);
    } else {
      assert.equal(fifo.peek(), expected[0]);
      fifo.shift();
      expected.shift();
    }
    assert.equal(fifo.length, expected.length);
  }
  assert.ok(expected.length > 1024);
  for (const item of expected) {
    assert.equal(fifo.peek(), item);
    fifo.shift();
  }
  assert.equal(fifo.peek(), undefined);
  fifo.shift();
  assert.equal(fifo.length, 0);
});

test("keeps nothing of what was taken, while others wait behind it", async () => {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  assert.ok(typeof collect === "function");
  const fifo = new Fifo<object>();
  const pushed = Array.from({ length: 10 }, () => {
    const item = {};
    fifo.push(item);
    return new WeakRef(item);
  });
  for (let n = 0; n < 5; n++) fifo.shift();
  // A reference that was just made holds until the next turn.
  await new Promise(setImmediate);
  collect();
  assert.deepEqual(
    pushed.map((item) => item.deref() !== undefined),
    [false, false, false, false, false, true, true, true, true, true],
  );
});
