import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { SourceItem, WantedJob } from "../../../agent/change.ts";
import type { DatabaseServer } from "../../servers/database.ts";
import { serverKinds } from "../../servers/matrix.ts";
import {
  caughtUp,
  follow,
  type Followed,
  type FollowOptions,
  startAfresh,
  stopAll,
  useServer,
} from "../following.ts";
import { RowHistory, RowReplica, text } from "./replica.ts";

let server: DatabaseServer;

const wholeThing: WantedJob = { table: "thing", reason: "initial", scope: { kind: "all" }, topic: null };

function reading(
  wanted: readonly WantedJob[],
  more: Partial<FollowOptions["snapshots"]> = {},
): FollowOptions {
  return { snapshots: { wanted: (at) => (at === null ? wanted : []), rowsMax: 25, ...more } };
}

function isComplete(items: readonly SourceItem[]): boolean {
  return items.some((item) => item.kind === "chunk" && item.isLast);
}

async function assertEqual(followed: Followed): Promise<void> {
  await caughtUp(followed);
  const replica = new RowReplica(0);
  replica.apply(followed.items);
  const found = [...replica.rows()].map(([id, row]) => `${id}:${text(row[1])}`).sort();
  const rows = await server.query("SELECT id, name FROM shop.thing");
  assert.deepEqual(found, rows.map((row) => `${String(row["id"])}:${String(row["name"])}`).sort());
}

/** Random single-row writes until stopped; each on a connection of its own. */
async function write(signal: AbortSignal, ids: number): Promise<number> {
  const connection = await server.connection({ database: "shop" });
  let written = 0;
  const id = (): number => 1 + Math.floor(Math.random() * ids);
  while (!signal.aborted) {
    const kind = Math.random();
    const name = `n${Math.floor(Math.random() * 1e9)}`;
    const sql =
      kind < 0.5
        ? `UPDATE thing SET name='${name}' WHERE id=${id()}`
        : kind < 0.7
          ? `DELETE FROM thing WHERE id=${id()}`
          : kind < 0.95
            ? `INSERT INTO thing VALUES (${id()},'x','${name}') ON DUPLICATE KEY UPDATE name='${name}'`
            : `UPDATE IGNORE thing SET id=${id()} WHERE id=${id()}`;
    await connection.query(sql);
    written += 1;
  }
  await connection.end();
  return written;
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
      assert.deepEqual(followed.items.at(-1)?.checkpoint.snapshot, {
        generation: 1,
        paused: false,
        jobs: [],
      });
    });

    test("equals the source under heavy random writes with small binlog files", async () => {
      await server.query(
        `INSERT INTO thing SELECT seq * 2, 'x', CONCAT('n', seq) FROM (${numbers(2_000)}) AS s`,
      );
      const ending = new AbortController();
      const writers = Array.from({ length: 4 }, () => write(ending.signal, 4_000));
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
      const writers = Array.from({ length: 8 }, () => write(ending.signal, 8_000));
      await followed.until(isComplete);
      ending.abort();
      await Promise.all(writers);
      await assertEqual(followed);
      const chunks = followed.items.filter((item) => item.kind === "chunk");
      assert.ok(chunks.length > 1_900, `${chunks.length} chunks`);
      const history = new RowHistory(
        rowsBefore.map((row) => [String(row["id"]), String(row["name"])] as const),
      );
      history.take(followed.items);
      for (const { rows, position } of chunks) {
        for (const row of rows) {
          assert.equal(
            text(row[1]),
            history.at(text(row[0]), position),
            `row ${text(row[0])} at ${position.file}:${position.position}`,
          );
        }
      }
    });
  });

function numbers(count: number): string {
  const digits =
    "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
  return `SELECT 1 + a.d + b.d * 10 + c.d * 100 + e.d * 1000 AS seq FROM ${digits} a, ${digits} b, ${digits} c, ${digits} e HAVING seq <= ${count}`;
}
