import {
  startDatabase,
  prepareDatabaseFiles,
  type DatabaseOptions,
  type DatabaseProgram,
  type DatabaseServer,
} from "./database.ts";
import {
  dataDirectoryTemplate,
  ensureMariadb,
  type MariadbInstallation,
  type MariadbVersion,
  startInstalled,
} from "./mariadb-template.ts";
import { freePort } from "./ports.ts";

export type { AgentUser, AgentUserOptions, SqlRow } from "./database.ts";

export interface MariadbOptions extends DatabaseOptions {
  /** binlog_row_metadata; default FULL. */
  readonly rowMetadata?: "FULL" | "MINIMAL" | "NO_LOG";
  /** Default: the one that Debian 12 brings. 11.8 offers TLS also where none was asked for. */
  readonly version?: MariadbVersion;
}

/** A real MariaDB of its own: own data directory, socket, port; gone without a trace after stop. */
export type MariadbServer = DatabaseServer;

/** Starts a throw-away server; installs MariaDB where it is missing. About a second. */
export async function startMariadb(options: MariadbOptions = {}): Promise<MariadbServer> {
  const installation = await ensureMariadb(options.version);
  const template = await dataDirectoryTemplate(installation);
  const files = prepareDatabaseFiles("mariadb", template, installation, options);
  const program = programOf(installation, options);
  return startDatabase({ program, files, port: await freePort() }, options);
}

function programOf(installation: MariadbInstallation, options: MariadbOptions): DatabaseProgram {
  return {
    flavour: "mariadb",
    version: installation.version,
    user: installation.user,
    start: (args, files) => startInstalled(installation, args, files.directory),
    section: "mariadbd",
    settings: () => [`binlog_row_metadata=${options.rowMetadata ?? "FULL"}`, "innodb_log_file_size=16M"],
    createUser: (account, password) => [`CREATE OR REPLACE USER ${account} IDENTIFIED BY '${password}'`],
    monitorRight: "BINLOG MONITOR",
  };
}
