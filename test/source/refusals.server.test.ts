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
  INSERT INTO document VALUES (1, '{"a": "a long text that is not worth being written again", "b": [1, 2, 3]}')`;

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
        SET SESSION binlog_row_image=FULL; SET SESSION binlog_format=STATEMENT; INSERT INTO noise (v) VALUES ('c');
        SET SESSION binlog_format=ROW; XA START 'z'; INSERT INTO noise (v) VALUES ('d'); XA END 'z'; XA PREPARE 'z';
        XA COMMIT 'z'; INSERT INTO thing VALUES (3,'','c')`);
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 3:c"]);
    });

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
