/**
 * What systemd's watchdog does and does not end, with the shipped unit and bundle: a loop that hangs
 * inside a process that is otherwise well, and a long outage. The agent gives a loop a minute and a
 * half, so the three containers wait at the same time.
 */
import assert from "node:assert/strict";
import { chmodSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { LOOP_SILENT_MAX_MS } from "../../agent/observe/liveness.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { startMariadb } from "../servers/mariadb.ts";
import { bootSystemd, type BootedSystemd, ensureSystemd, unitName } from "../servers/systemd.ts";

const WATCHDOG_SECONDS = 5;
/** Something to write and to read comes every two seconds. */
const HELD_WITHIN_MS = 30_000;
const hang = "opt/magento-edge-agent/test/hang.mjs";
const blackHole = "opt/magento-edge-agent/test/black-hole.mjs";

let database: DatabaseServer;
let password: string;

before(async () => {
  await ensureSystemd();
  database = await startMariadb();
  await database.loadMagento();
  ({ password } = await database.createAgentUser());
  // The agent's user has to come to the socket.
  chmodSync(dirname(database.socket), 0o755);
});
after(() => database.stop());

/** A container with the agent running in it, and hanging when it is told to. */
async function start(serverId: number): Promise<BootedSystemd> {
  const systemd = await bootSystemd({
    binds: { "/run/database": dirname(database.socket) },
    settings: [
      "MAGENTO_DB_SOCKET=/run/database/mysqld.sock",
      `MAGENTO_DB_SERVER_ID=${serverId}`,
      "DISK_FREE_MIN=1M",
      "SPOOL_BYTES_MAX=100M",
    ],
    credentials: { "magento-db-pass": password },
    service: [
      `WatchdogSec=${WATCHDOG_SECONDS}s`,
      "TimeoutAbortSec=2s",
      `Environment=NODE_OPTIONS=--import=/${hang}`,
    ],
    files: {
      [hang]: join(import.meta.dirname, "hang.mjs"),
      [blackHole]: join(import.meta.dirname, "black-hole.mjs"),
    },
  });
  const node = "/opt/magento-edge-agent/current/bin/node";
  systemd.run("systemd-run", "--unit=black-hole", node, `/${blackHole}`);
  const started = systemd.run("systemctl", "start", unitName);
  assert.equal(started.status, 0, systemd.journal());
  systemd.enforceLimits();
  return systemd;
}

async function spoolOneEvent(systemd: BootedSystemd): Promise<void> {
  await database.query("USE magento_db; INSERT INTO customer_entity (email) VALUES ('a@example.com')");
  await systemd.until("spooled", ({ StatusText = "" }) => /spool [1-9]\d* events/.test(StatusText), 30_000);
}

/** Makes the loop hang; ends when systemd has started the agent anew because of that. */
async function hangsAndIsRestarted(systemd: BootedSystemd, loop: "capture" | "forward"): Promise<void> {
  const first = systemd.show("MainPID", "NRestarts");
  assert.equal(first["NRestarts"], "0");
  const told = systemd.run("sh", "-c", `echo ${loop} > /run/magento-edge-agent/hang`);
  assert.equal(told.status, 0, told.output);
  // Forwarding reads only what is new.
  const change = setInterval(() => {
    void database.query("USE magento_db; INSERT INTO customer_entity (email) VALUES ('b@example.com')");
  }, 2_000);
  try {
    await systemd.until(
      `a call of the ${loop} loop that is held for ever`,
      () => systemd.run("test", "-e", `/run/magento-edge-agent/hang-${loop}`).status === 0,
      HELD_WITHIN_MS,
    );
    await systemd.until(
      `a new process in place of the one whose ${loop} loop hangs`,
      (unit) => Number(unit["NRestarts"]) >= 1 && unit["ActiveState"] === "active",
      LOOP_SILENT_MAX_MS + (WATCHDOG_SECONDS + 40) * 1000,
    );
  } finally {
    clearInterval(change);
  }
  const journal = systemd.journal();
  assert.match(journal, /Watchdog timeout/);
  assert.match(journal, new RegExp(`a loop does not come round any more.*loop=${loop}`));
  const other = loop === "capture" ? "forward" : "capture";
  assert.doesNotMatch(journal, new RegExp(`does not come round any more.*loop=${other}`));
  assert.notEqual(systemd.show("MainPID")["MainPID"], first["MainPID"]);
  await systemd.until("healthy again", ({ StatusText = "" }) => StatusText.startsWith("streaming"), 30_000);
}

/** The sandbox and the limits hold in the process under test. */
function assertConfined(systemd: BootedSystemd): void {
  const { MainPID = "", MemoryMax, TasksMax } = systemd.show("MainPID", "MemoryMax", "TasksMax");
  const { output } = systemd.run("cat", `/proc/${MainPID}/status`);
  assert.match(output, /^NoNewPrivs:\t1$/m);
  assert.match(output, /^Seccomp:\t2$/m);
  assert.match(output, /^CapEff:\t0+$/m);
  assert.deepEqual([MemoryMax, TasksMax], [String(512 * 1024 * 1024), "64"]);
}

test("the watchdog ends a hung capture and a hung forward loop, and no long outage", async (t) => {
  const all = await Promise.all([start(7001), start(7002), start(7003)]);
  t.after(() => Promise.all(all.map((systemd) => systemd.stop())));
  const [capture, forward, outage] = all;
  for (const systemd of all) assertConfined(systemd);
  for (const systemd of all) await spoolOneEvent(systemd);
  const before_ = outage.show("MainPID");
  await Promise.all([
    hangsAndIsRestarted(capture, "capture"),
    hangsAndIsRestarted(forward, "forward"),
    sleep(LOOP_SILENT_MAX_MS + (WATCHDOG_SECONDS + 5) * 1000),
  ]);
  const after_ = outage.show("MainPID", "NRestarts", "ActiveState");
  assert.deepEqual(after_, { ...before_, NRestarts: "0", ActiveState: "active" });
  assert.match(outage.journal(), /delivery is on hold/);
  assert.doesNotMatch(outage.journal(), /does not come round/);
});
