/**
 * The words in which a MySQL is asked, by its version. 8.4 cannot be had as a package, and 9.7, on which
 * the server tests run, has lost the same statements; what was lost and added when stands in the
 * manuals' lists, and a stand-in refuses here what a version does not have.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createServer } from "mysql2";
import { openControl } from "../../agent/source/control-connection.ts";
import { inspectServer } from "../../agent/source/preflight.ts";
import { readRetention } from "../../agent/source/retention.ts";
import { readCurrentPosition, readServerFacts } from "../../agent/source/server-facts.ts";
import type { SourceSettings } from "../../agent/source/settings.ts";
import { Marks } from "../../agent/source/snapshot/marks.ts";
import { freePort } from "../servers/ports.ts";

type Row = Readonly<Record<string, string>>;

interface Versioned {
  /** As MySQL counts: 8.0.22 is 80022. */
  readonly since?: number;
  readonly until?: number;
}

const binlogEnd = [{ File: "binlog.000007", Position: "4321", Executed_Gtid_Set: "3E11FA47-0:1-5" }];
const replicaStatus = [{ Replica_IO_Running: "Yes" }];
const replica = { Host: "warehouse", Port: "3306" };

/** What differs between versions. */
const statements: Readonly<Record<string, Versioned & { readonly rows: readonly Row[] }>> = {
  "SHOW MASTER STATUS": { until: 80400, rows: binlogEnd },
  "SHOW BINARY LOG STATUS": { since: 80200, rows: binlogEnd },
  "SHOW SLAVE STATUS": { until: 80400, rows: replicaStatus },
  "SHOW REPLICA STATUS": { since: 80022, rows: replicaStatus },
  "SHOW SLAVE HOSTS": { until: 80400, rows: [{ ...replica, Server_id: "4711" }] },
  "SHOW REPLICAS": { since: 80022, rows: [{ ...replica, Server_Id: "4711" }] },
};

const variables: Readonly<Record<string, Versioned & { readonly value: string }>> = {
  log_bin: { value: "ON" },
  binlog_format: { value: "ROW" },
  binlog_row_image: { value: "FULL" },
  binlog_row_metadata: { value: "FULL" },
  binlog_row_value_options: { value: "" },
  binlog_transaction_compression: { since: 80020, value: "OFF" },
  binlog_expire_logs_seconds: { value: "604800" },
  binlog_expire_logs_auto_purge: { since: 80029, value: "ON" },
  expire_logs_days: { until: 80400, value: "0" },
  binlog_storage_engine: { since: 120300, value: "innodb" },
  log_slave_updates: { value: "OFF" },
  log_replica_updates: { since: 80026, value: "OFF" },
};

/** What all versions answer. */
const common: readonly (readonly [RegExp, readonly Row[]])[] = [
  [/^SELECT @@server_uuid/, [{ server_uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562" }]],
  [/^SELECT @@GLOBAL.gtid_mode/, [{ mode: "ON" }]],
  [
    /^SHOW GRANTS$/,
    [
      { Grants: "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `agent`@`%`" },
      { Grants: "GRANT SELECT ON `shop`.* TO `agent`@`%`" },
    ],
  ],
  [/^SHOW BINARY LOGS$/, [{ Log_name: "binlog.000007", File_size: "4321", Encrypted: "No" }]],
  [/FROM information_schema.TABLES/, [{ name: "thing" }]],
];

function exists({ since = 0, until = Infinity }: Versioned, version: number): boolean {
  return since <= version && version < until;
}

/** Null: no such statement. */
function answer(sql: string, version: number, name: string): readonly Row[] | null {
  if (sql.startsWith("SELECT VERSION()")) return [{ version: name, server_id: "1" }];
  if (sql.startsWith("SHOW GLOBAL VARIABLES")) {
    const known = Object.entries(variables).filter(([, versioned]) => exists(versioned, version));
    return known.map(([Variable_name, { value }]) => ({ Variable_name, Value: value }));
  }
  const statement = statements[sql];
  if (statement !== undefined) return exists(statement, version) ? statement.rows : null;
  return common.find(([pattern]) => pattern.test(sql))?.[1] ?? null;
}

function columnOf(name: string) {
  const none = { catalog: "def", schema: "", table: "", orgTable: "", flags: 0, decimals: 0 };
  return { ...none, name, orgName: name, characterSet: 255, columnLength: 1024, columnType: 253 };
}

interface StandIn extends AsyncDisposable {
  readonly settings: SourceSettings;
}

/** Speaks MySQL's protocol to whoever comes. */
async function startStandIn(name: string): Promise<StandIn> {
  const [major = 0, minor = 0, patch = 0] = name.split(/[.-]/).map(Number);
  const version = major * 10_000 + minor * 100 + patch;
  let connections = 0;
  const server = createServer((connection) => {
    connections += 1;
    connection.on("error", () => undefined);
    connection.serverHandshake({
      protocolVersion: 10,
      serverVersion: name,
      connectionId: connections,
      statusFlags: 2,
      characterSet: 255,
      // Long password, 4.1 protocol, secure connection.
      capabilityFlags: 0x0000_8201,
      authCallback: (_client: unknown, accept: (refusal: null) => void) => {
        accept(null);
        connection.sequenceId = 0;
      },
    });
    connection.on("query", (sql: string) => {
      // Packets are counted anew with each command; the driver does that for a client alone.
      connection.sequenceId = 1;
      const rows = answer(sql, version, name);
      if (rows === null) connection.writeError({ code: 1064, message: `no such statement: ${sql}` });
      else connection.writeTextResult([...rows], Object.keys(rows[0] ?? { none: "" }).map(columnOf));
      connection.sequenceId = 0;
    });
  });
  const port = await freePort();
  server.listen(port);
  return {
    settings: {
      host: "127.0.0.1",
      port,
      socketPath: null,
      user: "agent",
      password: () => "",
      database: "shop",
      tablePrefix: "",
      serverId: 4_711,
      tls: "off",
      tlsCa: null,
      startPosition: null,
    },
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
      }),
  };
}

test("a MariaDB that keeps its binlog in InnoDB is refused by name", async () => {
  await using server = await startStandIn("12.3.1-MariaDB");
  const { faults } = await inspectServer(server.settings, []);
  const fault = faults.find(({ name }) => name === "binlog_storage_engine");
  assert.deepEqual([fault?.value, fault?.severity, fault?.code], ["innodb", "fault", "SOURCE_UNSUITABLE"]);
});

for (const name of ["8.0.21", "8.0.44", "8.4.7", "9.7.1"])
  test(`MySQL ${name} is asked in words that it has`, async () => {
    await using server = await startStandIn(name);
    const { settings } = server;
    const { facts, faults } = await inspectServer(settings, [
      { table: "thing", columns: ["id"], keyColumns: [0] },
    ]);
    assert.equal(facts?.version, name);
    assert.deepEqual(
      faults.map(({ name: what, value }) => `${what} ${value}`),
      [
        `${name === "8.0.21" ? "log_slave_updates" : "log_replica_updates"} OFF`,
        "MAGENTO_DB_SERVER_ID 4711, which replica warehouse uses",
      ],
    );
    const end = { file: "binlog.000007", position: 4321 };
    await using control = await openControl(settings);
    assert.equal((await readServerFacts(control)).flavour, "mysql");
    assert.deepEqual(await readCurrentPosition(control, "mysql"), { ...end, gtidSet: "3E11FA47-0:1-5" });
    const marks = await Marks.of(control, "mysql", false);
    assert.deepEqual(await marks.high(), end);
    assert.equal((await readRetention(settings)).expireSeconds, 604_800);
  });
