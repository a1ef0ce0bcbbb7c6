import assert from "node:assert/strict";
import { test } from "node:test";
import type { Position } from "../../agent/change.ts";
import { watchSilence } from "../../agent/source/silent-stream.ts";

const at = (position: number, file = "binlog.000001"): Position => ({ file, position });

/** Looks once for each pair: where the stream reads, and where the server's binlog ends. */
async function looks(pairs: readonly (readonly [Position | null, Position | null])[]) {
  const ending = new AbortController();
  const silent: (readonly [number, Position])[] = [];
  let look = -1;
  let asked = 0;
  await watchSilence(
    {
      clock: {
        wallMs: () => 0,
        monotonicMs: () => 0,
        sleep: async () => {
          look += 1;
          if (look === pairs.length) ending.abort();
        },
      },
      lookEveryMs: 1,
      readsAt: () => pairs[look]?.[0] ?? null,
      serverEnd: async () => {
        asked += 1;
        return pairs[look]?.[1] ?? null;
      },
      silent: (end) => silent.push([look, end]),
    },
    ending.signal,
  );
  return { silent, asked };
}

test("a stream that stands while the server went on is given up at the second look", async () => {
  const found = await looks([
    [at(100), at(100)],
    [at(100), at(100)],
    [at(100), at(900)],
    [at(100), at(900)],
    [null, at(900)],
  ]);
  assert.deepEqual(found.silent, [[3, at(900)]]);
});

test("a new file of the server counts as further on", async () => {
  const end = at(4, "binlog.000002");
  const found = await looks([
    [at(100), end],
    [at(100), end],
    [at(100), end],
  ]);
  assert.deepEqual(found.silent, [[2, end]]);
});

test("a quiet shop, a stream that moves, a paused one and a server without an answer are no silence", async () => {
  const quiet = await looks(Array.from({ length: 9 }, () => [at(100), at(100)]));
  assert.deepEqual(quiet.silent, []);
  const moving = await looks(Array.from({ length: 9 }, (_, look) => [at(100 + look), at(900)]));
  assert.deepEqual([moving.silent, moving.asked], [[], 0]);
  const paused = await looks(Array.from({ length: 9 }, () => [null, at(900)]));
  assert.deepEqual([paused.silent, paused.asked], [[], 0]);
  const unanswered = await looks(Array.from({ length: 9 }, () => [at(100), null]));
  assert.deepEqual(unanswered.silent, []);
});

test("a stream that moves on between two looks is not given up", async () => {
  const found = await looks([
    [at(100), at(900)],
    [at(100), at(900)],
    [at(900), at(900)],
    [at(900), at(900)],
    [at(900), at(900)],
  ]);
  assert.deepEqual(found.silent, []);
});
