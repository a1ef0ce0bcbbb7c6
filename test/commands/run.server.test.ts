import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DgramSocket } from "node-unix-socket";
import { type DaprStandIn, startDaprStandIn } from "../servers/dapr-stand-in.ts";
import { type MariadbServer, startMariadb } from "../servers/mariadb.ts";
import { freePorts } from "../servers/ports.ts";

const main = join(import.meta.dirname, "..", "..", "agent", "main.ts");
const flags = ["--disable-warning=ExperimentalWarning", main];
let mariadb: MariadbServer;
let dapr: DaprStandIn;
let directory: string;
let variables: Record<string, string>;
let health: string;
let metrics: string;
const children: ChildProcess[] = [];

before(async () => {
  mariadb = await startMariadb();
  await mariadb.loadMagento();
});

after(async () => {
  await mariadb.stop();
});

beforeEach(async () => {
  dapr = await startDaprStandIn({ token: "t-0" });
  directory = mkdtempSync(join(tmpdir(), "mea-run-"));
  mkdirSync(join(directory, "run"));
  const [metricsPort, healthPort] = await freePorts(2);
  const { user, password } = await mariadb.createAgentUser();
  health = `http://127.0.0.1:${healthPort}`;
  metrics = `http://127.0.0.1:${metricsPort}`;
  variables = {
    PATH: process.env["PATH"] ?? "",
    MAGENTO_DB_SOCKET: mariadb.socket,
    MAGENTO_DB_USER: user,
    MAGENTO_DB_PASS: password,
    DAPR_HTTP_ENDPOINT: dapr.endpoint,
    DAPR_API_TOKEN: "t-0",
    STATE_DIR: join(directory, "state"),
    RUNTIME_DIRECTORY: join(directory, "run"),
    METRICS_PORT: String(metricsPort),
    HEALTH_PORT: String(healthPort),
    DISK_FREE_MIN: "1M",
    SPOOL_BYTES_MAX: "1G",
  };
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("exit", resolve));
    }
  }
  await dapr.stop();
  rmSync(directory, { recursive: true, force: true });
});

interface Running {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  out(): string;
  err(): string;
}

function start(words: readonly string[], more: Readonly<Record<string, string>> = {}): Running {
  const child = spawn(process.execPath, [...flags, ...words], { env: { ...variables, ...more } });
  children.push(child);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const exited = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  return { child, exited, out: () => out, err: () => err };
}

function command(words: readonly string[], more: Readonly<Record<string, string>> = {}) {
  const ran = spawnSync(process.execPath, [...flags, ...words], {
    env: { ...variables, ...more },
    encoding: "utf8",
    timeout: 60_000,
  });
  return { code: ran.status, out: ran.stdout, err: ran.stderr };
}

async function until(what: string, running: Running, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `waiting until ${what}:\n${running.err()}`);
    assert.equal(running.child.exitCode, null, `it ended before ${what}:\n${running.err()}`);
    await sleep(50);
  }
}

let rows = 0;

async function writeRow(): Promise<number> {
  const id = 910_000 + rows++;
  await mariadb.query(
    `INSERT INTO magento_db.customer_entity SET entity_id = ${id}, email = 'c${id}@example.com', website_id = 1`,
  );
  return id;
}

function isDelivered(id: number): boolean {
  return dapr.delivered.some((one) => one.event.includes(`"magento_id":${id},`));
}

describe("the running agent", () => {
  it("tells systemd READY, STATUS, WATCHDOG and STOPPING, delivers, and stops with 0", async () => {
    const path = join(directory, "notify.sock");
    const messages: string[] = [];
    const socket = new DgramSocket();
    socket.on("data", (bytes: Buffer) => messages.push(bytes.toString()));
    socket.bind(path);
    const agent = start(["run"], { NOTIFY_SOCKET: path, WATCHDOG_USEC: "600000" });
    await until("READY", agent, () => messages.includes("READY=1"));
    assert.equal(command(["status", "--wait-healthy=20s"]).code, 0);
    const id = await writeRow();
    await until("delivered", agent, () => isDelivered(id));
    await until("WATCHDOG", agent, () => messages.filter((one) => one === "WATCHDOG=1").length > 2);
    await until("STATUS", agent, () => messages.some((one) => /^STATUS=\w+, lag /.test(one)));
    agent.child.kill("SIGTERM");
    assert.equal(await agent.exited, 0, agent.err());
    // Its last datagram may still be on the way into this process.
    const deadline = Date.now() + 30_000;
    while (!messages.includes("STOPPING=1") && Date.now() < deadline) await sleep(20);
    assert.ok(messages.includes("STOPPING=1"));
    // While it drains it still proves that it lives, and says nothing else.
    const later = messages.slice(messages.indexOf("STOPPING=1") + 1);
    assert.ok(
      later.every((one) => one === "WATCHDOG=1" || one.startsWith("EXTEND_TIMEOUT_USEC=")),
      later.join(),
    );
    assert.match(messages[0] ?? "", /^EXTEND_TIMEOUT_USEC=/);
    assert.doesNotMatch(agent.err(), /ERROR|WARN/);
    socket.close();
  });

  it("shows health, liveness, metrics and status, and removes its socket at the end", async () => {
    const agent = start(["run"]);
    await until("streaming", agent, () => command(["status", "--wait-healthy=10s"]).code === 0);
    const id = await writeRow();
    await until("delivered", agent, () => isDelivered(id));
    // The broker has it before the agent has the answer.
    await until("acknowledged", agent, async () =>
      (await (await fetch(`${metrics}/metrics`)).text()).includes("edge_agent_spool_events 0\n"),
    );
    const answer = await fetch(`${health}/health`);
    const report = JSON.parse(await answer.text());
    assert.equal(answer.status, 200, JSON.stringify(report));
    assert.deepEqual(Object.keys(report.checks), [
      "magento_database",
      "dapr",
      "sync_lag",
      "spool",
      "binlog_runway",
    ]);
    assert.equal((await fetch(`${health}/livez`)).status, 200);
    const text = await (await fetch(`${metrics}/metrics`)).text();
    assert.match(text, /sync_total\{table="customer_entity",op="c",status="success"\} 1\n/);
    assert.match(text, /edge_agent_build_info\{version="/);
    assert.match(text, /edge_agent_spool_events 0\n/);
    const status = JSON.parse(command(["status", "--json"]).out);
    assert.equal(status.ready, true);
    assert.equal(status.health.status, "healthy");
    assert.match(status.position.file, /^binlog\./);
    const screen = command(["status"]);
    assert.equal(screen.code, 0);
    assert.match(screen.out, /ok {2}magento_database/);
    agent.child.kill("SIGTERM");
    assert.equal(await agent.exited, 0);
    assert.equal(statSync(join(directory, "run", "control.sock"), { throwIfNoEntry: false }), undefined);
  });

  it("keeps running and says why while the cluster refuses, and delivers afterwards", async () => {
    const agent = start(["run"]);
    await until("streaming", agent, () => command(["status", "--wait-healthy=10s"]).code === 0);
    dapr.setToken("another");
    const id = await writeRow();
    await until("held", agent, async () => (await fetch(`${health}/health`)).status === 503);
    const degraded = command(["status"]);
    assert.equal(degraded.code, 2, degraded.out);
    assert.match(degraded.out, /on hold/);
    assert.equal(
      command(["status", "--wait-healthy=1s"]).code,
      0,
      "an outage of the cluster is no local fault",
    );
    assert.equal((await fetch(`${health}/livez`)).status, 200);
    dapr.setToken("t-0");
    await until("delivered", agent, () => isDelivered(id));
    agent.child.kill("SIGINT");
    assert.equal(await agent.exited, 0);
  });

  it("ends at once on the second signal", async () => {
    dapr.setScript(() => ({ kind: "hang", stores: false }));
    const agent = start(["run"]);
    await until("streaming", agent, () => command(["status", "--wait-healthy=10s"]).code === 0);
    const answered = dapr.requests;
    await writeRow();
    await until("a request hangs", agent, () => dapr.requests > answered);
    const started = Date.now();
    agent.child.kill("SIGTERM");
    await until("stopping", agent, () => agent.err().includes("stopping"));
    agent.child.kill("SIGTERM");
    assert.equal(await agent.exited, 75);
    assert.ok(Date.now() - started < 5000);
  });

  it("goes on where it stopped, and announces a changed mapping before anything that has its form", async () => {
    const first = start(["run"]);
    await until("streaming", first, () => command(["status", "--wait-healthy=10s"]).code === 0);
    const earlier = await writeRow();
    await until("delivered", first, () => isDelivered(earlier));
    first.child.kill("SIGTERM");
    assert.equal(await first.exited, 0);
    const between = await writeRow();
    const mapping = join(directory, "mapping.json");
    writeFileSync(mapping, JSON.stringify({ entities: { customer: { fields: { dob: null } } } }));
    const second = start(["run"], { MAPPING_FILE: mapping });
    await until("delivered", second, () => isDelivered(between));
    const changed = dapr.delivered.findIndex((one) => one.event.includes('"magento.schema.changed"'));
    const event = dapr.delivered.findIndex((one) => one.event.includes(`"magento_id":${between},`));
    assert.ok(changed >= 0 && changed < event, second.err());
    assert.match(dapr.delivered[event]?.event ?? "", /"schema_version":2/);
    second.child.kill("SIGTERM");
    assert.equal(await second.exited, 0);
  });

  it("exits 77 when the password is wrong at the first start", async () => {
    const agent = start(["run"], { MAGENTO_DB_PASS: "wrong" });
    assert.equal(await agent.exited, 77, agent.err());
    assert.match(agent.err(), /code=SOURCE_AUTH/);
    assert.doesNotMatch(agent.err(), /"wrong"|=wrong/);
  });

  it("exits 78 when a port is taken", async () => {
    const agent = start(["run"], { METRICS_PORT: String(dapr.port) });
    assert.equal(await agent.exited, 78, agent.err());
    assert.match(agent.err(), /code=LISTEN_FAILED/);
  });
});

describe("run --sink=stdout", () => {
  it("prints events as JSON lines, keeps nothing, and stops with 0", async () => {
    const agent = start(["run", "--sink=stdout"], { DAPR_HTTP_ENDPOINT: "http://127.0.0.1:1" });
    await until("printing", agent, () => agent.err().includes("printing events"));
    const ids: number[] = [];
    await until("an event", agent, async () => {
      ids.push(await writeRow());
      await sleep(200);
      return agent.out().includes("\n");
    });
    const event = JSON.parse(agent.out().split("\n")[0] ?? "");
    assert.equal(event.type, "magento.customer.created");
    assert.ok(ids.includes(event.data.magento_id));
    assert.equal(statSync(variables["STATE_DIR"] ?? "", { throwIfNoEntry: false }), undefined);
    agent.child.kill("SIGTERM");
    assert.equal(await agent.exited, 0, agent.err());
  });
});

/** Not synchronous: the stand-in for Dapr answers from this very process. */
async function checked(
  more: Readonly<Record<string, string>> = {},
): Promise<{ code: number | null; out: string }> {
  const ran = start(["check"], more);
  const code = await ran.exited;
  return { code, out: ran.out() };
}

describe("check", () => {
  it("finds no fault where everything is right", async () => {
    const ran = await checked();
    assert.equal(ran.code, 0, ran.out);
    assert.match(ran.out, /ok {5}database .*MariaDB.*, server id/);
    assert.match(ran.out, /ok {5}dapr .*Dapr 1\.18\.3, component pubsub/);
  });

  it("names a wrong token and a wrong component", async () => {
    const token = await checked({ DAPR_API_TOKEN: "wrong-token" });
    assert.equal(token.code, 1);
    assert.match(token.out, /FAULT {2}dapr .*DAPR_API_TOKEN/);
    assert.doesNotMatch(token.out, /wrong-token/);
    const component = await checked({ DAPR_PUBSUB: "nowhere" });
    assert.match(component.out, /FAULT {2}dapr .*DAPR_PUBSUB="nowhere"/);
  });
});
