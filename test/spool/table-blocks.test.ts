import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Level } from "level";
import { crc32c } from "../../agent/spool/crc32c.ts";
import { liveTables } from "../../agent/spool/live-tables.ts";
import { disarm, faultsOf } from "../../agent/spool/table-blocks.ts";
import { randomOf, seedOf, stateDirOf } from "./fixtures.ts";

const FOOTER_BYTES = 48;

/** Tables of one database: blocks that Snappy made smaller, blocks that it could not, long values. */
async function tablesIn(directory: string): Promise<Buffer[]> {
  const level = new Level(directory, { writeBufferSize: 256 * 1024 });
  for (let n = 0; n < 3000; n += 1) {
    const value = n % 3 === 0 ? randomBytes(500).toString("latin1") : `word ${n} `.repeat(n % 200);
    await level.put(`key-${n}`, n === 1000 ? randomBytes(200_000).toString("latin1") : value);
  }
  await level.close();
  await (await reopened(directory)).close();
  // The end of a compaction that was cut off can lie beside them.
  const manifest = (await readFile(join(directory, "CURRENT"), "utf8")).trim();
  const live = await liveTables(join(directory, manifest));
  const names = (await readdir(directory)).filter(
    (name) => name.endsWith(".ldb") && live?.has(Number.parseInt(name, 10)) === true,
  );
  return Promise.all(names.map((name) => readFile(join(directory, name))));
}

/** What was in the log is in a table then. */
async function reopened(directory: string): Promise<Level> {
  const level = new Level(directory);
  await level.open();
  return level;
}

describe("the blocks of a table", () => {
  it("have the checksum that everybody calls CRC-32C", () => {
    const text = Buffer.from("123456789");
    assert.equal(crc32c(text, 0, text.length), 0xe3069283);
    const random = randomBytes(100);
    for (let to = 0; to < 30; to += 1) assert.equal(crc32c(random, to, to), 0, "of nothing");
    assert.equal(crc32c(Buffer.concat([random, text]), 100, 109), 0xe3069283, "wherever it begins");
  });

  it("are sound as LevelDB wrote them, and each flipped bit but in the footer's padding is seen", async (t) => {
    const random = randomOf(seedOf(t));
    const tables = await tablesIn(await stateDirOf(t));
    assert.ok(tables.length > 2);
    for (const table of tables) {
      assert.deepEqual([...faultsOf(table)], []);
      for (let round = 0; round < 100; round += 1) {
        const at = Math.floor(random() * (table.length - FOOTER_BYTES));
        const bit = 1 << Math.floor(random() * 8);
        table[at] = (table[at] ?? 0) ^ bit;
        const faults = [...faultsOf(table)];
        assert.equal(faults.length, 1, `byte ${at} of ${table.length}, bit ${bit}`);
        const block = faults[0]?.block ?? assert.fail("the footer is sound");
        assert.ok(block.offset <= at && at < block.offset + block.size + 5, `the block of byte ${at}`);
        table[at] = (table[at] ?? 0) ^ bit;
      }
    }
  });

  it("are not looked for beyond a table, whatever its footer or any of its bytes says", async (t) => {
    const random = randomOf(seedOf(t));
    const [whole = assert.fail()] = await tablesIn(await stateDirOf(t));
    for (const length of [0, 1, 47, 48, 49, 1000, whole.length - 1]) {
      assert.ok([...faultsOf(whole.subarray(0, length))].length > 0, `${length} bytes`);
    }
    for (let round = 0; round < 300; round += 1) {
      const table = Buffer.from(whole);
      for (let bits = 0; bits < 4; bits += 1) {
        const at = table.length - 1 - Math.floor(random() * FOOTER_BYTES);
        table[at] = (table[at] ?? 0) ^ (1 << Math.floor(random() * 8));
      }
      for (const fault of faultsOf(table)) disarm(table, fault);
      assert.equal(table.length, whole.length);
    }
  });

  it("that were disarmed cost LevelDB nothing but themselves", async (t) => {
    const directory = await stateDirOf(t);
    const level = new Level(directory, { writeBufferSize: 4 * 1024 * 1024 });
    for (let n = 0; n < 1000; n += 1)
      await level.put(`key-${String(n).padStart(4, "0")}`, randomBytes(2000).toString("hex"));
    await level.close();
    await (await reopened(directory)).close();
    const name = (await readdir(directory)).find((each) => each.endsWith(".ldb")) ?? assert.fail("a table");
    const table = await readFile(join(directory, name));
    // The first entry's length of key, so large that LevelDB would read beyond the block.
    table[1] = (table[1] ?? 0) ^ 0x80;
    for (const fault of faultsOf(table)) disarm(table, fault);
    await writeFile(join(directory, name), table);
    const damaged = await reopened(directory);
    await assert.rejects(damaged.get("key-0000"), { message: /bad block type/ });
    assert.equal((await damaged.get("key-0999"))?.length, 4000);
    await damaged.close();
  });
});
