import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { it } from "node:test";
import { checkpoint, event, openSpool, ORDERS, stateDirOf } from "./fixtures.ts";

/** Anonymous memory of the process that is not V8's: LevelDB, the addon, what malloc keeps. */
async function nativeBytes(): Promise<number> {
  const status = await readFile("/proc/self/status", "utf8");
  const anonymous = Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]) * 1024;
  const { heapTotal, external } = process.memoryUsage();
  return anonymous - heapTotal - external;
}

it("reads and appends a backlog in bounded native memory (invariant 7)", async (t) => {
  const spool = await openSpool(await stateDirOf(t));
  const payload = Buffer.alloc(1500, "some text that is packed well ");
  const before = await nativeBytes();
  for (let n = 0; n < 30_000; n += 200) {
    const events = Array.from({ length: 200 }, (_, at) => event(n + at, { payload }));
    await spool.append({ events, checkpoint: checkpoint(n) });
  }
  // Many small reads of 180 MB in all: what one of them leaves behind must not add up. LevelDB's own
  // buffers, and what malloc keeps, come to 15 to 36 MB.
  for (let round = 0; round < 4; round++) {
    for (let after = 0; after < 30_000; after += 100) {
      assert.equal((await spool.read(ORDERS, after, { maxEvents: 100, maxBytes: 1e6 })).length, 100);
    }
  }
  const grown = Math.round(((await nativeBytes()) - before) / 1024 / 1024);
  t.diagnostic(`${grown} MB`);
  assert.ok(grown < 64, `native memory grew by ${grown} MB`);
});
