/** Another server answers at the address: what leads there, what does not, and that nothing comes twice. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { Checkpoint, SourceItem, TransactionPart } from "../../agent/change.ts";
import { startTcpProxy, type TcpProxy } from "../faults/tcp-proxy.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { type ServerKind, serverKinds } from "../servers/matrix.ts";
import {
  pauseReplication,
  promote,
  replicated,
  resumeReplication,
  startReplica,
} from "../servers/replication.ts";
import {
  caughtUp,
  create,
  eventually,
  follow,
  type Followed,
  following,
  rows,
  startAfresh,
  stopAll,
  useServer,
} from "./following.ts";

let primary: DatabaseServer;
let replica: DatabaseServer;
let proxy: TcpProxy;

function parts(items: readonly SourceItem[]): TransactionPart[] {
  return items.filter((item) => item.kind === "transaction");
}

/** What an event's id is made from, and what it says. */
function bareParts(items: readonly SourceItem[]): unknown[] {
  return parts(items).map(({ gtid, commitTimeMs, changes, firstOrdinal, isLast }) => ({
    gtid,
    commitTimeMs,
    changes,
    firstOrdinal,
    isLast,
  }));
}

const toProxy = () => ({ settings: { port: proxy.port }, limits: { replicaDelayMs: 2_000 } });

async function startBoth(kind: ServerKind): Promise<void> {
  primary = await useServer(kind, { args: ["--max-binlog-size=64K"] });
  replica = await startReplica(kind, primary);
  proxy = await startTcpProxy({ port: primary.port });
}

async function stopBoth(): Promise<void> {
  await proxy.stop();
  await replica.stop();
  await primary.stop();
}

/** The address leads to the other server from now on. */
function moveTo(server: DatabaseServer): void {
  proxy.setTarget({ port: server.port });
  proxy.cut();
}

async function insertedAt(server: DatabaseServer, followed: Followed, id: number): Promise<void> {
  await server.query(`INSERT INTO shop.thing VALUES (${id}, 'x', 'n${id}')`);
  await followed.until((items) => rows(items).includes(`i ${id}:n${id}`));
}

function lastCheckpoint(followed: Followed): Checkpoint {
  const checkpoint = followed.items.at(-1)?.checkpoint;
  assert.ok(checkpoint !== undefined);
  return checkpoint;
}

for (const kind of serverKinds.filter(({ hasGtids }) => hasGtids))
  describe(`failover by GTID on ${kind.name}`, () => {
    before(() => startBoth(kind));
    after(stopBoth);
    beforeEach(async () => {
      await startAfresh();
      await replicated(primary, replica);
      await eventually("the replica applies", async () => {
        await replica.query("SELECT 1 FROM shop.thing LIMIT 1");
        return true;
      });
    });
    afterEach(async () => {
      await stopAll();
      moveTo(primary);
    });

    test("a replica as source gives the same changes under the same GTIDs and commit times", async () => {
      const limits = { parts: { bytes: 2_000, rows: 20 } };
      const atPrimary = await following({ settings: { port: primary.port }, limits });
      const atReplica = await following({ settings: { port: replica.port }, limits });
      for (let id = 1; id <= 60; id += 1) {
        await primary.query(`INSERT INTO shop.thing VALUES (${id}, 'x', 'n${id}')`);
      }
      await primary.query(
        `UPDATE shop.thing SET name = CONCAT(name, '!'); BEGIN; DELETE FROM shop.thing WHERE id < 20;
         INSERT INTO shop.other VALUES (1), (2); COMMIT`,
      );
      await replicated(primary, replica);
      for (const followed of [atPrimary, atReplica]) {
        await followed.until((items) =>
          parts(items).some(({ isLast, changes }) => isLast && changes.some((change) => change.table === 1)),
        );
      }
      assert.deepEqual(bareParts(atReplica.items), bareParts(atPrimary.items));
      assert.ok(parts(atReplica.items).every(({ checkpoint }) => checkpoint.serverId === 2));
    });

    test("goes on at the promoted replica with rising epochs, and comes back", async () => {
      const followed = await following(toProxy());
      await insertedAt(primary, followed, 1);
      // Nothing new after it: the old history must not come again while the place is unknown.
      moveTo(replica);
      await eventually("the other server's state", () => lastCheckpoint(followed).serverId === 2);
      assert.equal(lastCheckpoint(followed).file, "");
      const again = follow({ ...toProxy(), after: lastCheckpoint(followed) });
      await again.until((items) => items.length > 0);
      await insertedAt(primary, followed, 2);
      await insertedAt(primary, again, 3);
      assert.deepEqual(rows(again.items), ["i 2:n2", "i 3:n3"]);
      await again.stop();
      // Else the primary may be the one that gives the third row, in its own epoch.
      await followed.until((items) => rows(items).includes("i 3:n3"));
      moveTo(primary);
      await insertedAt(primary, followed, 4);
      assert.deepEqual(rows(followed.items), ["i 1:n1", "i 2:n2", "i 3:n3", "i 4:n4"]);
      const epochs = parts(followed.items).map(({ checkpoint }) => checkpoint.epoch);
      assert.ok(epochs[0] !== undefined && epochs[1] !== undefined && epochs[3] !== undefined);
      assert.ok(epochs[0] < epochs[1] && epochs[1] === epochs[2] && epochs[1] < epochs[3], epochs.join());
      assert.ok(followed.logged.some((line) => line.includes("another server now")));
    });

    test("gives the same rest at the other server from every checkpoint", async () => {
      const limits = { parts: { bytes: 2_000, rows: 20 }, pullRows: 7 };
      const followed = await following({ settings: { port: primary.port }, limits });
      for (let id = 1; id <= 10; id += 1) {
        await primary.query(`INSERT INTO shop.thing VALUES (${id}, 'x', 'n${id}')`);
        if (id % 4 === 0) await primary.query("FLUSH BINARY LOGS");
      }
      await primary.query(
        `BEGIN; ${Array.from({ length: 60 }, (_, index) => `UPDATE shop.thing SET name='m${index}' WHERE id=${(index % 10) + 1};`).join("")} COMMIT;
         INSERT INTO shop.thing VALUES (99, 'x', 'end')`,
      );
      await followed.until((items) => rows(items).includes("i 99:end"));
      await followed.stop();
      await replicated(primary, replica);
      const all = parts(followed.items);
      for (const [index, { checkpoint }] of all.entries()) {
        const rest = follow({ settings: { port: replica.port }, limits, after: checkpoint });
        await rest.until((items) =>
          index === all.length - 1 ? items.length > 0 : rows(items).includes("i 99:end"),
        );
        await rest.stop();
        // A transaction that was half done comes again from its start.
        const from = all.findIndex(({ firstOrdinal }, at) => at > index && firstOrdinal === 0);
        const restart =
          checkpoint.partial === null
            ? index + 1
            : all.findLastIndex(({ firstOrdinal }, at) => at <= index && firstOrdinal === 0);
        assert.ok(from !== 0);
        assert.deepEqual(bareParts(rest.items), bareParts(all.slice(restart)), `after part ${index}`);
        for (const item of rest.items) assert.ok(item.checkpoint.epoch > checkpoint.epoch);
      }
    });

    test("waits for a replica that is behind, and goes on when it has caught up", async () => {
      const followed = await following({ ...toProxy(), limits: { replicaDelayMs: 60_000 } });
      await pauseReplication(replica);
      await insertedAt(primary, followed, 1);
      moveTo(replica);
      await eventually("it waits", () =>
        /may still be replicating/.test(followed.source.status().reason ?? ""),
      );
      await resumeReplication(replica);
      await insertedAt(primary, followed, 2);
      assert.deepEqual(rows(followed.items), ["i 1:n1", "i 2:n2"]);
    });

    test("stops at a server that never got what was delivered, and names it", async () => {
      const followed = await following(toProxy());
      await pauseReplication(replica);
      try {
        await insertedAt(primary, followed, 1);
        const { gtidSet } = lastCheckpoint(followed);
        moveTo(replica);
        await assert.rejects(
          followed.until(() => false),
          (error: Error & { code?: string; detail?: string; hint?: string }) => {
            assert.equal(error.code, "POSITION_LOST");
            assert.equal(error.detail, "errant_tail");
            const lost = /never got GTID (\S+),/.exec(error.message)?.[1] ?? "";
            assert.ok(
              kind.flavour === "mariadb" ? lost === gtidSet : /^[0-9a-f-]{36}:\d+$/.test(lost),
              error.message,
            );
            assert.match(error.hint ?? "", /lost with the server that failed/);
            return true;
          },
        );
        assert.deepEqual(rows(followed.items), ["i 1:n1"]);
      } finally {
        await resumeReplication(replica);
      }
    });

    test("stops at a server that never got the transaction that was half delivered", async () => {
      const limits = { parts: { bytes: 2_000, rows: 20 }, pullRows: 7, replicaDelayMs: 2_000 };
      const followed = await following({ settings: { port: primary.port }, limits });
      await pauseReplication(replica);
      try {
        const inserts = Array.from({ length: 60 }, (_, index) => `(${index + 1}, 'x', 'n${index}')`);
        await primary.query(
          `BEGIN; ${inserts.map((row) => `INSERT INTO shop.thing VALUES ${row};`).join("")} COMMIT`,
        );
        await followed.until((items) =>
          parts(items).some(({ firstOrdinal, isLast }) => isLast && firstOrdinal > 0),
        );
        await followed.stop();
        const half = parts(followed.items).filter(({ checkpoint }) => checkpoint.partial !== null);
        assert.ok(half.length > 0);
        const rest = follow({
          settings: { port: replica.port },
          limits,
          after: half[0]?.checkpoint ?? null,
        });
        await assert.rejects(
          rest.until(() => false),
          { code: "POSITION_LOST", detail: "errant_tail" },
        );
        assert.deepEqual(rest.items, []);
      } finally {
        await resumeReplication(replica);
      }
    });

    test("goes on after the promotion, when the old primary is gone and GTIDs are the new one's", async () => {
      const followed = await following(toProxy());
      await insertedAt(primary, followed, 1);
      await replicated(primary, replica);
      const checkpoint = lastCheckpoint(followed);
      await promote(replica);
      await primary.kill();
      moveTo(replica);
      await replica.query("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
      await insertedAt(replica, followed, 2);
      const late = follow({ ...toProxy(), after: checkpoint });
      await insertedAt(replica, late, 3);
      assert.deepEqual(rows(late.items), ["i 2:n2", "i 3:n3"]);
      const own = parts(late.items).at(-1);
      if (kind.flavour === "mariadb") assert.match(own?.gtid ?? "", /^0-2-\d+$/);
      else assert.equal(own?.gtid?.split(":")[0], own?.checkpoint.serverUuid);
      // And what the new one has purged is not passed over.
      await replica.query(`FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY`);
      await late.stop();
      await followed.stop();
      await eventually("only the newest file is left", async () => {
        await replica.query("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
        return (await replica.query("SHOW BINARY LOGS")).length === 1;
      });
      const purged = follow({ ...toProxy(), after: checkpoint });
      await assert.rejects(
        purged.until(() => false),
        { code: "POSITION_LOST", detail: "gtid_purged" },
      );
      assert.deepEqual(rows(purged.items), []);
    });
  });

for (const kind of serverKinds.filter(({ hasGtids }) => !hasGtids))
  describe(`another server on ${kind.name}`, () => {
    before(() => startBoth(kind));
    after(stopBoth);
    afterEach(stopAll);

    test("a replica as source gives the same changes", async () => {
      const atReplica = await following({ settings: { port: replica.port } });
      await primary.query(`${create}; INSERT INTO thing VALUES (1, 'x', 'a'); UPDATE thing SET name = 'b'`);
      await replicated(primary, replica);
      await atReplica.until((items) => rows(items).length === 2);
      assert.deepEqual(rows(atReplica.items), ["i 1:a", "u 1:b was :a"]);
    });

    test("is refused: without GTIDs nothing leads there", async () => {
      const followed = await following(toProxy());
      await primary.query("INSERT INTO shop.thing VALUES (7, 'x', 'a')");
      await caughtUp(followed);
      moveTo(replica);
      await assert.rejects(
        followed.until(() => false),
        { code: "POSITION_LOST", detail: "other_server", message: /without GTIDs/ },
      );
    });
  });
