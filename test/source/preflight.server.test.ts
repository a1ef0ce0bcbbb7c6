import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AgentError } from "../../agent/kernel/errors.ts";
import { createBinlogSource } from "../../agent/source/binlog-source.ts";
import { inspectServer } from "../../agent/source/preflight.ts";
import type { SourceSettings } from "../../agent/source/settings.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import { type MariadbServer, startMariadb } from "../servers/mariadb.ts";

const tables = [
  { table: "thing", columns: ["id"], keyColumns: [0] },
  { table: "absent", columns: ["id"], keyColumns: [0] },
];

let server: MariadbServer;

before(async () => {
  server = await startMariadb();
  await server.query(
    "CREATE DATABASE magento_db; USE magento_db; CREATE TABLE m_thing (id int); CREATE TABLE m_absent (id int)",
  );
  await server.createAgentUser();
});
after(() => server.stop());

function settings(changes: Partial<SourceSettings> = {}): SourceSettings {
  return {
    host: "127.0.0.1",
    port: server.port,
    socketPath: null,
    user: "magento_edge_agent",
    password: () => "agent-password",
    database: "magento_db",
    tablePrefix: "m_",
    serverId: 4_711,
    tls: "preferred",
    tlsCa: null,
    startPosition: null,
    ...changes,
  };
}

async function names(changes: Partial<SourceSettings> = {}): Promise<string[]> {
  const { faults } = await inspectServer(settings(changes), tables);
  for (const { rule, mend } of faults) assert.ok(rule !== "" && mend !== "");
  return faults.map(({ severity, name }) => `${severity} ${name}`).sort();
}

const silence = { debug() {}, info() {}, notice() {}, warn() {}, error() {} };
const observer = { connected() {}, disconnected() {}, bytesRead() {}, oddity() {} };

async function firstConnectCode(changes: Partial<SourceSettings>): Promise<unknown> {
  const source = createBinlogSource({
    settings: settings(changes),
    tables,
    observer,
    log: silence,
    clock: systemClock,
  });
  try {
    await source.firstConnect();
    return null;
  } catch (thrown) {
    return thrown instanceof AgentError ? thrown.code : thrown;
  }
}

test("finds nothing to complain about on a server as the docs want it", async () => {
  assert.deepEqual(await names(), []);
  const { facts } = await inspectServer(settings(), tables);
  assert.equal(facts?.flavour, "mariadb");
  assert.equal(await firstConnectCode({}), null);
});

test("names every fault at once", async () => {
  await server.query(
    "SET GLOBAL binlog_format=MIXED, GLOBAL binlog_row_image=MINIMAL, GLOBAL binlog_row_metadata=NO_LOG, GLOBAL expire_logs_days=1",
  );
  await server.createAgentUser({ grants: ["SELECT ON `magento_db`.`m_thing`"] });
  assert.deepEqual(await names({ serverId: 1, tablePrefix: "m_" }), [
    "advice binlog_expire_logs_seconds",
    "advice binlog_row_metadata",
    "advice table m_absent",
    "fault MAGENTO_DB_SERVER_ID",
    "fault binlog_format",
    "fault binlog_row_image",
    "fault right BINLOG MONITOR",
    "fault right REPLICATION SLAVE",
    "fault right SELECT",
  ]);
  await server.query(
    "SET GLOBAL binlog_format=ROW, GLOBAL binlog_row_image=FULL, GLOBAL binlog_row_metadata=FULL, GLOBAL expire_logs_days=0",
  );
  await server.createAgentUser();
});

test("says what keeps it from asking, by the code that decides the exit", async () => {
  assert.deepEqual(await names({ password: () => "wrong" }), ["fault MAGENTO_DB_USER"]);
  assert.deepEqual(await names({ port: 1 }), ["fault MAGENTO_DB_HOST"]);
  assert.deepEqual(await names({ socketPath: "/nowhere.sock" }), ["fault MAGENTO_DB_SOCKET"]);
  assert.deepEqual(await names({ database: "nowhere" }), ["fault MAGENTO_DB_NAME", "fault right SELECT"]);
  assert.equal(await firstConnectCode({ password: () => "wrong" }), "SOURCE_AUTH");
  assert.equal(await firstConnectCode({ port: 1 }), "SOURCE_UNREACHABLE");
  assert.equal(await firstConnectCode({ serverId: 1 }), "SOURCE_UNSUITABLE");
  await server.createAgentUser({ grants: ["SELECT ON `magento\\_db`.*"] });
  assert.equal(await firstConnectCode({}), "SOURCE_RIGHTS");
  await server.createAgentUser();
});
