/** What happens to the connection to the database, with everything real: the agent stays up and goes on by itself. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startTcpProxy, type TcpProxy } from "../faults/tcp-proxy.ts";
import { writeRandomly } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { Stack } from "./stack.ts";

const agentUser = "magento_edge_agent@'%'";
const directory = throwAwayDirectory("database-outage");
const passwordFile = join(directory, "password");
const random = new Random(runSeed());
const table: string[] = [];
let stack: Stack;
let proxy: TcpProxy;
let daprWay: TcpProxy;
let writes = 0;

before(async () => {
  writeFileSync(passwordFile, "agent-password", { mode: 0o600 });
  stack = await Stack.start({
    wayToDatabase: async (port) => (proxy = await startTcpProxy({ port })).port,
    wayToDapr: async (port) => (daprWay = await startTcpProxy({ port })).port,
    settings: { MAGENTO_DB_PASS: undefined, MAGENTO_DB_PASS_FILE: passwordFile },
  });
  await stack.agent.start();
  await stack.untilReading();
  await write();
  await stack.drain();
});

after(async () => {
  console.log(["| database | told as | reading again, s |", "|---|---|---|", ...table].join("\n"));
  await stack.stop();
  await proxy.stop();
  await daprWay.stop();
  removeDirectory(directory);
});

async function write(): Promise<void> {
  const { mariadb, identity } = stack;
  writes += 1;
  await writeRandomly({
    connect: () => mariadb.connection({ database: identity.database }),
    database: identity.database,
    prefix: identity.prefix,
    random: random.fork(writes),
    connections: 2,
    transactions: 60,
  });
}

const isReading = async (): Promise<boolean> =>
  (await stack.agent.metric("edge_agent_source_connected")) === 1;

interface DatabaseHealth {
  readonly status: string;
  readonly message: string;
}

async function databaseHealth(): Promise<DatabaseHealth> {
  const report: { checks: { magento_database: DatabaseHealth } } = JSON.parse(
    (await stack.agent.health()) ?? "{}",
  );
  return report.checks.magento_database;
}

/**
 * The fault comes while events wait for the cluster, so that it can be seen that forwarding goes on
 * without the database; then it ends, and reading goes on.
 */
async function suffer(
  name: string,
  told: RegExp,
  fault: { begin: () => Promise<void>; end: () => Promise<void> },
): Promise<void> {
  const { agent } = stack;
  const pid = agent.pid;
  const logFrom = agent.log().length;
  await daprWay.become({ kind: "refuse" });
  await write();
  await stack.untilSpooled(30, 30_000);
  await fault.begin();
  await agent.until(`the loss is seen: ${name}`, async () => !(await isReading()), 40_000);
  const health = await databaseHealth();
  assert.equal(health.status, "unhealthy");
  assert.equal(await agent.healthStatus(), 503);
  await daprWay.become({ kind: "pass" });
  await agent.until(
    "what was spooled is forwarded without the database",
    async () => (await agent.metric("edge_agent_spool_events")) === 0,
    30_000,
  );
  await agent.until("it says why", async () => told.test((await databaseHealth()).message), 30_000);
  await fault.end();
  const endMs = performance.now();
  await agent.until(`reading goes on after: ${name}`, isReading, 60_000, 20);
  const seconds = ((performance.now() - endMs) / 1000).toFixed(1);
  await write();
  await stack.drain();
  assert.ok((await agent.metric("edge_agent_source_disconnects_total")) !== 0);
  await agent.until("health is good again", async () => (await agent.healthStatus()) === 200, 30_000);
  assert.equal(agent.pid, pid);
  const log = agent.log().slice(logFrom);
  assert.match(log, /the database's stream is interrupted/);
  assert.equal(log.split("the database's stream goes on").length - 1, 1, "one line at the end");
  table.push(`| ${name} | ${[...log.matchAll(/code=(SOURCE_\w+)/g)].at(-1)?.[1] ?? "-"} | ${seconds} |`);
}

test("a black hole in the middle of the stream", () =>
  suffer("black hole", /no packet|ETIMEDOUT|timeout|ECONN/i, {
    begin: () => proxy.become({ kind: "black-hole" }),
    end: () => proxy.become({ kind: "pass" }),
  }));

test("a server that is killed and comes back", () =>
  suffer("server killed", /ECONN|lost|closed|ended/i, {
    begin: () => stack.mariadb.kill(),
    end: async () => {
      await stack.mariadb.restart();
      await stack.mariadb.query(`USE ${stack.identity.database}`);
    },
  }));

test("a password that was rotated, and comes to the agent's file later", () =>
  suffer("password rotated", /denied/i, {
    begin: async () => {
      await stack.mariadb.query(`ALTER USER ${agentUser} IDENTIFIED BY 'rotated'`);
      proxy.cut();
    },
    end: async () => writeFileSync(passwordFile, "rotated", { mode: 0o600 }),
  }));

test("a grant that was revoked, and is given back", () =>
  suffer("grant revoked", /denied/i, {
    begin: async () => {
      await stack.mariadb.query(`REVOKE REPLICATION SLAVE ON *.* FROM ${agentUser}`);
      proxy.cut();
    },
    end: async () => {
      await stack.mariadb.query(`GRANT REPLICATION SLAVE ON *.* TO ${agentUser}`);
    },
  }));

test("a half-open connection is found and replaced, with what was written meanwhile", async () => {
  const { agent } = stack;
  const connects = async (): Promise<number> =>
    (await agent.metric("edge_agent_source_connects_total")) ?? Number.NaN;
  const connected = await connects();
  await proxy.become({ kind: "half-open" });
  const startMs = performance.now();
  await write();
  await agent.until("it connects again", async () => (await connects()) > connected, 60_000);
  table.push(
    `| half-open connection | SOURCE_UNREACHABLE | ${((performance.now() - startMs) / 1000).toFixed(1)} |`,
  );
  await proxy.become({ kind: "pass" });
  await stack.drain();
});

test("after all of them replica and source are equal", async () => {
  const proof = await stack.prove(random);
  console.log(`${proof.events} deliveries of ${proof.distinct} events`);
});
