import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { Checkpoint } from "../../agent/change.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { serverKinds } from "../servers/matrix.ts";
import {
  bare,
  caughtUp,
  follow,
  following,
  killDumps,
  dumps,
  eventually,
  stopAll,
  rows,
  settingsOf,
  sourceOf,
  startAfresh,
  useServer,
} from "./following.ts";

let server: DatabaseServer;

for (const kind of serverKinds)
  describe(kind.name, () => {
    before(async () => {
      server = await useServer(kind, { args: ["--max-binlog-size=1M"] });
    });
    after(() => server.stop());
    beforeEach(() => startAfresh());
    afterEach(stopAll);

    test("gives transactions over TCP and over the socket alike, with GTID and position", async () => {
      const tcp = await following();
      const socket = await following({ settings: { socketPath: server.socket } });
      await server.query(
        "INSERT INTO thing VALUES (1,'x','a'),(2,'x','b'); UPDATE thing SET name='c', skipped='y' WHERE id=2; UPDATE thing SET id=3 WHERE id=2; DELETE FROM thing WHERE id=1",
      );
      await Promise.all([caughtUp(tcp), caughtUp(socket)]);
      const expected = ["i 1:a", "i 2:b", "u 2:c was :b", "u 3:c was 2:c", "d 1:a"];
      assert.deepEqual(rows(tcp.items), expected);
      assert.deepEqual(rows(socket.items), expected);
      const [last] = tcp.items.filter((item) => item.kind === "transaction").slice(-1);
      if (kind.flavour === "mariadb") {
        assert.match(last?.gtid ?? "", /^0-1-\d+$/);
        assert.equal(last?.checkpoint.gtidSet, last?.gtid);
      } else {
        const [state] = await server.query("SELECT @@server_uuid uuid, @@gtid_executed done");
        const [, newest] = /^[^:]+:1-(\d+)$/.exec(String(state?.["done"])) ?? [];
        assert.equal(last?.gtid ?? null, kind.hasGtids ? `${String(state?.["uuid"])}:${newest}` : null);
        assert.equal(last?.checkpoint.gtidSet ?? "", kind.hasGtids ? state?.["done"] : "");
      }
      assert.equal(last?.checkpoint.position, last?.end.position);
      assert.ok(tcp.logged.some((line) => line.includes("no such column")));
      await tcp.stop();
      await socket.stop();
    });

    test("shows up as a replica with a clear name, while it streams", async () => {
      const followed = await following();
      await eventually("our name among the replicas", async () => {
        const hosts = await server.query(kind.flavour === "mysql" ? "SHOW REPLICAS" : "SHOW SLAVE HOSTS");
        return hosts.some((host) => host["Host"] === "magento-edge-agent");
      });
      await followed.stop();
    });

    test("gives nothing of what was rolled back, with temporary and MyISAM tables in the transaction", async () => {
      const followed = await following();
      // With GTIDs, MySQL refuses to mix the engines in one transaction.
      const plain = (id: number): string =>
        kind.flavour === "mysql" && kind.hasGtids ? "" : `INSERT INTO plain VALUES (${id});`;
      await server.query(`BEGIN; INSERT INTO thing VALUES (1,'','a'); ${plain(1)}
      CREATE TEMPORARY TABLE tmp (a int); ROLLBACK;
      BEGIN; INSERT INTO thing VALUES (2,'','b'); SAVEPOINT \`S one\`; INSERT INTO thing VALUES (3,'','c');
      CREATE TEMPORARY TABLE tmp2 (a int); ${plain(2)} ROLLBACK TO \`S one\`;
      INSERT INTO thing VALUES (4,'','d'); COMMIT; DROP TEMPORARY TABLE tmp, tmp2`);
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 2:b", "i 4:d"]);
      const [part] = followed.items.filter((item) => item.kind === "transaction");
      const [, second] = part?.changes ?? [];
      // Only what the server wrote and took back again counts.
      assert.ok(second?.imageIndex === 1 || second?.imageIndex === 2);
      assert.equal(second?.ordinal, second?.imageIndex);
      await followed.stop();
    });

    test("commit times are those of the commit, not of the first statement", async () => {
      const followed = await following();
      const beginMs = Date.now();
      await server.query("BEGIN; INSERT INTO thing VALUES (1,'','a'); DO SLEEP(2.1); COMMIT");
      const doneMs = Date.now();
      await caughtUp(followed);
      const [part] = followed.items.filter((item) => item.kind === "transaction");
      const commitMs = part?.commitTimeMs ?? 0;
      // MariaDB tells whole seconds.
      assert.ok(commitMs > beginMs + 1_000 && commitMs <= doneMs, `${beginMs} ${commitMs} ${doneMs}`);
      await followed.stop();
    });

    test("tells resets and altered tables, and reads rows before and after", async () => {
      const followed = await following();
      // Without names in the stream, rows are read while their table is still there.
      for (const statements of [
        "INSERT INTO thing VALUES (1,'','a')",
        "ALTER TABLE thing ADD COLUMN gone int FIRST; INSERT INTO thing VALUES (9,2,'','b')",
        "TRUNCATE thing; RENAME TABLE other TO away, away TO other; DROP TABLE thing",
      ]) {
        await server.query(statements);
        await caughtUp(followed);
      }
      const told = followed.items.flatMap((item) => {
        if (item.kind === "table") return [`${item.statement}: ${item.table} ${item.what}`];
        return item.kind === "transaction" ? rows([item]) : [];
      });
      assert.deepEqual(told, [
        "i 1:a",
        "ALTER TABLE thing: 0 altered",
        "i 2:b",
        "TRUNCATE TABLE thing: 0 reset",
        "RENAME TABLE other: 1 replaced",
        "DROP TABLE thing: 0 reset",
      ]);
      await followed.stop();
    });

    test("goes on over rotations, and gives the same rest from every checkpoint, proven", async () => {
      const limits = { parts: { bytes: 2_000, rows: 20 }, pullRows: 7 };
      const followed = await following({ limits });
      for (let id = 1; id <= 20; id += 1) {
        await server.query(
          `INSERT INTO thing VALUES (${id},'x','n${id}'); INSERT INTO noise (v) VALUES (REPEAT('n', 9000))`,
        );
        if (id % 7 === 0) await server.query("FLUSH BINARY LOGS");
      }
      await server.query(
        `BEGIN; ${Array.from({ length: 60 }, (_, index) => `UPDATE thing SET name='m${index}' WHERE id=${(index % 20) + 1};`).join("")} COMMIT`,
      );
      await caughtUp(followed);
      await followed.stop();
      const parts = followed.items.filter((item) => item.kind === "transaction");
      assert.equal(rows(parts).length, 80);
      assert.ok(
        parts.some(({ isLast }) => !isLast),
        "the large transaction comes in parts",
      );
      for (const [index, { checkpoint }] of parts.entries()) {
        if (index % 4 !== 0) continue;
        const again = follow({ after: checkpoint, limits });
        await again.until(
          (items) => items.filter((item) => item.kind === "transaction").length >= parts.length - index - 1,
        );
        await again.stop();
        assert.deepEqual(bare(again.items), bare(parts.slice(index + 1)), `after part ${index}`);
      }
    });

    test("reconnects by itself when its connection is killed, and loses nothing", async () => {
      const followed = await following();
      // Where the stream begins is told before the server lists its dump: there must be one to kill.
      await eventually("a dump to kill", async () => (await dumps()).length > 0);
      for (let id = 1; id <= 5; id += 1) {
        await server.query(`INSERT INTO thing VALUES (${id},'','a')`);
        await killDumps();
        await server.query(`INSERT INTO thing VALUES (${id + 100},'','b')`);
      }
      await caughtUp(followed);
      assert.deepEqual(
        rows(followed.items),
        [1, 2, 3, 4, 5].flatMap((id) => [`i ${id}:a`, `i ${id + 100}:b`]),
      );
      assert.ok(followed.source.status().reconnects > 0);
      await followed.stop();
    });

    test("connects while a statement that creates a table still fills it, and locks its name", async () => {
      const connection = await server.connection({ database: "shop" });
      const filling = connection.query("CREATE TABLE filled AS SELECT SLEEP(60) AS a").then(
        () => "filled",
        () => "killed",
      );
      const id = String(connection.threadId);
      await eventually("it fills", async () => {
        const list = await server.query("SHOW PROCESSLIST");
        return list.some((one) => String(one["Id"]) === id && /sleep/i.test(String(one["State"])));
      });
      const followed = await following();
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a"]);
      await server.query(`KILL ${id}`);
      assert.equal(await filling, "killed");
      await followed.stop();
    });

    test("is paused while nobody pulls, closes after the time for it, and resumes by position", async () => {
      let hold = Promise.resolve();
      let letGo = (): void => undefined;
      const followed = await following({
        limits: { queueBytes: 20_000, pauseMs: 1_500, progressMs: 200 },
        onBatch: () => hold,
      });
      await server.query("INSERT INTO thing VALUES (0,'','first')");
      await followed.until((items) => rows(items).length === 1);
      hold = new Promise((resolve) => {
        letGo = resolve;
      });
      const paused = eventually("paused", () => followed.source.status().state === "paused");
      const values = Array.from({ length: 3_000 }, (_, id) => `(${id + 1},'',REPEAT('x', 40))`);
      for (let at = 0; at < values.length; at += 100) {
        await server.query(`INSERT INTO thing VALUES ${values.slice(at, at + 100).join(",")}`);
      }
      await paused;
      await eventually("closed on purpose", () =>
        followed.logged.some((line) => line.includes("nothing is pulled")),
      );
      await eventually("no dump on the server", async () => (await dumps()).length === 0);
      letGo();
      await caughtUp(followed);
      assert.equal(rows(followed.items).length, 3_001);
      await followed.stop();
    });

    test("goes on after a restart of the server", async () => {
      const followed = await following();
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      await server.restart();
      await server.query("USE shop; INSERT INTO thing VALUES (2,'','b')");
      await caughtUp(followed);
      await server.kill();
      await server.restart();
      await server.query("USE shop; INSERT INTO thing VALUES (3,'','c')");
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a", "i 2:b", "i 3:c"]);
      await followed.stop();
    });

    test("waits for a revoked right and for a new password, and goes on with them", async () => {
      let password = "agent-password";
      const followed = await following({ settings: { password: () => password } });
      await server.query("ALTER USER magento_edge_agent@'%' IDENTIFIED BY 'new'");
      await killDumps();
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      const waits = (reason: RegExp) => (): boolean => {
        const status = followed.source.status();
        return status.state === "connecting" && reason.test(status.reason ?? "");
      };
      await eventually("the old password is refused", waits(/Access denied/));
      assert.deepEqual(rows(followed.items), []);
      password = "new";
      await caughtUp(followed);
      await server.query("REVOKE REPLICATION SLAVE ON *.* FROM magento_edge_agent@'%'");
      await killDumps();
      await server.query("INSERT INTO thing VALUES (2,'','b')");
      await eventually("the dump is refused", waits(/[Aa]ccess denied/));
      await server.query("GRANT REPLICATION SLAVE ON *.* TO magento_edge_agent@'%'");
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a", "i 2:b"]);
      await followed.stop();
    });

    test("tells where a first start begins before anything happens, so that a crash cannot move it", async () => {
      const first = follow();
      await first.until((items) => items.length > 0);
      await first.stop();
      const [begun] = first.items;
      assert.equal(begun?.kind, "progress");
      await server.query("INSERT INTO thing VALUES (1,'','meanwhile')");
      const next = follow({ after: begun?.checkpoint ?? null });
      await caughtUp(next);
      assert.deepEqual(rows(next.items), ["i 1:meanwhile"]);
      await next.stop();
    });

    test("starts at a given file and position, and at a GTID", async () => {
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      const { source } = sourceOf(settingsOf());
      const { file, position, gtidSet } = await source.currentPosition();
      await server.query("INSERT INTO thing VALUES (2,'','b')");
      const starts = [`${file}:${position}`, ...(gtidSet === null ? [] : [gtidSet])];
      assert.equal(starts.length, kind.hasGtids ? 2 : 1);
      const told: unknown[] = [];
      for (const startPosition of starts) {
        const followed = follow({ settings: { startPosition } });
        await caughtUp(followed);
        assert.deepEqual(rows(followed.items), ["i 2:b"]);
        const [part] = followed.items.filter((item) => item.kind === "transaction");
        told.push([part?.start, part?.end, part?.gtid, part?.checkpoint.gtidSet]);
        await followed.stop();
      }
      if (kind.hasGtids) assert.deepEqual(told[0], told[1]);
    });

    test("refuses a position that the server does not have, another server, and another history", async () => {
      const followed = await following();
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      await caughtUp(followed);
      await followed.stop();
      const [part] = followed.items.filter((item) => item.kind === "transaction");
      assert.ok(part !== undefined);
      const { checkpoint } = part;
      const last = checkpoint.lastTransaction;
      assert.ok(last !== null);
      const wrong: readonly (readonly [Checkpoint, RegExp])[] = [
        [{ ...checkpoint, file: "binlog.999999", lastTransaction: null }, /does not have binlog\.999999/],
        [{ ...checkpoint, position: 900_000_000 }, /bytes/],
        [{ ...checkpoint, serverId: 77, gtidSet: null }, /\b77\b/],
        [{ ...checkpoint, lastTransaction: { ...last, rowsCrc32: "00000001" } }, /another one/],
        [{ ...checkpoint, lastTransaction: { ...last, endPosition: last.endPosition - 1 } }, /not the one/],
      ];
      for (const [after_, message] of wrong) {
        const refused = follow({ after: after_ });
        await assert.rejects(
          refused.until(() => false),
          { code: "POSITION_LOST", message },
        );
        assert.deepEqual(refused.items, []);
        await refused.stop();
      }
    });

    test("stops before a change in statement format on a followed table, and gives what came before", async () => {
      const followed = await following();
      await server.query(`INSERT INTO thing VALUES (1,'','a'); SET SESSION binlog_format=STATEMENT;
      UPDATE thing SET name='secret' WHERE id=1; SET SESSION binlog_format=ROW; INSERT INTO thing VALUES (2,'','b')`);
      await assert.rejects(
        followed.until(() => false),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, "SOURCE_UNREADABLE");
          assert.doesNotMatch(error.message, /secret/);
          return true;
        },
      );
      assert.deepEqual(rows(followed.items), ["i 1:a"]);
    });
  });

for (const kind of serverKinds)
  describe(`${kind.name} with the least row metadata, with TLS`, () => {
    before(async () => {
      server = await useServer(kind, { rowMetadata: "NO_LOG", tls: true });
    });
    after(() => server.stop());
    beforeEach(() => startAfresh());
    afterEach(stopAll);

    test("reads the columns from the schema, and again after the table was altered", async () => {
      const followed = await following({ settings: { tls: "preferred" } });
      await server.query("INSERT INTO thing VALUES (1,'','a')");
      await caughtUp(followed);
      await server.query(
        "ALTER TABLE thing ADD COLUMN more int FIRST; INSERT INTO thing VALUES (5,2,'','b')",
      );
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a", "i 2:b"]);
      await followed.stop();
    });

    test("waits while today's columns are not those of the event, and goes on when they are", async () => {
      const first = await following();
      await first.stop();
      const [{ checkpoint } = { checkpoint: null }] = first.items;
      await server.query("INSERT INTO thing VALUES (1,'','a'); ALTER TABLE thing ADD COLUMN more int FIRST");
      const followed = follow({ after: checkpoint });
      await eventually("waiting", () => followed.source.status().state === "waiting");
      assert.match(followed.source.status().reason ?? "", /thing/);
      assert.deepEqual(rows(followed.items), []);
      await server.query("ALTER TABLE thing DROP COLUMN more");
      await caughtUp(followed);
      assert.deepEqual(rows(followed.items), ["i 1:a"]);
      await followed.stop();
    });

    test("verifies the server's certificate, and refuses an unknown authority", async () => {
      const { source } = sourceOf(
        settingsOf({ tls: "verify", tlsCa: server.tls?.ca ?? null, host: "localhost" }),
      );
      assert.equal((await source.firstConnect()).encrypted, true);
      const stranger = sourceOf(settingsOf({ tls: "verify" })).source;
      await assert.rejects(stranger.firstConnect(), { code: "SOURCE_UNREACHABLE" });
      const followed = await following({ settings: { tls: "verify", tlsCa: server.tls?.ca ?? null } });
      await server.query("INSERT INTO other VALUES (8)");
      await caughtUp(followed);
      assert.equal(rows(followed.items).length, 1);
      await followed.stop();
    });
  });
