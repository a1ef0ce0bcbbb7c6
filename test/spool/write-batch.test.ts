import assert from "node:assert/strict";
import { test } from "node:test";
import { BatchMemory, type BatchOperation } from "../../agent/spool/write-batch.ts";

/** What stands in the operations now: their bytes are used again later. */
function readOff(operations: readonly BatchOperation[]): string[] {
  return operations.map(
    (one) => `${one.type} ${String(one.key)}${one.type === "put" ? `=${String(one.value)}` : ""}`,
  );
}

test("a batch copies what it is given, and keeps its bytes until they are written", async () => {
  const underWay: { readonly operations: BatchOperation[]; readonly done: PromiseWithResolvers<void> }[] = [];
  const memory = new BatchMemory((operations) => {
    const done = Promise.withResolvers<void>();
    underWay.push({ operations, done });
    return done.promise;
  });
  const key = Buffer.from("key-1");
  const large = Buffer.alloc(300 * 1024, "L");
  const first = memory.batch();
  first.put(key, Buffer.from("one"));
  first.put(key, large);
  first.del(key);
  key.write("key-2");
  large.fill("x");
  const firstWritten = first.write({ sync: true });
  const second = memory.batch();
  for (let at = 0; at < 1000; at += 1) second.put(key, Buffer.alloc(1000, "s"));
  const secondWritten = second.write({ sync: true });
  const [one, two] = underWay;
  assert.ok(one !== undefined && two !== undefined);
  assert.deepEqual(readOff(one.operations), [
    "put key-1=one",
    `put key-1=${"L".repeat(300 * 1024)}`,
    "del key-1",
  ]);
  one.done.resolve();
  await firstWritten;
  memory.batch().put(key, Buffer.from("in the memory of the first"));
  assert.ok(readOff(two.operations).every((text) => text === `put key-2=${"s".repeat(1000)}`));
  two.done.reject(new Error("the disk is gone"));
  await assert.rejects(secondWritten, /the disk is gone/);
});
