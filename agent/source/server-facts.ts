/** What the server says about itself and its binlog. */
import type { Position } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { type ControlConnection, numberOf, type SqlRow, textOf } from "./control-connection.ts";
import type { SchemaColumn } from "./decode/column-definition.ts";
import { serverErrorOf, translateError } from "./source-errors.ts";
import type { Flavour } from "./stream-progress.ts";

export interface ServerFacts {
  readonly flavour: Flavour;
  readonly version: string;
  readonly serverId: number;
  /** MySQL's; MariaDB has none. */
  readonly serverUuid: string | null;
  readonly encrypted: boolean;
}

export interface ServerPosition extends Position {
  /** Everything up to the position; null where the server has no GTIDs. */
  readonly gtidSet: string | null;
}

export async function readServerFacts(control: ControlConnection): Promise<ServerFacts> {
  const [row] = await control.query("SELECT VERSION() AS version, @@server_id AS server_id");
  const version = textOf(row, "version");
  const flavour: Flavour = /mariadb/i.test(version) ? "mariadb" : "mysql";
  const [uuid] = flavour === "mysql" ? await control.query("SELECT @@server_uuid AS server_uuid") : [];
  return {
    flavour,
    version,
    serverId: numberOf(row, "server_id"),
    serverUuid: uuid === undefined ? null : textOf(uuid, "server_uuid"),
    encrypted: control.isEncrypted,
  };
}

/** The end of the binlog. It can run ahead of what a SELECT sees. */
export async function readCurrentPosition(
  control: ControlConnection,
  flavour: Flavour,
): Promise<ServerPosition> {
  const [row] =
    flavour === "mariadb"
      ? await control.query("SHOW MASTER STATUS")
      : await control.queryFirst("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS");
  if (row === undefined)
    throw new AgentError("SOURCE_UNSUITABLE", "the server writes no binlog (log_bin is off)");
  const file = textOf(row, "File");
  const position = numberOf(row, "Position");
  if (flavour === "mysql") {
    const gtidSet = textOf(row, "Executed_Gtid_Set").replace(/\s/g, "");
    return { file, position, gtidSet: gtidSet === "" ? null : gtidSet };
  }
  return { file, position, gtidSet: await readMariadbGtids(control, file, position) };
}

/** GTIDs of everything before a position, null when the server cannot tell. */
export async function readMariadbGtids(
  control: ControlConnection,
  file: string,
  position: number,
): Promise<string | null> {
  // The function takes 32 bits.
  if (position > 0xffff_ffff) return null;
  const [row] = await control.query("SELECT BINLOG_GTID_POS(?, ?) AS gtids", [file, position]);
  return row === undefined || row["gtids"] === null ? null : textOf(row, "gtids");
}

/** Size of a binlog file, and the files that there are. */
export async function readBinlogFiles(control: ControlConnection): Promise<ReadonlyMap<string, number>> {
  const rows = await control.query("SHOW BINARY LOGS");
  return new Map(rows.map((row) => [textOf(row, "Log_name"), numberOf(row, "File_size")]));
}

/** Names of the replicas that use this id; null where the account may not ask. */
export async function readReplicasWithId(
  control: ControlConnection,
  serverId: number,
): Promise<string[] | null> {
  const rows = await askIfAllowed(control, "SHOW REPLICA HOSTS", "SHOW SLAVE HOSTS", "SHOW REPLICAS");
  if (rows === null) return null;
  return rows
    .filter((row) => (numberOf(row, "Server_id") || numberOf(row, "Server_Id")) === serverId)
    .map((row) => textOf(row, "Host"));
}

/** Null where the account may not ask. */
export async function askIfAllowed(
  control: ControlConnection,
  ...statements: readonly string[]
): Promise<SqlRow[] | null> {
  try {
    return await control.queryFirst(...statements);
  } catch (thrown) {
    const error = translateError(thrown);
    if (error.code === "SOURCE_RIGHTS" || serverErrorOf(error.cause).code === "ER_PARSE_ERROR") return null;
    throw error;
  }
}

/** Columns of a table as they are now, in their order; null when it is not there. */
export async function readColumns(
  control: ControlConnection,
  database: string,
  table: string,
): Promise<SchemaColumn[] | null> {
  const rows = await control.query(
    `SELECT COLUMN_NAME AS name, COLUMN_TYPE AS column_type, CHARACTER_SET_NAME AS charset, COLLATION_NAME AS collation,
       IS_NULLABLE AS nullable, GENERATION_EXPRESSION AS generated_as
     FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION`,
    [database, table],
  );
  if (rows.length === 0) return null;
  return rows.map((row) => ({
    name: textOf(row, "name"),
    columnType: textOf(row, "column_type"),
    charset: nullableText(row, "charset"),
    collation: nullableText(row, "collation"),
    isNullable: textOf(row, "nullable") === "YES",
    generatedAs: textOf(row, "generated_as"),
  }));
}

/**
 * Names of the tables that lose their rows when the server restarts; views are none. MariaDB makes it
 * wait while a table is filled by the statement that creates it.
 */
export async function readMemoryTables(
  control: ControlConnection,
  database: string,
): Promise<ReadonlySet<string>> {
  const rows = await control.query(
    `SELECT TABLE_NAME AS name FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'BASE TABLE' AND ENGINE = 'MEMORY'`,
    [database],
  );
  return new Set(rows.map((row) => textOf(row, "name")));
}

function nullableText(row: SqlRow, column: string): string | null {
  return row[column] === null ? null : textOf(row, column);
}
