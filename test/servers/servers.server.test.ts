import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { writeClusterFiles } from "./cluster-files.ts";
import { startDaprd } from "./daprd.ts";
import { withLock } from "./locks.ts";
import { startMariadb } from "./mariadb.ts";
import { startMysql } from "./mysql.ts";
import { freePorts } from "./ports.ts";
import { startProcess } from "./processes.ts";
import { startRedis } from "./redis.ts";

function lives(pid: number): boolean {
  try {
    // A zombie is as good as gone: its parent only has not looked yet.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function untilGone(pid: number): Promise<void> {
  for (let tries = 0; lives(pid) && tries < 200; tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 25));
  assert.equal(lives(pid), false, `process ${pid} is still there`);
}

for (const newer of [
  { name: "MariaDB 11.8", start: () => startMariadb({ version: "11.8", serverId: 7, tls: true }) },
  { name: "MySQL", start: () => startMysql({ rowMetadata: "MINIMAL", serverId: 7, tls: true }) },
  { name: "MySQL without GTIDs", start: () => startMysql({ gtid: false, nativeForeignKeys: true }) },
]) {
  test(`${newer.name} starts from its own tree, keeps data over kill -9, leaves no process, file or mount`, async () => {
    const server = await newer.start();
    const pid = server.pid();
    try {
      assert.match(server.version, server.flavour === "mysql" ? /^9\.7\./ : /^11\.8\./);
      assert.equal(readFileSync(`/proc/${pid}/status`, "utf8").includes("\nUid:\t0\t"), false, "not as root");
      await server.loadMagento({ seed: true, foreignKeys: true });
      const { user, password } = await server.createAgentUser();
      const agent = await server.connection({ host: "127.0.0.1", port: server.port, user, password });
      await assert.rejects(agent.query("DELETE FROM magento_db.sales_order"), {
        code: "ER_TABLEACCESS_DENIED_ERROR",
      });
      await server.kill();
      await server.restart();
      const [kept] = await server.query("SELECT count(*) n FROM magento_db.sales_order");
      assert.equal(kept?.["n"], "1");
      assert.ok(existsSync(join(server.binlogDir, "binlog.000002")));
    } finally {
      await server.stop();
    }
    assert.equal(lives(pid), false);
    assert.equal(existsSync(dirname(server.datadir)), false);
    assert.equal(readFileSync("/proc/self/mounts", "utf8").includes(dirname(server.datadir)), false);
  });
}

test("MySQL has what was asked for: GTIDs, metadata, cascades, authentication, TLS", async () => {
  const server = await startMysql({ gtid: false, rowMetadata: "MINIMAL", nativeForeignKeys: true });
  const other = await startMysql();
  try {
    const ask =
      "SELECT @@gtid_mode g, @@binlog_row_metadata m, @@innodb_native_foreign_keys f, @@binlog_format b";
    assert.deepEqual(await server.query(ask), [{ g: "OFF", m: "MINIMAL", f: "1", b: "ROW" }]);
    assert.deepEqual(await other.query(ask), [{ g: "ON", m: "FULL", f: "0", b: "ROW" }]);
    const [mine] = await server.query("SELECT @@server_uuid u");
    const [theirs] = await other.query("SELECT @@server_uuid u");
    assert.notEqual(mine?.["u"], theirs?.["u"]);
    await server.createAgentUser({ database: "mysql" });
    const [account] = await server.query("SELECT plugin FROM mysql.user WHERE user='magento_edge_agent'");
    assert.equal(account?.["plugin"], "caching_sha2_password");
  } finally {
    await server.stop();
    await other.stop();
  }
});

test("MariaDB starts with the binlog settings asked for, keeps data over kill -9, leaves nothing", async () => {
  const server = await startMariadb({ rowMetadata: "MINIMAL", serverId: 7, tls: true });
  const pid = server.pid();
  try {
    const [settings] = await server.query(
      "SELECT @@binlog_format f, @@binlog_row_image i, @@binlog_row_metadata m, @@server_id s, @@log_bin b",
    );
    assert.deepEqual(settings, { f: "ROW", i: "FULL", m: "MINIMAL", s: "7", b: "1" });
    await server.loadMagento({ seed: true, foreignKeys: true });
    await server.loadMagento({ seed: true, database: "prefixed", prefix: "m2_" });
    const [counted] = await server.query("SELECT count(*) n FROM prefixed.m2_sales_order_item");
    assert.equal(counted?.["n"], "2");
    const { user, password } = await server.createAgentUser();
    const ca = readFileSync(server.tls?.ca ?? "");
    const agent = await server.connection({
      host: "127.0.0.1",
      port: server.port,
      user,
      password,
      ssl: { ca },
    });
    await agent.query("SHOW MASTER STATUS");
    await assert.rejects(agent.query("DELETE FROM magento_db.sales_order"), {
      code: "ER_TABLEACCESS_DENIED_ERROR",
    });
    await server.kill();
    assert.equal(lives(pid), false);
    await server.restart();
    const [kept] = await server.query("SELECT count(*) n FROM magento_db.sales_order");
    assert.equal(kept?.["n"], "1");
    assert.ok(existsSync(join(server.binlogDir, "binlog.000002")));
  } finally {
    await server.stop();
  }
  assert.equal(existsSync(server.datadir), false);
});

test("Redis starts, keeps streams over a restart, leaves nothing", async () => {
  const redis = await startRedis();
  const pid = redis.pid();
  try {
    for (const value of ["one", "two", "drei€"]) await redis.command("XADD", "s", "*", "data", value);
    await redis.restart();
    assert.equal(await redis.streamLength("s"), 3);
    assert.equal((await redis.newestEntries("s", 1))[0]?.fields["data"], "drei€");
    assert.equal((await redis.streamEntries("s", { count: 2 })).length, 2);
    assert.equal(await redis.streamLength("none"), 0);
    await assert.rejects(redis.command("XADD"), /wrong number of arguments/);
  } finally {
    await redis.stop();
  }
  assert.equal(lives(pid), false);
});

test("daprd starts on the cluster's files, comes back on its port after kill -9, leaves nothing", async () => {
  const directory = throwAwayDirectory("servers-test");
  const redis = await startRedis();
  const resourcesDir = writeClusterFiles(directory, { redisPort: redis.port, role: "gateway" });
  const daprd = await startDaprd({ resourcesDir });
  try {
    const { httpPort } = daprd;
    await daprd.kill();
    assert.equal(daprd.running(), false);
    await daprd.restart();
    assert.equal(daprd.httpPort, httpPort);
    const answer = await fetch(`${daprd.endpoint}/v1.0/metadata`);
    assert.equal(JSON.parse(await answer.text()).runtimeVersion, "1.18.3");
  } finally {
    const pid = daprd.pid();
    await daprd.stop();
    await redis.stop();
    removeDirectory(directory);
    assert.equal(lives(pid), false);
  }
});

test("a child that ignores TERM is killed at the end of its time", async () => {
  const directory = throwAwayDirectory("servers-test");
  const child = startProcess({
    command: "bash",
    args: ["-c", "trap '' TERM; echo started; while true; do sleep 1; done"],
    logFile: join(directory, "log"),
  });
  while (!child.log().includes("started")) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(await child.stop(200), { code: null, signal: "SIGKILL" });
  removeDirectory(directory);
});

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  test(`no server outlives its test process when that ends by ${signal}`, async () => {
    const directory = throwAwayDirectory("servers-test");
    const script = join(directory, "forgetful.mjs");
    const processes = join(import.meta.dirname, "processes.ts");
    writeFileSync(
      script,
      `import { startProcess } from ${JSON.stringify(processes)};
       const child = startProcess({ command: "sleep", args: ["600"], logFile: ${JSON.stringify(join(directory, "log"))} });
       process.stdout.write(String(child.pid));
       setInterval(() => {}, 1000);`,
    );
    const parent = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
    const pid = await new Promise<number>((resolve) => {
      parent.stdout.once("data", (chunk: Buffer) => resolve(Number(chunk.toString("utf8"))));
    });
    assert.equal(lives(pid), true);
    parent.kill(signal);
    await untilGone(pid);
    removeDirectory(directory);
  });
}

test("hands out ports that can be listened on, none twice", async () => {
  const ports = await freePorts(20);
  assert.equal(new Set(ports).size, 20);
  for (const port of ports) {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    await new Promise((resolve) => server.close(resolve));
  }
});

test("work under one lock never overlaps, also after a failure", async () => {
  let inside = 0;
  const name = `test-${process.pid}`;
  const work = async (fail: boolean): Promise<void> => {
    inside += 1;
    assert.equal(inside, 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    inside -= 1;
    if (fail) throw new Error("failed");
  };
  const results = await Promise.allSettled(
    [true, false, true, false].map((fail) => withLock(name, () => work(fail))),
  );
  assert.deepEqual(
    results.map((one) => one.status),
    ["rejected", "fulfilled", "rejected", "fulfilled"],
  );
});
