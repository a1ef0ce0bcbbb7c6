import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import { Level } from "level";
import { liveTables } from "../../agent/spool/live-tables.ts";
import { type DamagedTable, damagedTables } from "../../agent/spool/database-files.ts";
import { stateDirOf } from "./fixtures.ts";

/** A database with several tables and compactions behind it. */
async function filled(t: TestContext): Promise<string> {
  const directory = await stateDirOf(t);
  const level = new Level(directory, { writeBufferSize: 64 * 1024 });
  for (let batch = 0; batch < 200; batch += 1) {
    const puts = Array.from({ length: 100 }, (_, index) => ({
      type: "put" as const,
      key: `key-${((batch * 100 + index) * 7919) % 5000}`,
      value: randomBytes(300).toString("base64"),
    }));
    await level.batch(puts);
  }
  await level.close();
  return directory;
}

async function manifestOf(directory: string): Promise<string> {
  return join(directory, (await readFile(join(directory, "CURRENT"), "utf8")).trim());
}

async function damagedIn(directory: string): Promise<DamagedTable[]> {
  const found: DamagedTable[] = [];
  for await (const each of damagedTables(directory)) found.push(each);
  return found;
}

describe("the tables that a database has", () => {
  it("are those that its MANIFEST names, with their sizes", async (t) => {
    const directory = await filled(t);
    const live = await liveTables(await manifestOf(directory));
    assert.ok(live !== null && live.size > 1);
    // Other tables may lie about: the end of a process cuts a compaction off.
    for (const [number, size] of live) {
      const name = `${String(number).padStart(6, "0")}.ldb`;
      assert.equal(size, (await stat(join(directory, name))).size, name);
    }
  });

  it("are damaged when one of them is cut short, and not by a piece that a killed process left", async (t) => {
    const directory = await filled(t);
    await writeFile(join(directory, "999999.ldb"), "the first bytes of a table that was under way");
    assert.deepEqual(await damagedIn(directory), []);
    const live = await liveTables(await manifestOf(directory));
    const [number = 0] = live?.keys() ?? [];
    const name = `${String(number).padStart(6, "0")}.ldb`;
    await truncate(join(directory, name), 100);
    const found = await damagedIn(directory);
    assert.deepEqual(found, [{ name, what: "its end is missing" }]);
  });
});
