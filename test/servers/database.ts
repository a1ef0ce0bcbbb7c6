/**
 * What throw-away databases have in common, whichever program serves: files, start, connections,
 * the agent's user, kill, restart and stop.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createConnection, type Connection, type ConnectionOptions } from "mysql2/promise";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { magentoTablesSql, type MagentoTablesOptions } from "./magento-tables.ts";
import { makeTlsFiles, type TlsFiles } from "./mariadb-tls.ts";
import { startProcess, waitUntilReady, type ServerProcess } from "./processes.ts";

/** What both kinds of server take. */
export interface DatabaseOptions {
  /** binlog_row_image; default FULL. */
  readonly rowImage?: "FULL" | "MINIMAL" | "NOBLOB";
  /** Default 1. */
  readonly serverId?: number;
  /** A certificate for localhost and 127.0.0.1; its authority is `tls.ca`. Default false. */
  readonly tls?: boolean;
  /** Command line options that come last and so win, such as "--max-binlog-size=1M". */
  readonly args?: readonly string[];
}

export interface AgentUser {
  readonly user: string;
  readonly password: string;
}

export interface AgentUserOptions {
  readonly user?: string;
  readonly password?: string;
  readonly database?: string;
  /** Replaces the rights of the contract, each without its user: "SELECT ON `magento_db`.*". */
  readonly grants?: readonly string[];
}

/** A row as mysql2 gives it: integers over 2^53, decimals and dates as strings. */
export type SqlRow = Record<string, unknown>;

/** A real server of its own: own data directory, socket, port; gone without a trace after stop. */
export interface DatabaseServer {
  readonly flavour: "mariadb" | "mysql";
  readonly socket: string;
  readonly port: number;
  readonly datadir: string;
  /** Holds binlog.000001, ... and binlog.index. */
  readonly binlogDir: string;
  readonly tls: TlsFiles | null;
  readonly version: string;
  pid(): number;
  /** Runs one or more statements as root on one kept connection; gives the last one's rows. */
  query(sql: string): Promise<SqlRow[]>;
  /** Ends the kept connection: the next `query` finds no session variable and no transaction of before. */
  newSession(): Promise<void>;
  /** A new connection, as root unless told otherwise; closed at stop if the caller forgets. */
  connection(options?: ConnectionOptions): Promise<Connection>;
  loadMagento(options?: MagentoTablesOptions): Promise<void>;
  /** A user with the rights that the agent's contract names (or those given), for any host. */
  createAgentUser(options?: AgentUserOptions): Promise<AgentUser>;
  /** kill -9; the data directory stays for `restart`. */
  kill(): Promise<void>;
  /** Stops it in order if it runs, and starts it on the same files, socket and port. */
  restart(moreArgs?: readonly string[]): Promise<void>;
  /** Stops it and removes every file. Idempotent. */
  stop(): Promise<void>;
}

export interface DatabaseFiles {
  readonly directory: string;
  readonly datadir: string;
  readonly binlogDir: string;
  readonly tls: TlsFiles | null;
}

/** What runs the server, and what differs between its kinds. */
export interface DatabaseProgram {
  readonly flavour: "mariadb" | "mysql";
  readonly version: string;
  /** The user that the server's files belong to (null: this one). */
  readonly user: { readonly uid: number; readonly gid: number } | null;
  /** What to start with these arguments. */
  start(
    args: readonly string[],
    files: DatabaseFiles,
  ): { readonly command: string; readonly args: readonly string[]; readonly asUser: boolean };
  /** The section of the configuration file, and the lines that only this kind of server knows. */
  readonly section: string;
  settings(files: DatabaseFiles): readonly string[];
  /** Makes the account anew. */
  createUser(account: string, password: string): readonly string[];
  /** The right to ask for the binlog's state. */
  readonly monitorRight: string;
}

/** Copies the template; `what` names the throw-away directory. */
export function prepareDatabaseFiles(
  what: string,
  template: string,
  program: Pick<DatabaseProgram, "user">,
  options: DatabaseOptions,
): DatabaseFiles {
  const directory = throwAwayDirectory(what);
  const datadir = join(directory, "data");
  const binlogDir = join(directory, "binlog");
  cpSync(template, datadir, { recursive: true });
  mkdirSync(binlogDir);
  mkdirSync(join(directory, "tmp"));
  const tls = options.tls === true ? makeTlsFiles(join(directory, "tls")) : null;
  if (program.user !== null) {
    spawnSync("chown", ["-R", `${program.user.uid}:${program.user.gid}`, directory]);
  }
  return { directory, datadir, binlogDir, tls };
}

function isRow(value: unknown): value is SqlRow {
  return typeof value === "object" && value !== null && !("affectedRows" in value && "insertId" in value);
}

export interface DatabasePlace {
  readonly program: DatabaseProgram;
  readonly files: DatabaseFiles;
  readonly port: number;
}

/** Starts it; stops it again when it does not answer. */
export async function startDatabase(place: DatabasePlace, options: DatabaseOptions): Promise<DatabaseServer> {
  const server = new ThrowAwayDatabase(place, options);
  try {
    await server.start([]);
  } catch (thrown) {
    await server.stop();
    throw thrown;
  }
  return server;
}

class ThrowAwayDatabase implements DatabaseServer {
  readonly flavour: "mariadb" | "mysql";
  readonly socket: string;
  readonly port: number;
  readonly datadir: string;
  readonly binlogDir: string;
  readonly tls: TlsFiles | null;
  readonly version: string;
  readonly #place: DatabasePlace;
  readonly #options: DatabaseOptions;
  #process: ServerProcess | null = null;
  #root: Promise<Connection> | null = null;
  #open = new Set<Connection>();

  constructor(place: DatabasePlace, options: DatabaseOptions) {
    this.#place = place;
    this.#options = options;
    this.socket = join(place.files.directory, "mysqld.sock");
    this.port = place.port;
    this.datadir = place.files.datadir;
    this.binlogDir = place.files.binlogDir;
    this.tls = place.files.tls;
    this.version = place.program.version;
    this.flavour = place.program.flavour;
  }

  pid(): number {
    if (this.#process === null) throw new Error("the database does not run");
    return this.#process.pid;
  }

  async start(moreArgs: readonly string[]): Promise<void> {
    const { files, program } = this.#place;
    const defaults = join(files.directory, "my.cnf");
    writeFileSync(defaults, this.#configuration(), { mode: 0o644 });
    const given = [`--defaults-file=${defaults}`, ...(this.#options.args ?? []), ...moreArgs];
    const { command, args, asUser } = program.start(given, files);
    this.#process = startProcess({
      command,
      args,
      logFile: join(files.directory, "server.log"),
      ...(program.user === null || !asUser ? {} : { user: program.user }),
    });
    await waitUntilReady(this.#process, () => this.#answers(), 60_000);
  }

  async query(sql: string): Promise<SqlRow[]> {
    this.#root ??= this.connection({ multipleStatements: true });
    const connection = await this.#root;
    const [answer] = await connection.query(sql);
    if (!Array.isArray(answer)) return [];
    const results: unknown[] = answer;
    const last = results.at(-1);
    return (Array.isArray(last) ? last : results).filter(isRow);
  }

  async newSession(): Promise<void> {
    const connection = await this.#root;
    this.#root = null;
    if (connection === undefined || connection === null) return;
    this.#open.delete(connection);
    await connection.end();
  }

  async connection(options: ConnectionOptions = {}): Promise<Connection> {
    const connection = await createConnection({
      ...(options.host === undefined && options.port === undefined ? { socketPath: this.socket } : {}),
      user: "root",
      supportBigNumbers: true,
      bigNumberStrings: true,
      dateStrings: true,
      ...options,
    });
    // Without a listener, a server that is killed ends the test process.
    connection.on("error", () => {});
    this.#open.add(connection);
    return connection;
  }

  async loadMagento(options: MagentoTablesOptions = {}): Promise<void> {
    const connection = await this.connection({ multipleStatements: true, charset: "utf8mb4" });
    try {
      await connection.query(magentoTablesSql(options));
    } finally {
      this.#open.delete(connection);
      await connection.end();
    }
  }

  async createAgentUser(options: AgentUserOptions = {}): Promise<AgentUser> {
    const user = options.user ?? "magento_edge_agent";
    const password = options.password ?? "agent-password";
    const database = options.database ?? "magento_db";
    const grants = options.grants ?? [
      `SELECT ON \`${database}\`.*`,
      "REPLICATION SLAVE ON *.*",
      `${this.#place.program.monitorRight} ON *.*`,
      // For the low mark of a snapshot where there are no GTIDs.
      ...(this.flavour === "mysql" ? ["BACKUP_ADMIN ON *.*", "SELECT ON performance_schema.log_status"] : []),
    ];
    const account = `'${user}'@'%'`;
    const statements = [...this.#place.program.createUser(account, password)];
    for (const grant of grants) statements.push(`GRANT ${grant} TO ${account}`);
    await this.query(statements.join(";"));
    return { user, password };
  }

  async kill(): Promise<void> {
    await this.#process?.kill();
    this.#process = null;
    this.#dropConnections();
  }

  async restart(moreArgs: readonly string[] = []): Promise<void> {
    await this.#end();
    await this.start(moreArgs);
  }

  async stop(): Promise<void> {
    await this.#end();
    removeDirectory(this.#place.files.directory);
  }

  async #end(): Promise<void> {
    this.#dropConnections();
    // A dump connection that does not read can hold an orderly stop up for long.
    await this.#process?.stop(20_000);
    this.#process = null;
  }

  #dropConnections(): void {
    for (const connection of this.#open) connection.destroy();
    this.#open = new Set();
    this.#root = null;
  }

  async #answers(): Promise<boolean> {
    try {
      const connection = await createConnection({ socketPath: this.socket, user: "root" });
      await connection.end();
      return true;
    } catch {
      return false;
    }
  }

  /** Small and quick to start; durability against power cuts is not what these tests look at. */
  #configuration(): string {
    const { files } = this.#place;
    const { program } = this.#place;
    const lines = [
      `[${program.section}]`,
      `datadir=${files.datadir}`,
      `tmpdir=${join(files.directory, "tmp")}`,
      `socket=${this.socket}`,
      `port=${this.port}`,
      `pid_file=${join(files.directory, "server.pid")}`,
      "bind_address=127.0.0.1",
      "skip_name_resolve=ON",
      "character_set_server=utf8mb4",
      "collation_server=utf8mb4_general_ci",
      "default_time_zone='+00:00'",
      "max_allowed_packet=64M",
      `server_id=${this.#options.serverId ?? 1}`,
      `log_bin=${join(files.binlogDir, "binlog")}`,
      "binlog_format=ROW",
      `binlog_row_image=${this.#options.rowImage ?? "FULL"}`,
      "sync_binlog=0",
      "innodb_buffer_pool_size=64M",
      "innodb_flush_log_at_trx_commit=2",
      "innodb_buffer_pool_dump_at_shutdown=OFF",
      "innodb_buffer_pool_load_at_startup=OFF",
      "performance_schema=OFF",
      ...program.settings(files),
    ];
    if (files.tls !== null) {
      lines.push(`ssl_ca=${files.tls.ca}`, `ssl_cert=${files.tls.cert}`, `ssl_key=${files.tls.key}`);
    }
    return `${lines.join("\n")}\n`;
  }
}
