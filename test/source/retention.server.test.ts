/** What each kind of server says about how long it keeps its binlog, and what becomes of it. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Checkpoint } from "../../agent/change.ts";
import { RunwayWatch } from "../../agent/runway-watch.ts";
import { type Retention, readRetention } from "../../agent/source/retention.ts";
import { createSpoolStats } from "../spool/stats.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { serverKinds } from "../servers/matrix.ts";
import { FakeClock, LinesLog } from "../observe/facts.ts";
import { checkpoint } from "../spool/fixtures.ts";
import { eventually } from "./following.ts";

for (const kind of serverKinds) {
  describe(kind.name, () => {
    let server: DatabaseServer;
    let password: string;
    const read = (): Promise<Retention> =>
      readRetention({
        host: "127.0.0.1",
        port: server.port,
        socketPath: null,
        user: "magento_edge_agent",
        password: () => password,
        database: "magento_db",
        tablePrefix: "",
        serverId: 4711,
        tls: "preferred",
        tlsCa: null,
        startPosition: null,
      });
    const set = (name: string, value: string): Promise<unknown> =>
      server.query(`SET GLOBAL ${name} = ${value}`);
    const known = async (name: string): Promise<boolean> =>
      (await server.query(`SHOW GLOBAL VARIABLES LIKE '${name}'`)).length > 0;

    before(async () => {
      server = await kind.start();
      await server.loadMagento();
      ({ password } = await server.createAgentUser());
    });
    after(() => server.stop());

    test("tells age, size and files with the agent's rights alone", async () => {
      await set("binlog_expire_logs_seconds", "345600");
      assert.equal((await read()).expireSeconds, 345_600);
      await set("binlog_expire_logs_seconds", "0");
      assert.equal((await read()).expireSeconds, null);
      await set("binlog_expire_logs_seconds", "345600");
      if (await known("binlog_expire_logs_auto_purge")) {
        await set("binlog_expire_logs_auto_purge", "OFF");
        assert.equal((await read()).expireSeconds, null);
        await set("binlog_expire_logs_auto_purge", "ON");
      }
      if (await known("max_binlog_total_size")) {
        await set("max_binlog_total_size", "1073741824");
        await set("slave_connections_needed_for_purge", "2");
        const { totalBytesMax, replicasNeeded } = await read();
        assert.deepEqual([totalBytesMax, replicasNeeded], [1_073_741_824, 2]);
        await set("max_binlog_total_size", "0");
        await set("slave_connections_needed_for_purge", "0");
      } else assert.equal((await read()).totalBytesMax, null);
      await server.query("FLUSH BINARY LOGS");
      const { files } = await read();
      assert.ok(files.size >= 2);
      assert.ok([...files.values()].every((bytes) => bytes > 100));
    });

    test("sees that what is needed was purged, and endures a server that is away", async () => {
      const [first = ""] = (await read()).files.keys();
      let at: Checkpoint = { ...checkpoint(4), file: first, newestCommitMs: new FakeClock().wallMs() };
      const log = new LinesLog();
      const watch = new RunwayWatch({
        readRetention: read,
        spool: { checkpoint: () => at, stats: createSpoolStats },
        clock: new FakeClock(),
        log,
      });
      assert.equal(watch.facts().binlog, null);
      await watch.look();
      assert.equal(watch.facts().binlog?.by, "age");
      await server.query("FLUSH BINARY LOGS");
      const [{ File: newest } = { File: "" }] = await server.query(
        kind.flavour === "mysql" ? "SHOW BINARY LOG STATUS" : "SHOW MASTER STATUS",
      );
      // A file may be in use for a moment, and is then left without a word: MariaDB's last checkpoint is in it.
      await eventually("the first file is purged", async () => {
        await server.query(`PURGE BINARY LOGS TO '${String(newest)}'`);
        return !(await read()).files.has(first);
      });
      await watch.look();
      assert.equal(watch.facts().binlog?.by, "purged");
      at = { ...at, file: String(newest) };
      await watch.look();
      assert.equal(watch.facts().binlog?.by, "age");
      const before_ = watch.facts().binlog;
      await server.kill();
      await watch.look();
      await watch.look();
      assert.deepEqual(watch.facts().binlog, before_, "what was measured last stays");
      assert.deepEqual(
        log.lines.map(({ fields }) => fields["code"]),
        ["SOURCE_UNREACHABLE"],
      );
    });
  });
}
