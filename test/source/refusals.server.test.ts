/**
 * What a real server can write that is not read without loss: each one is provoked by the setting
 * that makes it, stops the position before it, and names the mend. What came before was given.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { AgentError } from "../../agent/kernel/errors.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { serverKinds } from "../servers/matrix.ts";
import { caughtUp, create, follow, following, rows, startAfresh, stopAll, useServer } from "./following.ts";

let server: DatabaseServer;

interface Refusal {
  readonly what: string;
  /** A flavour, one kind, or all. */
  readonly on: string;
  /** Runs after a first row was inserted. */
  readonly statements: string;
  /** Puts the session back. */
  readonly restore: string;
  readonly says: RegExp;
  readonly mend: RegExp;
}

const refusals: readonly Refusal[] = [
  {
    what: "a compressed transaction",
    on: "mysql",
    statements: "SET SESSION binlog_transaction_compression=ON; INSERT INTO thing VALUES (2,'secret','b')",
    restore: "SET SESSION binlog_transaction_compression=OFF",
    says: /compressed/,
    mend: /binlog_transaction_compression=OFF/,
  },
  {
    what: "a partial update of a JSON document",
    on: "mysql",
    statements:
      "SET SESSION binlog_row_value_options=PARTIAL_JSON; UPDATE document SET doc=JSON_SET(doc, '$.a', 'secret')",
    restore: "SET SESSION binlog_row_value_options=''",
    says: /partial JSON/,
    mend: /binlog_row_value_options=''/,
  },
  {
    what: "a row image that is not full",
    on: "both",
    statements: "SET SESSION binlog_row_image=MINIMAL; UPDATE thing SET name='secret' WHERE id=1",
    restore: "SET SESSION binlog_row_image=FULL",
    says: /thing/,
    mend: /binlog_row_image=FULL/,
  },
  {
    what: "a row image without the texts that did not change",
    on: "both",
    statements: "SET SESSION binlog_row_image=NOBLOB; UPDATE thing SET name='secret' WHERE id=1",
    restore: "SET SESSION binlog_row_image=FULL",
    says: /thing/,
    mend: /binlog_row_image=FULL/,
  },
  {
    what: "a row image whose second half names only what changed",
    on: "MariaDB 11.8",
    statements: "SET SESSION binlog_row_image=FULL_NODUP; UPDATE thing SET name='secret' WHERE id=1",
    restore: "SET SESSION binlog_row_image=FULL",
    says: /thing/,
    mend: /binlog_row_image=FULL/,
  },
  {
    what: "a deletion of which only the key was written",
    on: "both",
    statements: "SET SESSION binlog_row_image=MINIMAL; DELETE FROM thing WHERE id=1",
    restore: "SET SESSION binlog_row_image=FULL",
    says: /thing/,
    mend: /binlog_row_image=FULL/,
  },
  {
    what: "a change in statement format",
    on: "both",
    statements: "SET SESSION binlog_format=STATEMENT; UPDATE thing SET name='secret' WHERE id=1",
    restore: "SET SESSION binlog_format=ROW",
    says: /UPDATE in statement format/,
    mend: /binlog_format=ROW/,
  },
  {
    what: "a change in statement format that a trigger carries on",
    on: "both",
    statements: "SET SESSION binlog_format=STATEMENT; INSERT INTO carrier VALUES (1, 'secret')",
    restore: "SET SESSION binlog_format=ROW",
    says: /INSERT in statement format \(shop\.carrier\)/,
    mend: /binlog_format=ROW/,
  },
  {
    what: "a change in statement format that a view carries on",
    on: "both",
    statements: "SET SESSION binlog_format=STATEMENT; DELETE FROM `shop`.`thing_view`",
    restore: "SET SESSION binlog_format=ROW",
    says: /DELETE in statement format \(shop\.thing_view\)/,
    mend: /binlog_format=ROW/,
  },
  {
    what: "a change in statement format that names its settings itself",
    on: "mariadb",
    statements:
      "SET STATEMENT binlog_format=STATEMENT, sort_buffer_size=(1024*1024) FOR UPDATE thing SET name='secret'",
    restore: "DO 0",
    says: /UPDATE in statement format \(shop\.thing\)/,
    mend: /binlog_format=ROW/,
  },
  {
    what: "a change in statement format that was run to be analyzed",
    on: "mariadb",
    statements: "SET SESSION binlog_format=STATEMENT; ANALYZE UPDATE thing SET name='secret'",
    restore: "SET SESSION binlog_format=ROW",
    says: /ANALYZE in statement format/,
    mend: /binlog_format=ROW/,
  },
  {
    what: "an XA transaction",
    on: "both",
    statements:
      "XA START 'x'; INSERT INTO thing VALUES (2,'secret','b'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'",
    restore: "DO 0",
    says: /XA transaction/,
    mend: /shop's tables in XA/,
  },
  {
    // MariaDB writes one like any other transaction.
    what: "an XA transaction of one phase",
    on: "mysql",
    statements:
      "XA START 'x'; INSERT INTO thing VALUES (2,'secret','b'); XA END 'x'; XA COMMIT 'x' ONE PHASE",
    restore: "DO 0",
    says: /XA transaction/,
    mend: /shop's tables in XA/,
  },
  {
    what: "an XA transaction that is never decided",
    on: "both",
    statements: "XA START 'y'; DELETE FROM thing WHERE id=1; XA END 'y'; XA PREPARE 'y'",
    restore: "XA ROLLBACK 'y'",
    says: /XA transaction/,
    mend: /shop's tables in XA/,
  },
];

const documents = `${create}; DROP TABLE IF EXISTS document; CREATE TABLE document (id int PRIMARY KEY, doc json);
  INSERT INTO document VALUES (1, '{"a": "a long text that is not worth being written again", "b": [1, 2, 3]}');
  DROP TABLE IF EXISTS carrier, index_tmp; CREATE TABLE carrier (id int PRIMARY KEY, name varchar(50));
  CREATE TRIGGER carries AFTER INSERT ON carrier FOR EACH ROW UPDATE thing SET name=NEW.name WHERE thing.id=NEW.id;
  CREATE OR REPLACE VIEW thing_view AS SELECT * FROM thing;
  CREATE TABLE index_tmp (id int PRIMARY KEY) ENGINE=MEMORY; INSERT INTO index_tmp VALUES (1);
  CREATE DATABASE IF NOT EXISTS percona; CREATE TABLE IF NOT EXISTS percona.noise LIKE noise;
  CREATE TABLE IF NOT EXISTS percona.checksums (db char(64), tbl char(64), chunk int, chunk_time float, chunk_index varchar(200),
    lower_boundary text, upper_boundary text, this_crc char(40), this_cnt int, master_crc char(40), master_cnt int,
    PRIMARY KEY (db, tbl, chunk))`;

/** As pt-table-checksum writes them. */
const checksums = `REPLACE INTO \`percona\`.\`checksums\` (db, tbl, chunk, chunk_index, lower_boundary, upper_boundary, this_cnt, this_crc)
    SELECT 'shop', 'thing', '1', 'PRIMARY', '1', '9', COUNT(*) AS cnt, COALESCE(LOWER(CONV(BIT_XOR(CAST(CRC32(CONCAT_WS('#', \`id\`,
    CRC32(\`skipped\`), convert(\`name\` using utf8mb4), CONCAT(ISNULL(\`skipped\`), ISNULL(\`name\`)))) AS UNSIGNED)), 10, 16)), 0) AS crc
    FROM \`shop\`.\`thing\` FORCE INDEX(\`PRIMARY\`) WHERE ((\`id\` >= '1')) AND ((\`id\` <= '9')) /*checksum chunk*/;
  REPLACE INTO \`percona\`.\`checksums\` (db, tbl, chunk, chunk_index, lower_boundary, upper_boundary, this_cnt, this_crc)
    SELECT 'shop', 'other', '1', NULL, NULL, NULL, COUNT(*) AS cnt, COALESCE(LOWER(CONV(BIT_XOR(CAST(CRC32(\`id\`) AS UNSIGNED)), 10, 16)), 0) AS crc
    FROM \`shop\`.\`other\` /*checksum table*/;
  UPDATE \`percona\`.\`checksums\` SET chunk_time = '0.012', master_crc = 'a1', master_cnt = '1' WHERE db = 'shop' AND tbl = 'thing' AND chunk = '1';
  DELETE FROM \`percona\`.\`checksums\` WHERE db = 'shop' AND tbl = 'other'`;

/** Statements that the server has written as text, in all of its binlog files. */
async function written(): Promise<string> {
  const texts: string[] = [];
  for (const { Log_name: file } of await server.query("SHOW BINARY LOGS")) {
    const events = await server.query(`SHOW BINLOG EVENTS IN '${String(file)}'`);
    texts.push(...events.filter((row) => row["Event_type"] === "Query").map((row) => String(row["Info"])));
  }
  return texts.join("\n");
}

for (const kind of serverKinds)
  describe(kind.name, () => {
    before(async () => {
      server = await useServer(kind);
    });
    after(() => server.stop());
    beforeEach(() => startAfresh(documents));
    afterEach(stopAll);

    for (const refusal of refusals) {
      if (!["both", kind.flavour, kind.name].includes(refusal.on)) continue;
      test(`stops before ${refusal.what}, again after a restart, and says what mends it`, async () => {
        const followed = await following();
        await server.query("INSERT INTO thing VALUES (1,'','a')");
        try {
          await server.query(refusal.statements);
        } finally {
          await server.query(refusal.restore);
        }
        await server.query("INSERT INTO thing VALUES (5,'','after')");
        const refused = (error: AgentError): boolean => {
          assert.equal(error.code, "SOURCE_UNREADABLE");
          assert.match(error.message, refusal.says);
          assert.match(error.message, /binlog\.\d+:\d+/);
          assert.match(error.hint, refusal.mend);
          assert.match(error.hint, /position restart --from=current/);
          assert.doesNotMatch(`${error.message} ${error.hint}`, /secret/);
          return true;
        };
        await assert.rejects(
          followed.until(() => false),
          refused,
        );
        assert.deepEqual(rows(followed.items), ["i 1:a"]);
        const last = followed.items.findLast((item) => item.kind === "transaction");
        const again = follow({ after: last?.checkpoint ?? null });
        await assert.rejects(
          again.until(() => false),
          refused,
        );
        assert.deepEqual(rows(again.items), []);
      });
    }

    test("passes over the same on tables that nobody follows", async () => {
      const followed = await following();
      await server.query(`SET SESSION binlog_row_image=MINIMAL; INSERT INTO noise (v) VALUES ('a'); UPDATE noise SET v='b';
        SET SESSION binlog_row_image=FULL; SET SESSION binlog_format=STATEMENT; INSERT INTO percona.noise (v) VALUES ('c');
        SET SESSION binlog_format=ROW; XA START 'z'; INSERT INTO noise (v) VALUES ('d'); XA END 'z'; XA PREPARE 'z';
        XA COMMIT 'z'; INSERT INTO thing VALUES (3,'','c')`);
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 3:c"]);
    });

    test("passes over what a checksum tool writes in statement format into a schema of its own", async () => {
      const followed = await following();
      await server.query("INSERT INTO thing VALUES (1,'secret','a')");
      await server.query(`SET SESSION binlog_format=STATEMENT; ${checksums}; SET SESSION binlog_format=ROW`);
      await server.query("INSERT INTO thing VALUES (2,'','b')");
      assert.match(await written(), /REPLACE INTO `percona`[^;]+\/\*checksum chunk\*\//);
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a", "i 2:b"]);
    });

    test("goes on when the server empties a table in memory after its restart, in its words or in those of older ones", async () => {
      const followed = await following();
      await server.restart();
      assert.deepEqual(await server.query("SELECT * FROM shop.index_tmp"), []);
      assert.match(await written(), /TRUNCATE TABLE `shop`.`index_tmp` \/\* generated by server/);
      await server.query("USE shop; INSERT INTO thing VALUES (1,'','a'); INSERT INTO index_tmp VALUES (2)");
      await server.query(
        "SET SESSION binlog_format=STATEMENT; DELETE FROM `shop`.`index_tmp`; SET SESSION binlog_format=ROW",
      );
      await server.query("INSERT INTO thing VALUES (2,'','b')");
      assert.match(await written(), /DELETE FROM `shop`.`index_tmp`/);
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a", "i 2:b"]);
    });

    test("takes a table for one in memory that became one after it was connected", async () => {
      const followed = await following();
      await server.query(`CREATE TABLE index_tmp_2 (id int) ENGINE=MEMORY; SET SESSION binlog_format=STATEMENT;
        DELETE FROM \`shop\`.\`index_tmp_2\`; SET SESSION binlog_format=ROW; INSERT INTO thing VALUES (1,'','a')`);
      await caughtUp(followed);
      await server.query("DROP TABLE index_tmp_2");
      assert.deepEqual(rows(followed.items), ["i 1:a"]);
    });

    if (kind.flavour === "mariadb") {
      test("reads what SET STATEMENT says of tables", async () => {
        const followed = await following();
        await server.query(`SET STATEMENT lock_wait_timeout=(2+3) FOR ALTER TABLE other ADD COLUMN c int;
          SET STATEMENT lock_wait_timeout=5, max_statement_time=9 FOR TRUNCATE TABLE thing`);
        await caughtUp(followed);
        const told = followed.items.filter((item) => item.kind === "table");
        assert.deepEqual(
          told.map(({ statement, what }) => `${statement}: ${what}`),
          ["ALTER TABLE other: altered", "TRUNCATE TABLE thing: reset"],
        );
      });
    }

    if (kind.flavour === "mysql" && kind.hasGtids) {
      test("reads tagged GTIDs: each transaction's own, the set, and the time of the commit", async () => {
        const followed = await following();
        await server.query(`SET gtid_next='AUTOMATIC:blue'; INSERT INTO thing VALUES (1,'','a'); INSERT INTO thing VALUES (2,'','b');
          SET gtid_next='AUTOMATIC:a_longer_tag_0123456789'; INSERT INTO thing VALUES (3,'','c'); SET gtid_next='AUTOMATIC';
          INSERT INTO thing VALUES (4,'','d'); FLUSH BINARY LOGS; INSERT INTO thing VALUES (5,'','e')`);
        await caughtUp(followed);
        const nowMs = Date.now();
        const [state] = await server.query("SELECT @@server_uuid uuid, @@gtid_executed done");
        const parts = followed.items.filter((item) => item.kind === "transaction");
        assert.deepEqual(
          parts.map(({ gtid }) => gtid?.replace(String(state?.["uuid"]), "").replace(/:\d+$/, "")),
          [":blue", ":blue", ":a_longer_tag_0123456789", "", ""],
        );
        assert.equal(parts.at(-1)?.checkpoint.gtidSet, String(state?.["done"]).replace(/\s/g, ""));
        for (const { commitTimeMs } of parts) assert.ok(Math.abs(commitTimeMs - nowMs) < 10_000);
        // Without a set in the checkpoint it is gathered from what the file's start says.
        const [first] = parts;
        assert.ok(first !== undefined);
        const { file } = await followed.source.currentPosition();
        const again = follow({ settings: { startPosition: `${file}:4` } });
        await caughtUp(again);
        assert.deepEqual(rows(again.items), ["i 5:e"]);
        assert.equal(again.items.at(-1)?.checkpoint.gtidSet, parts.at(-1)?.checkpoint.gtidSet);
      });
    }
  });
