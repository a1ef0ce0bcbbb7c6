import assert from "node:assert/strict";
import { test } from "node:test";
import { BodyBuffers } from "../../agent/forward/body-buffers.ts";

test("gives bytes of exactly the asked length, and the same memory again only after it was given back", () => {
  const bodies = new BodyBuffers();
  const first = bodies.take(100_000);
  const second = bodies.take(90_000);
  assert.deepEqual([first.length, second.length], [100_000, 90_000]);
  assert.notEqual(first.buffer, second.buffer);
  bodies.giveBack(first);
  const third = bodies.take(110_000);
  assert.equal(third.length, 110_000);
  assert.equal(third.buffer, first.buffer);
});

test("does not keep a body that is too large, nor more than a few", () => {
  const bodies = new BodyBuffers();
  const large = bodies.take(1024 * 1024);
  bodies.giveBack(large);
  assert.notEqual(bodies.take(1024 * 1024).buffer, large.buffer);
  const taken = Array.from({ length: 10 }, () => bodies.take(1000));
  for (const body of taken) bodies.giveBack(body);
  const known = new Set(taken.map((body) => body.buffer));
  const again = Array.from({ length: 10 }, () => bodies.take(1000));
  assert.equal(again.filter((body) => known.has(body.buffer)).length, 4);
});
