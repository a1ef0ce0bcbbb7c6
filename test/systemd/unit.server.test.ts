/** The shipped unit on a really booted systemd, with the built bundle, without any network. */
import assert from "node:assert/strict";
import { chmodSync } from "node:fs";
import { dirname } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { DatabaseServer } from "../servers/database.ts";
import { startMariadb } from "../servers/mariadb.ts";
import { bootSystemd, type BootedSystemd, type BootOptions, unitName } from "../servers/systemd.ts";

let database: DatabaseServer;
let password: string;
let booted: BootedSystemd | null = null;

before(async () => {
  database = await startMariadb();
  await database.loadMagento();
  ({ password } = await database.createAgentUser());
  // The agent's user has to come to the socket.
  chmodSync(dirname(database.socket), 0o755);
});
afterEach(async () => {
  await booted?.stop();
  booted = null;
});
after(() => database.stop());

async function boot(changes: Partial<BootOptions> = {}): Promise<BootedSystemd> {
  booted = await bootSystemd({
    binds: { "/run/database": dirname(database.socket) },
    settings: ["MAGENTO_DB_SOCKET=/run/database/mysqld.sock", "DISK_FREE_MIN=1M", "SPOOL_BYTES_MAX=100M"],
    credentials: { "magento-db-pass": password },
    ...changes,
  });
  return booted;
}

/** Of /proc/<pid>/status of the unit's process. */
function processStatus(systemd: BootedSystemd): Record<string, string> {
  const { output } = systemd.run("cat", `/proc/${systemd.show("MainPID")["MainPID"] ?? ""}/status`);
  return Object.fromEntries(output.split("\n").map((line) => line.split(/:\s+/)));
}

test("the unit file has no fault and keeps its exposure", async () => {
  const systemd = await boot();
  const verified = systemd.run("systemd-analyze", "verify", `/etc/systemd/system/${unitName}`);
  assert.equal(verified.status, 0);
  // Keys of systemd 254, which an older one is known to ignore.
  const complaints = verified.output
    .split("\n")
    .filter((line) => line !== "" && !/Unknown key '(RestartSteps|RestartMaxDelaySec)'/.test(line));
  assert.deepEqual(complaints, []);
  const path = `/etc/systemd/system/${unitName}`;
  const security = systemd.run("systemd-analyze", "security", "--offline=true", "--threshold=11", path);
  assert.equal(security.status, 0, security.output.slice(-500));
});

test("is ready without any network, stays so in an outage, keeps its watchdog, and stops with 0", async () => {
  const systemd = await boot({ service: ["WatchdogSec=3s"] });
  assert.equal(systemd.run("systemctl", "start", unitName).status, 0, systemd.journal());
  systemd.enforceLimits();
  await database.query(
    "USE magento_db; INSERT INTO customer_entity (email) VALUES ('a@example.com'), ('b@example.com')",
  );
  await systemd.until("spooled", ({ StatusText = "" }) => /spool [1-9]\d* events/.test(StatusText), 15_000);
  const first = systemd.show("WatchdogTimestampMonotonic", "WatchdogUSec", "MainPID");
  assert.equal(first["WatchdogUSec"], "3s");
  // Longer than the watchdog's time, with the cluster out of reach all the while.
  await sleep(5_000);
  const later = systemd.show("WatchdogTimestampMonotonic", "NRestarts", "ActiveState", "MainPID");
  assert.ok(Number(later["WatchdogTimestampMonotonic"]) > Number(first["WatchdogTimestampMonotonic"]));
  assert.deepEqual(
    [later["NRestarts"], later["ActiveState"], later["MainPID"]],
    ["0", "active", first["MainPID"]],
  );
  const reload = systemd.run("systemctl", "reload", unitName);
  assert.equal(reload.status, 0, reload.output);
  await systemd.until(
    "reloaded",
    ({ ActiveState }) => ActiveState === "active" && /the mapping was read again/.test(systemd.journal()),
  );
  const startedMs = performance.now();
  assert.equal(systemd.run("systemctl", "stop", unitName).status, 0);
  assert.ok(performance.now() - startedMs < 30_000);
  const { Result, ExecMainStatus, ActiveState } = systemd.show("Result", "ExecMainStatus", "ActiveState");
  assert.deepEqual([Result, ExecMainStatus, ActiveState], ["success", "0", "inactive"], systemd.journal());
  assert.equal(systemd.run("journalctl", "--no-pager").output.includes(password), false);
});

test("runs in its sandbox: no rights, no files but its own, filtered calls, the shipped limits", async () => {
  const systemd = await boot();
  assert.equal(systemd.run("systemctl", "start", unitName).status, 0, systemd.journal());
  systemd.enforceLimits();
  const status = processStatus(systemd);
  assert.match(status["Uid"] ?? "", /^4711\s/);
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
    assert.match(status[set] ?? "", /^0+$/);
  assert.deepEqual([status["NoNewPrivs"], status["Seccomp"]], ["1", "2"]);
  const limits = systemd.show("MemoryMax", "TasksMax", "WatchdogUSec", "TimeoutStopUSec", "Restart");
  assert.deepEqual(limits, {
    MemoryMax: String(512 * 1024 * 1024),
    TasksMax: "64",
    WatchdogUSec: "1min",
    TimeoutStopUSec: "30s",
    Restart: "on-failure",
  });
  const inside = systemd.run(
    "sh",
    "-c",
    `ls -ln --time-style=+ /var/lib /run | grep magento-edge-agent`,
  ).output;
  assert.match(inside, /^drwx------ .* 4711 4711 .*magento-edge-agent$/m);
  assert.match(inside, /^drwxr-x--- .* 4711 4711 .*magento-edge-agent$/m);
});

test("starts over and over while the database is down, and comes up when it is there", async () => {
  await database.kill();
  const systemd = await boot();
  systemd.run("systemctl", "start", "--no-block", unitName);
  await systemd.until(
    "the end of a second try",
    (unit) =>
      Number(unit["NRestarts"]) >= 2 &&
      unit["SubState"] === "auto-restart" &&
      unit["ExecMainStatus"] === "75",
    20_000,
  );
  await database.restart();
  await systemd.until("active", ({ ActiveState }) => ActiveState === "active", 20_000);
});

test("does not start over with a setting that only an operator can mend", async () => {
  const systemd = await boot({ settings: ["MAGENTO_DB_SOKET=/run/database/mysqld.sock"] });
  assert.notEqual(systemd.run("systemctl", "start", unitName).status, 0);
  await systemd.until("failed", ({ ActiveState }) => ActiveState === "failed");
  await sleep(1_500);
  const { ExecMainStatus, NRestarts } = systemd.show("ExecMainStatus", "NRestarts");
  assert.deepEqual([ExecMainStatus, NRestarts], ["78", "0"]);
});

test("is started anew by the watchdog when it hangs", async () => {
  const systemd = await boot({ service: ["WatchdogSec=2s", "TimeoutAbortSec=1s"] });
  assert.equal(systemd.run("systemctl", "start", unitName).status, 0, systemd.journal());
  const before_ = systemd.show("MainPID")["MainPID"] ?? "";
  assert.equal(systemd.run("sh", "-c", `kill -STOP ${before_}`).status, 0);
  await systemd.until(
    "a new process",
    (unit) => unit["NRestarts"] === "1" && unit["ActiveState"] === "active" && unit["MainPID"] !== before_,
  );
});
