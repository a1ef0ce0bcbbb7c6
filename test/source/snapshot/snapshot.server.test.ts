import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { DatabaseServer } from "../../servers/database.ts";
import { serverKinds } from "../../servers/matrix.ts";
import { caughtUp, follow, type Followed, startAfresh, stopAll, useServer } from "../following.ts";
import { assertChunks, assertRows, isComplete, numbers, reading, wholeThing, write } from "./chunks.ts";

let server: DatabaseServer;

async function assertEqual(followed: Followed): Promise<void> {
  await caughtUp(followed);
  assertRows(followed.items, await server.query("SELECT id, name FROM shop.thing"));
}

for (const kind of serverKinds)
  describe(kind.name, () => {
    before(async () => {
      server = await useServer(kind, { args: ["--max-binlog-size=64K", "--sync-binlog=1"] });
    });
    after(() => server.stop());
    beforeEach(() => startAfresh());
    afterEach(stopAll);

    test("reads all rows of an idle table, and what comes afterwards is newer", async () => {
      await server.query(`INSERT INTO thing SELECT seq, 'x', CONCAT('n', seq) FROM (${numbers(500)}) AS s`);
      const followed = follow(reading([wholeThing]));
      await followed.until(isComplete);
      await server.query("UPDATE thing SET name='after' WHERE id=3; DELETE FROM thing WHERE id=4");
      await assertEqual(followed);
      const chunks = followed.items.filter((item) => item.kind === "chunk");
      assert.equal(
        chunks.reduce((sum, { rows }) => sum + rows.length, 0),
        500,
      );
      assert.deepEqual(chunks.map(({ isFirst }) => isFirst).indexOf(true), 0);
      const { generation, paused, jobs } = followed.items.at(-1)?.checkpoint.snapshot ?? assert.fail();
      assert.deepEqual([generation, paused, jobs], [1, false, []]);
    });

    test("equals the source under heavy random writes with small binlog files", async () => {
      await server.query(
        `INSERT INTO thing SELECT seq * 2, 'x', CONCAT('n', seq) FROM (${numbers(2_000)}) AS s`,
      );
      const ending = new AbortController();
      const writers = Array.from({ length: 4 }, () => write(server, ending.signal, { ids: 4_000 }));
      const followed = follow(reading([wholeThing]));
      await followed.until(isComplete);
      ending.abort();
      const written = (await Promise.all(writers)).reduce((sum, one) => sum + one, 0);
      assert.ok(written > 100, `${written} writes`);
      await assertEqual(followed);
    });

    test("reads 2,000 chunks beside 8 writers at full speed, each as the binlog has it at its place", async () => {
      await server.query(
        `INSERT INTO thing SELECT seq * 2, 'x', CONCAT('n', seq) FROM (${numbers(4_000)}) AS s`,
      );
      const rowsBefore = await server.query("SELECT id, name FROM shop.thing");
      const followed = follow(reading([wholeThing], { rowsMax: 2 }));
      await followed.until((items) => items.length > 0);
      const ending = new AbortController();
      const writers = Array.from({ length: 8 }, () => write(server, ending.signal, { ids: 8_000 }));
      await followed.until(isComplete);
      ending.abort();
      await Promise.all(writers);
      await assertEqual(followed);
      const chunks = assertChunks(followed.items, rowsBefore);
      assert.ok(chunks > 1_900, `${chunks} chunks`);
    });
  });
