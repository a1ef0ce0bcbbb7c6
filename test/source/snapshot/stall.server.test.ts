/**
 * A commit that hangs between binlog and engine (semi-synchronous replication, AFTER_SYNC, nobody
 * acknowledges): the stream has it, and no SELECT sees it.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { SourceItem, WantedJob } from "../../../agent/change.ts";
import type { DatabaseServer } from "../../servers/database.ts";
import { type ServerKind, serverKinds } from "../../servers/matrix.ts";
import {
  caughtUp,
  eventually,
  follow,
  type Followed,
  startAfresh,
  stopAll,
  useServer,
} from "../following.ts";
import { RowReplica, text } from "./replica.ts";

const STALL_MS = 1_500;
const wanted: readonly WantedJob[] = [
  { table: "thing", reason: "initial", scope: { kind: "all" }, topic: null },
];
let server: DatabaseServer;

function stallOn(kind: ServerKind): string {
  return kind.flavour === "mariadb"
    ? `SET GLOBAL rpl_semi_sync_master_timeout = ${STALL_MS}, GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC,
         GLOBAL rpl_semi_sync_master_wait_no_slave = ON, GLOBAL rpl_semi_sync_master_enabled = 0;
       SET GLOBAL rpl_semi_sync_master_enabled = 1`
    : `SET GLOBAL rpl_semi_sync_source_timeout = ${STALL_MS}, GLOBAL rpl_semi_sync_source_enabled = 0;
       SET GLOBAL rpl_semi_sync_source_enabled = 1`;
}

function stallOff(kind: ServerKind): string {
  const word = kind.flavour === "mariadb" ? "master" : "source";
  return `SET GLOBAL rpl_semi_sync_${word}_enabled = 0`;
}

interface Stall {
  /** Statements that run while the commit hangs, on a connection of their own. */
  readonly meanwhile?: string;
  /** What the hanging commit changes beside the row. */
  readonly bulk?: boolean;
  readonly naive?: boolean;
}

/** Reads all rows from within the stall; gives what was pulled when the commit has long ended. */
async function readInStall(kind: ServerKind, { meanwhile, bulk, naive }: Stall): Promise<Followed> {
  await server.query(
    "INSERT INTO thing VALUES (1,'x','before'),(2,'x','before'),(3,'x','before'); INSERT INTO noise (v) VALUES ('x')",
  );
  await server.query(stallOn(kind));
  const [writer, other] = [
    await server.connection({ database: "shop", multipleStatements: true }),
    await server.connection({ database: "shop" }),
  ];
  const [place] = await server.query(statusOf(kind));
  let isOver = false;
  const filler = bulk === true ? `INSERT INTO noise (v) VALUES (REPEAT('f', 9000));` : "";
  const hanging = writer
    .query(`BEGIN; UPDATE thing SET name='after' WHERE id=2; DELETE FROM thing WHERE id=3; ${filler} COMMIT`)
    .finally(() => {
      isOver = true;
    });
  await eventually("the commit stands in the binlog", async () => {
    const [now] = await server.query(statusOf(kind));
    return JSON.stringify(now) !== JSON.stringify(place);
  });
  const beside = meanwhile === undefined ? null : other.query(meanwhile);
  assert.equal(isOver, false, "the commit hangs");
  const [seen] = await server.query("SELECT name FROM thing WHERE id=2");
  assert.equal(seen?.["name"], "before", "no SELECT sees it");
  const followed = follow({
    snapshots: { wanted: (at) => (at === null ? wanted : []), naiveLowMark: naive ?? false },
  });
  if (naive === true) {
    await followed.until(isComplete);
    assert.equal(isOver, false, "it was read while the commit hung");
  }
  await Promise.all([hanging, beside]);
  await followed.until(isComplete);
  await server.query(stallOff(kind));
  await Promise.all([writer.end(), other.end()]);
  return followed;
}

function statusOf({ flavour }: ServerKind): string {
  return flavour === "mariadb" ? "SHOW MASTER STATUS" : "SHOW BINARY LOG STATUS";
}

function isComplete(items: readonly SourceItem[]): boolean {
  return items.some((item) => item.kind === "chunk" && item.isLast);
}

async function rowsOf(followed: Followed): Promise<{ readonly found: string[]; readonly rows: string[] }> {
  await caughtUp(followed);
  const replica = new RowReplica(0);
  replica.apply(followed.items);
  const rows = await server.query("SELECT id, name FROM shop.thing");
  return {
    found: [...replica.rows()].map(([id, row]) => `${id}:${text(row[1])}`).sort(),
    rows: rows.map((row) => `${String(row["id"])}:${String(row["name"])}`).sort(),
  };
}

for (const kind of serverKinds)
  describe(kind.name, () => {
    before(async () => {
      const plugin = kind.flavour === "mysql" ? ["--plugin-load-add=semisync_source.so"] : [];
      server = await useServer(kind, { args: ["--max-binlog-size=4096", "--sync-binlog=1", ...plugin] });
    });
    after(() => server.stop());
    beforeEach(() => startAfresh());
    afterEach(stopAll);

    test("waits for a commit that hangs before the engine has it", async () => {
      const { found, rows } = await rowsOf(await readInStall(kind, {}));
      assert.deepEqual(found, rows);
      assert.deepEqual(rows, ["1:before", "2:after"]);
    });

    test("waits for one that fills the binlog file", async () => {
      const { found, rows } = await rowsOf(await readInStall(kind, { bulk: true }));
      assert.deepEqual(found, rows);
    });

    test("waits for one while the binlog is flushed", async () => {
      const { found, rows } = await rowsOf(await readInStall(kind, { meanwhile: "FLUSH BINARY LOGS" }));
      assert.deepEqual(found, rows);
    });

    test("would take the rows of before for newer ones, were the stream's place the low mark", async () => {
      const { found, rows } = await rowsOf(await readInStall(kind, { naive: true }));
      assert.deepEqual(rows, ["1:before", "2:after"]);
      assert.deepEqual(found, ["1:before", "2:before", "3:before"]);
    });
  });
