/** What the database notices of a snapshot: no lock of rows, and none of tables that would stop anybody. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { SourceItem, WantedJob } from "../../../agent/change.ts";
import type { DatabaseServer } from "../../servers/database.ts";
import { type ServerKind, serverKinds } from "../../servers/matrix.ts";
import { caughtUp, follow, type Followed, startAfresh, stopAll, useServer } from "../following.ts";
import { RowReplica, text } from "./replica.ts";

/** As many as a recursion makes without further settings. */
const ROWS = 1_000;
const wanted: readonly WantedJob[] = [
  { table: "thing", reason: "initial", scope: { kind: "all" }, topic: null },
];
let server: DatabaseServer;

interface LockSample {
  /** Rows locked by anybody. */
  readonly rows: number;
  /** Kinds of metadata locks on the table that others than the asking connection hold. */
  readonly tables: readonly string[];
  readonly transactions: number;
}

async function sample({ flavour }: ServerKind): Promise<LockSample> {
  const [open] = await server.query(
    "SELECT COUNT(*) AS n, COALESCE(SUM(trx_rows_locked + trx_tables_locked), 0) AS locked FROM information_schema.INNODB_TRX",
  );
  if (flavour === "mariadb") {
    return { rows: Number(open?.["locked"]), tables: [], transactions: Number(open?.["n"]) };
  }
  // The server's own threads lock rows of its statistics.
  const [rows] = await server.query(
    "SELECT COUNT(*) AS n FROM performance_schema.data_locks WHERE OBJECT_SCHEMA = 'shop'",
  );
  const tables = await server.query(
    `SELECT LOCK_TYPE AS kind FROM performance_schema.metadata_locks
     WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA = 'shop' AND OWNER_THREAD_ID <> PS_CURRENT_THREAD_ID()`,
  );
  return {
    rows: Number(rows?.["n"]),
    tables: tables.map((row) => String(row["kind"])),
    transactions: Number(open?.["n"]),
  };
}

function isComplete(items: readonly SourceItem[]): boolean {
  return items.some((item) => item.kind === "chunk" && item.isLast);
}

/** Chunks that found other columns than the reading before. */
function reshaped({ items }: Followed): number {
  return items.filter((item) => item.kind === "chunk" && item.isReshaped).length;
}

for (const kind of serverKinds.filter(({ hasGtids }) => hasGtids))
  describe(kind.name, () => {
    before(async () => {
      server = await useServer(kind, kind.flavour === "mysql" ? { args: ["--performance-schema=ON"] } : {});
    });
    after(() => server.stop());
    beforeEach(async () => {
      await startAfresh();
      await server.query(
        `INSERT INTO thing WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < ${ROWS}) SELECT id, 'x', CONCAT('n', id) FROM n`,
      );
    });
    afterEach(stopAll);

    test("locks no row, holds no table between chunks, and keeps no transaction open", async () => {
      const followed = follow({
        snapshots: { wanted: (at) => (at === null ? wanted : []), rateMax: 500, rowsMax: 20 },
      });
      const samples: LockSample[] = [];
      while (!isComplete(followed.items)) {
        samples.push(await sample(kind));
        if (followed.failure !== null) throw followed.failure;
      }
      assert.ok(samples.length > 50, `${samples.length} samples`);
      assert.deepEqual(new Set(samples.map(({ rows }) => rows)), new Set([0]), "row locks");
      const held = new Set(samples.flatMap(({ tables }) => tables));
      held.delete("SHARED_READ");
      assert.deepEqual([...held], [], "kinds of table locks");
      const without = samples.filter(({ tables, transactions }) => tables.length === 0 && transactions === 0);
      assert.ok(
        without.length > samples.length / 4,
        `${without.length} of ${samples.length} samples saw nothing`,
      );
    });

    test("lets a table be altered meanwhile, says so, and begins again with it", async () => {
      const followed = follow({
        snapshots: { wanted: (at) => (at === null ? wanted : []), rateMax: 500, rowsMax: 20 },
      });
      await followed.until((items) => items.filter((item) => item.kind === "chunk").length > 3);
      await server.query("ALTER TABLE thing ADD COLUMN extra int, MODIFY name varchar(80)");
      assert.equal(isComplete(followed.items), false, "it was altered while rows were read");
      await server.query("UPDATE thing SET name = 'altered' WHERE id = 7");
      await followed.until(isComplete);
      await caughtUp(followed);
      const replica = new RowReplica(0);
      replica.apply(followed.items);
      const found = [...replica.rows()].map(([id, row]) => `${id}:${text(row[1])}`).sort();
      const rows = await server.query("SELECT id, name FROM shop.thing");
      assert.deepEqual(found, rows.map((row) => `${String(row["id"])}:${String(row["name"])}`).sort());
      assert.equal(reshaped(followed), 1);
      await followed.stop();
      await server.query("ALTER TABLE thing MODIFY name varchar(90)");
      const again = follow({
        after: followed.items.at(-1)?.checkpoint ?? null,
        snapshots: { wanted: () => wanted },
      });
      await again.until(isComplete);
      assert.equal(reshaped(again), 1);
      assert.ok(
        again.logged.some((line) => line.includes("other columns than when its rows were last read")),
      );
    });
  });
