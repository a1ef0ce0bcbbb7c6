/** Every way to lose a position, done to real servers: each is named, and nothing is given. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { Checkpoint } from "../../agent/change.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { LossCase } from "../../agent/source/position-loss.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { type ServerKind, serverKinds } from "../servers/matrix.ts";
import {
  caughtUp,
  create,
  eventually,
  follow,
  following,
  killDumps,
  rows,
  settingsOf,
  sourceOf,
  stopAll,
  useServer,
} from "./following.ts";

let server: DatabaseServer;
let next = 0;

/** One more row, and the checkpoint of an agent that has read everything up to it. */
async function captured(): Promise<Checkpoint> {
  const followed = await following();
  await insert();
  await caughtUp(followed);
  await followed.stop();
  const checkpoint = followed.items.at(-1)?.checkpoint;
  assert.ok(checkpoint?.lastTransaction);
  return checkpoint;
}

async function insert(count = 1): Promise<void> {
  for (let row = 0; row < count; row += 1) {
    next += 1;
    await server.query(`INSERT INTO shop.thing VALUES (${next}, REPEAT('x', 200), 'n')`);
  }
}

/** A second start from the checkpoint is refused, by this name, and gives nothing. */
async function assertLost(checkpoint: Checkpoint, detail: LossCase, message: RegExp): Promise<void> {
  const refused = follow({ after: checkpoint });
  await assert.rejects(
    refused.until(() => false),
    (error: unknown) => {
      assert.ok(error instanceof AgentError);
      assert.equal(error.code, "POSITION_LOST", error.message);
      assert.equal(error.detail, detail, error.message);
      assert.match(error.message, message);
      assert.match(error.hint, /position restart/);
      return true;
    },
  );
  assert.deepEqual(rows(refused.items), []);
  await refused.stop();
}

/** What a backup of the stopped server holds. */
async function backUp(): Promise<string> {
  await server.kill();
  const backup = join(server.datadir, "..", "backup");
  rmSync(backup, { recursive: true, force: true });
  copyFiles(server.datadir, join(backup, "data"));
  copyFiles(server.binlogDir, join(backup, "binlog"));
  await server.restart();
  return backup;
}

async function restore(backup: string): Promise<void> {
  await server.kill();
  copyFiles(join(backup, "data"), server.datadir);
  copyFiles(join(backup, "binlog"), server.binlogDir);
  await server.restart();
}

/** Everything of one directory in place of everything of the other, with owners and rights. */
function copyFiles(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(to)) rmSync(join(to, name), { recursive: true });
  const done = spawnSync("cp", ["-a", `${from}/.`, to], { encoding: "utf8" });
  assert.equal(done.status, 0, done.stderr);
}

const reset = (kind: ServerKind): string =>
  kind.flavour === "mysql" ? "RESET BINARY LOGS AND GTIDS" : "RESET MASTER";

/** Deletes all files but the newest; a dump that nobody reads any more can still hold one for a moment. */
async function purgeAll(): Promise<string> {
  const files = await server.query("SHOW BINARY LOGS");
  const newest = String(files.at(-1)?.["Log_name"]);
  await eventually("only the newest binlog is left", async () => {
    await killDumps();
    await server.query(`PURGE BINARY LOGS TO '${newest}'`);
    return (await server.query("SHOW BINARY LOGS")).length === 1;
  });
  return newest;
}

/** Names and times of binlog files are whole seconds. */
async function untilNextSecond(): Promise<void> {
  await systemClock.sleep(2_000 - (Date.now() % 1_000));
}

const kinds = serverKinds.filter(({ name }) => name !== "MariaDB 11.8");

for (const kind of kinds)
  describe(`a position on ${kind.name}`, () => {
    before(async () => {
      server = await useServer(kind);
    });
    after(() => server.stop());
    beforeEach(() => server.query(create));
    afterEach(stopAll);

    test("is proven over a rotation: the last transaction stands in an earlier file", async () => {
      const checkpoint = await captured();
      const last = checkpoint.lastTransaction;
      assert.ok(last);
      await server.query("FLUSH BINARY LOGS");
      const rotated = follow({ after: checkpoint });
      await caughtUp(rotated);
      await rotated.stop();
      const behind = rotated.items.at(-1)?.checkpoint;
      assert.ok(behind);
      assert.notEqual(behind.file, checkpoint.file);
      assert.deepEqual(behind.lastTransaction, last);
      const wrong = { ...last, rowsCrc32: "00000001" };
      await assertLost({ ...behind, lastTransaction: wrong }, "other_history", /is another one/);
      await insert();
      const goes = follow({ after: behind });
      await caughtUp(goes);
      assert.equal(rows(goes.items).length, 1);
      await goes.stop();
    });

    test("is lost when its file was purged", async () => {
      const checkpoint = await captured();
      await insert();
      await server.query("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
      const newest = await purgeAll();
      await assertLost(
        checkpoint,
        "purged",
        new RegExp(`no longer has ${checkpoint.file}; it has ${newest}`),
      );
    });

    test("is lost after a RESET, also when the new files have the old names and are longer", async () => {
      await server.query(reset(kind));
      const checkpoint = await captured();
      await untilNextSecond();
      await server.query(reset(kind));
      await assertLost(checkpoint, "numbering_restarted", /started anew: binlog\.000001.*created at 20/);
      await server.query(create);
      while ((await sizeOf(checkpoint.file)) <= checkpoint.position) await insert(10);
      await assertLost(checkpoint, "numbering_restarted", /started anew: binlog\.000001.*created at 20/);
    });

    test("is lost after a RESET while it stood in a later file", async () => {
      await server.query("FLUSH BINARY LOGS; FLUSH BINARY LOGS");
      const checkpoint = await captured();
      await untilNextSecond();
      await server.query(reset(kind));
      await assertLost(checkpoint, "numbering_restarted", /started anew/);
    });

    test("is lost when the server lost the end of its binlog in a crash", async () => {
      const first = await captured();
      const { position, file } = await captured();
      const checkpoint = await captured();
      assert.equal(first.file, checkpoint.file);
      await server.kill();
      truncateSync(join(server.binlogDir, file), position);
      await server.restart();
      await assertLost(checkpoint, "cut_short", new RegExp(`${file} has ${position} bytes, and the state`));
    });

    test("is lost after a restore from a backup, whose server goes on differently", async () => {
      await insert();
      await untilNextSecond();
      const backup = await backUp();
      await untilNextSecond();
      const checkpoint = await captured();
      await untilNextSecond();
      await restore(backup);
      await assertLost(checkpoint, "other_history", /another file than the one that was read|does not have/);
      while ((await sizeOf(checkpoint.file)) <= checkpoint.position) await insert(10);
      await assertLost(checkpoint, "other_history", /another|not what was read/);
    });

    test("is lost when the last transaction at its place is another one", async () => {
      const checkpoint = await captured();
      const backup = await backUp();
      await insert(5);
      await restore(backup);
      // The same place and length, another row: as if the copy had gone on by itself.
      const last = checkpoint.lastTransaction;
      assert.ok(last);
      const other = { ...last, xid: "999999", timestampSeconds: last.timestampSeconds - 1 };
      await assertLost({ ...checkpoint, lastTransaction: other }, "other_history", /it differs in/);
      const same = follow({ after: checkpoint });
      await caughtUp(same);
      await same.stop();
    });

    test("is lost on a copy of the server, with a uuid of its own or another server id, to which no GTIDs lead", async () => {
      const checkpoint = { ...(await captured()), gtidSet: null };
      await server.restart(["--server-id=77"]);
      await assertLost(checkpoint, kind.flavour === "mysql" ? "server_copied" : "other_server", /77/);
      if (kind.flavour === "mysql") {
        await server.kill();
        rmSync(join(server.datadir, "auto.cnf"));
        await server.restart();
        await assertLost(checkpoint, "other_server", /and this is server 1 \(/);
      } else await server.restart();
    });

    test("is lost when the binlog has got another name", async () => {
      const checkpoint = await captured();
      await server.restart([`--log-bin=${join(server.binlogDir, "renamed")}`]);
      await assertLost(checkpoint, "files_renamed", /no file named binlog\.\d+ any more; it has renamed\./);
      await server.restart();
    });

    test("can be begun anew at the end, at a place, and at a GTID, but not inside a transaction", async () => {
      // The crash that cut a binlog above can leave a GTID in the engine that no file has: purged, to all.
      await server.query(reset(kind));
      const checkpoint = await captured();
      await insert(2);
      const { source } = sourceOf(settingsOf());
      const { file, position, gtidSet } = checkpoint;
      const words = [`${file}:${position}`, ...(kind.hasGtids && gtidSet !== null ? [gtidSet] : [])];
      for (const from of words) {
        const place = await source.placeAt(from);
        const anew = follow({ after: { ...place, epoch: 9, newestCommitMs: 0 } });
        await caughtUp(anew);
        assert.equal(rows(anew.items).length, 2, from);
        assert.equal(anew.items.at(-1)?.checkpoint.epoch, 9);
        await anew.stop();
      }
      const end = await source.placeAt("current");
      // MySQL's own word for the end lacks what is being committed, so it is gathered from the file.
      const [done] = kind.flavour === "mysql" ? await server.query("SELECT @@gtid_executed AS gtids") : [];
      const idle = kind.hasGtids
        ? await source.placeAt(done === undefined ? (end.gtidSet ?? "") : String(done["gtids"]))
        : end;
      assert.deepEqual([idle.file, idle.position], [end.file, end.position]);
      const events = await server.query(`SHOW BINLOG EVENTS IN '${file}' FROM ${position}`);
      const inside = events.find(({ Event_type: type }) => String(type).startsWith("Write_rows"));
      await assert.rejects(source.placeAt(`${file}:${String(inside?.["Pos"])}`), { code: "COMMAND_REFUSED" });
      await assert.rejects(source.placeAt(`${file}:${position + 1}`), { code: "COMMAND_REFUSED" });
      await assert.rejects(source.placeAt("binlog.999999:4"), { code: "POSITION_LOST" });
    });

    if (kind.hasGtids)
      test("is lost when what follows on its GTID was purged, or the server never had it", async () => {
        const { gtidSet } = await captured();
        assert.ok(gtidSet !== null);
        await insert(2);
        await server.query("FLUSH BINARY LOGS");
        await insert();
        await purgeAll();
        const purged = follow({ settings: { startPosition: gtidSet } });
        await assert.rejects(
          purged.until(() => false),
          { code: "POSITION_LOST", detail: "gtid_purged", message: /purged/ },
        );
        const never = gtidSet.replace(/\d+$/, "900000");
        const unknown = follow({ settings: { startPosition: never } });
        await assert.rejects(
          unknown.until(() => false),
          { code: "POSITION_LOST", detail: "gtid_unknown", message: /never had/ },
        );
      });
  });

async function sizeOf(file: string): Promise<number> {
  const files = await server.query("SHOW BINARY LOGS");
  return Number(files.find((row) => row["Log_name"] === file)?.["File_size"] ?? 0);
}
