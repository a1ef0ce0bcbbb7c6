import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { AgentError } from "../../agent/kernel/errors.ts";
import { createBinlogSource } from "../../agent/source/binlog-source.ts";
import { inspectServer } from "../../agent/source/preflight.ts";
import type { SourceSettings } from "../../agent/source/settings.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { serverKinds } from "../servers/matrix.ts";

const tables = [
  { table: "thing", columns: ["id"], keyColumns: [0] },
  { table: "absent", columns: ["id"], keyColumns: [0] },
];

let server: DatabaseServer;

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

for (const kind of serverKinds)
  describe(kind.name, () => {
    const isMysql = kind.flavour === "mysql";
    // What its own defaults give reason to say.
    const purgeWaits = kind.name === "MariaDB 11.8" ? ["advice slave_connections_needed_for_purge"] : [];
    const own = [...(kind.ownMetadata === "FULL" ? [] : ["advice binlog_row_metadata"]), ...purgeWaits];
    before(async () => {
      server = await kind.start();
      await server.query(
        "CREATE DATABASE magento_db; USE magento_db; CREATE TABLE m_thing (id int); CREATE TABLE m_absent (id int)",
      );
    });
    after(() => server.stop());
    beforeEach(async () => {
      await server.query(
        `SET GLOBAL binlog_format=ROW, GLOBAL binlog_row_image=FULL, GLOBAL binlog_row_metadata=${kind.ownMetadata},
      GLOBAL binlog_expire_logs_seconds=0
      ${isMysql ? ", GLOBAL binlog_transaction_compression=OFF, GLOBAL binlog_row_value_options=''" : ""}`,
      );
      await server.createAgentUser();
    });

    test("finds nothing to complain about on a server as the docs want it", async () => {
      assert.deepEqual(await names(), own);
      const { facts } = await inspectServer(settings(), tables);
      assert.equal(facts?.flavour, kind.flavour);
      assert.equal(facts.serverUuid === null, kind.flavour === "mariadb");
      assert.equal(await firstConnectCode({}), null);
    });

    test("names every fault at once", async () => {
      await server.query(
        `SET GLOBAL binlog_format=MIXED, GLOBAL binlog_row_image=MINIMAL, GLOBAL binlog_row_metadata=${isMysql ? "MINIMAL" : "NO_LOG"},
      GLOBAL binlog_expire_logs_seconds=86400
      ${isMysql ? ", GLOBAL binlog_transaction_compression=ON, GLOBAL binlog_row_value_options=PARTIAL_JSON" : ""}`,
      );
      await server.createAgentUser({ grants: ["SELECT ON `magento_db`.`m_thing`"] });
      assert.deepEqual(await names({ serverId: 1, tablePrefix: "m_" }), [
        "advice binlog_expire_logs_seconds",
        "advice binlog_row_metadata",
        ...purgeWaits,
        "advice table m_absent",
        "fault MAGENTO_DB_SERVER_ID",
        "fault binlog_format",
        "fault binlog_row_image",
        ...(isMysql ? ["fault binlog_row_value_options", "fault binlog_transaction_compression"] : []),
        ...(isMysql ? ["fault right REPLICATION CLIENT"] : ["fault right BINLOG MONITOR"]),
        "fault right REPLICATION SLAVE",
        "fault right SELECT",
      ]);
    });

    test("says what keeps it from asking, by the code that decides the exit", async () => {
      assert.deepEqual(await names({ password: () => "wrong" }), ["fault MAGENTO_DB_USER"]);
      assert.deepEqual(await names({ port: 1 }), ["fault MAGENTO_DB_HOST"]);
      assert.deepEqual(await names({ socketPath: "/nowhere.sock" }), ["fault MAGENTO_DB_SOCKET"]);
      assert.deepEqual(await names({ database: "nowhere" }), [
        ...own,
        "fault MAGENTO_DB_NAME",
        "fault right SELECT",
      ]);
      assert.equal(await firstConnectCode({ password: () => "wrong" }), "SOURCE_AUTH");
      assert.equal(await firstConnectCode({ port: 1 }), "SOURCE_UNREACHABLE");
      assert.equal(await firstConnectCode({ serverId: 1 }), "SOURCE_UNSUITABLE");
      await server.createAgentUser({ grants: ["SELECT ON `magento\\_db`.*"] });
      assert.equal(await firstConnectCode({}), "SOURCE_RIGHTS");
    });
  });
