import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { indexKey } from "../../agent/spool/keys.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { checkpoint, openSpool, stateDirOf, tamper } from "./fixtures.ts";

const prefix = Buffer.from("a");

function keyOf(n: number): Buffer {
  return Buffer.from(`a${String(n).padStart(6, "0")}`);
}

function valueOf(number: number): Buffer {
  return Buffer.from([number]);
}

const isOld = (value: Buffer): boolean => value[0] === 1;

async function fill(spool: Spool, records: number): Promise<void> {
  const index = Array.from({ length: records }, (_, n) => ({ key: keyOf(n), value: valueOf(1) }));
  const beside = ["Z", "b"].map((key) => ({ key: Buffer.from(key), value: valueOf(1) }));
  await spool.append({ events: [], checkpoint: checkpoint(1), index: [...index, ...beside] });
}

async function sweep(spool: Spool) {
  let from: Buffer | null = null;
  const total = { steps: 0, removed: 0, damaged: 0 };
  do {
    const step = await spool.index.removeStale(prefix, isOld, from);
    total.steps += 1;
    total.removed += step.removed;
    total.damaged += step.damaged;
    from = step.next;
  } while (from !== null);
  return total;
}

async function numbersIn(spool: Spool): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for await (const { key, value } of spool.index.entries(prefix)) found.set(key.toString(), value[0] ?? 0);
  return found;
}

describe("removing what is stale from the index", () => {
  it("goes in bounded steps, and takes nothing beside its prefix", async (t) => {
    const spool = await openSpool(await stateDirOf(t));
    await fill(spool, 2_500);
    assert.deepEqual(await sweep(spool), { steps: 3, removed: 2_500, damaged: 0 });
    assert.deepEqual(await sweep(spool), { steps: 1, removed: 0, damaged: 0 });
    assert.notEqual(await spool.index.get(Buffer.from("Z")), null);
    assert.notEqual(await spool.index.get(Buffer.from("b")), null);
    await spool.close();
  });

  it("never takes what an append writes meanwhile", async (t) => {
    const random = new Random(runSeed());
    const dir = await stateDirOf(t);
    const spool = await openSpool(dir);
    const records = 4_000;
    await fill(spool, records);
    const expected = new Map<string, number>();
    const ending = new AbortController();
    const append = async (): Promise<void> => {
      for (let position = 2; !ending.signal.aborted; position += 1) {
        const index = Array.from({ length: 20 }, () => {
          const key = keyOf(random.int(0, records - 1));
          const value = random.chance(0.8) ? valueOf(2) : null;
          if (value === null) expected.delete(key.toString());
          else expected.set(key.toString(), 2);
          return { key, value };
        });
        await spool.append({ events: [], checkpoint: checkpoint(position), index });
      }
    };
    const appended = append();
    const total = await sweep(spool);
    ending.abort();
    await appended;
    assert.ok(total.removed > 0 && expected.size > 0);
    assert.deepEqual(await numbersIn(spool), expected);
    await spool.close();
    assert.deepEqual((await verifySpool(dir)).faults, []);
  });

  it("takes damaged records too, and counts them; spool verify names them before", async (t) => {
    const dir = await stateDirOf(t);
    let spool = await openSpool(dir);
    await spool.append({
      events: [],
      checkpoint: checkpoint(1),
      index: [1, 2, 3].map((n) => ({ key: keyOf(n), value: valueOf(2) })),
    });
    await spool.close();
    await tamper(dir, async (database) => {
      const batch = database.batch();
      batch.put(indexKey(keyOf(2)), Buffer.from("not a frame"));
      await batch.write({ sync: true });
    });
    const report = await verifySpool(dir);
    assert.equal(report.indexRecords, 3);
    assert.equal(report.faults.length, 1);
    assert.match(report.faults[0]?.what ?? "", /an index record/);
    spool = await openSpool(dir);
    await assert.rejects(spool.index.get(keyOf(2)), { code: "SPOOL_CORRUPT" });
    assert.deepEqual(await sweep(spool), { steps: 1, removed: 1, damaged: 1 });
    assert.deepEqual([...(await numbersIn(spool)).keys()], [keyOf(1), keyOf(3)].map(String));
    await spool.close();
    assert.deepEqual((await verifySpool(dir)).faults, []);
  });
});
