/** The kinds of server that the source has to read: its tests run on each of them. */
import type { DatabaseOptions, DatabaseServer } from "./database.ts";
import { startMariadb } from "./mariadb.ts";
import { type MysqlRelease, startMysql } from "./mysql.ts";

/** binlog_row_metadata: all that a stream can say of its tables, or less. */
export type RowMetadata = "FULL" | "MINIMAL" | "NO_LOG";

export interface KindOptions extends DatabaseOptions {
  /** Default: what the kind is about. */
  readonly rowMetadata?: RowMetadata;
}

export interface ServerKind {
  readonly name: string;
  readonly flavour: "mariadb" | "mysql";
  /** Whether transactions have GTIDs. */
  readonly hasGtids: boolean;
  /** The values of binlog_row_metadata that it knows, most first. */
  readonly rowMetadata: readonly RowMetadata[];
  /** Whether it has columns of type VECTOR. */
  readonly hasVectors: boolean;
  /** The value that it starts with. */
  readonly ownMetadata: RowMetadata;
  start(options?: KindOptions): Promise<DatabaseServer>;
}

function mariadb(version: "10.11" | "11.8"): ServerKind {
  return {
    name: `MariaDB ${version}`,
    flavour: "mariadb",
    hasGtids: true,
    hasVectors: version === "11.8",
    rowMetadata: ["FULL", "MINIMAL", "NO_LOG"],
    ownMetadata: "FULL",
    start: (options = {}) => startMariadb({ ...options, version }),
  };
}

/** MySQL knows no NO_LOG: its MINIMAL says less than MariaDB's FULL, and no names. */
function mysql(
  name: string,
  hasGtids: boolean,
  ownMetadata: "FULL" | "MINIMAL",
  release: MysqlRelease = "9.7",
): ServerKind {
  return {
    name,
    flavour: "mysql",
    hasGtids,
    hasVectors: release === "9.7",
    rowMetadata: ["FULL", "MINIMAL"],
    ownMetadata,
    start: ({ rowMetadata, ...options } = {}) =>
      startMysql({
        ...options,
        release,
        gtid: hasGtids,
        rowMetadata: rowMetadata === undefined ? ownMetadata : atLeastMinimal(rowMetadata),
      }),
  };
}

function atLeastMinimal(rowMetadata: RowMetadata): "FULL" | "MINIMAL" {
  return rowMetadata === "FULL" ? "FULL" : "MINIMAL";
}

/** What tests run on that are about something else than the server: the one that Debian 12 brings. */
export const usualKind: ServerKind = mariadb("10.11");

const mysql84 = [
  mysql("MySQL 8.4", true, "FULL", "8.4"),
  mysql("MySQL 8.4 without GTIDs, with MINIMAL metadata", false, "MINIMAL", "8.4"),
];

const usualKinds = [
  usualKind,
  mariadb("11.8"),
  mysql("MySQL 9.7", true, "FULL"),
  mysql("MySQL 9.7 without GTIDs, with MINIMAL metadata", false, "MINIMAL"),
];

function kindsOf(wanted: string | undefined): readonly ServerKind[] {
  if (wanted === undefined || wanted === "") return usualKinds;
  if (wanted === "mysql-8.4") return mysql84;
  throw new Error(`EDGE_TEST_SERVERS is "${wanted}"; it can be mysql-8.4, or unset for the usual servers`);
}

/** With EDGE_TEST_SERVERS=mysql-8.4 the tests of all kinds run on that one instead: too much for each run. */
export const serverKinds: readonly ServerKind[] = kindsOf(process.env["EDGE_TEST_SERVERS"]);
