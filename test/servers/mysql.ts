/** A throw-away MySQL 9.7 or 8.4, with what MariaDB's has: the same interface, the same promises. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "./cache.ts";
import {
  type DatabaseFiles,
  type DatabaseOptions,
  type DatabaseProgram,
  type DatabaseServer,
  prepareDatabaseFiles,
  startDatabase,
} from "./database.ts";
import { type Account, ensureDebianTree, treeCommand, treeRoot } from "./debian-tree.ts";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { withLock } from "./locks.ts";
import { serverAccount, versionInTree } from "./mariadb-template.ts";
import { freePort } from "./ports.ts";
import { ubuntuArchive } from "./ubuntu-archive.ts";

export type MysqlRelease = "9.7" | "8.4";

export interface MysqlOptions extends DatabaseOptions {
  /** Default 9.7. */
  readonly release?: MysqlRelease;
  /** binlog_row_metadata; default FULL. The server's own default is MINIMAL. */
  readonly rowMetadata?: "FULL" | "MINIMAL";
  /** gtid_mode; default true, as the server's own. */
  readonly gtid?: boolean;
  /**
   * innodb_native_foreign_keys; default false, as the server's own: cascades are in the binlog.
   * True brings back the silent cascades of MySQL 8, which 8.4 has without being asked.
   */
  readonly nativeForeignKeys?: boolean;
}

export type MysqlServer = DatabaseServer;

const mysqld = "usr/sbin/mysqld";
const recipe = "1";

export interface MysqlInstallation {
  readonly tree: string;
  readonly version: string;
  readonly user: Account | null;
}

const origins = {
  "9.7": { suite: "sid" },
  "8.4": { suite: "resolute", archive: ubuntuArchive },
} as const;

/** Brings MySQL as a tree of its own: the machine's own packages stay as they are. */
export async function ensureMysql(release: MysqlRelease = "9.7"): Promise<MysqlInstallation> {
  const tree = await ensureDebianTree({
    ...origins[release],
    packages: ["mysql-server-core", "mysql-client-core"],
    why: "the throw-away MySQL",
  });
  return { tree, version: versionInTree(tree, mysqld), user: serverAccount() };
}

/** Starts a throw-away server, whose accounts use caching_sha2_password. About a second. */
export async function startMysql(options: MysqlOptions = {}): Promise<MysqlServer> {
  const installation = await ensureMysql(options.release);
  const template = await mysqlTemplate(installation);
  const files = prepareDatabaseFiles("mysql", template, installation, options);
  const program = programOf(installation, options);
  return startDatabase({ program, files, port: await freePort() }, options);
}

function programOf(installation: MysqlInstallation, options: MysqlOptions): DatabaseProgram {
  const gtid = options.gtid === false ? "OFF" : "ON";
  return {
    flavour: "mysql",
    version: installation.version,
    user: installation.user,
    start: (args, { directory }) => {
      const [command, ...rest] = commandOf(installation, directory, args);
      return { command, args: rest, asUser: false };
    },
    section: "mysqld",
    settings: (files: DatabaseFiles) => [
      `binlog_row_metadata=${options.rowMetadata ?? "FULL"}`,
      `gtid_mode=${gtid}`,
      `enforce_gtid_consistency=${gtid}`,
      ...(options.nativeForeignKeys === true && options.release !== "8.4"
        ? ["innodb_native_foreign_keys=ON"]
        : []),
      "innodb_redo_log_capacity=16M",
      // Next to files that tests write and read; the default is a directory of the package.
      `secure_file_priv=${join(files.directory, "tmp")}`,
      "mysqlx=OFF",
      "auto_generate_certs=OFF",
    ],
    createUser: (account, password) => [
      `DROP USER IF EXISTS ${account}`,
      `CREATE USER ${account} IDENTIFIED WITH caching_sha2_password BY '${password}'`,
    ],
    monitorRight: "REPLICATION CLIENT",
  };
}

/** The file of settings has to stand first. */
function commandOf(
  { tree, user }: MysqlInstallation,
  directory: string,
  args: readonly string[],
): [string, ...string[]] {
  const run = { tree, program: mysqld, mountPoint: join(directory, "tree"), user };
  const root = treeRoot(run);
  const [defaults = "", ...more] = args;
  return treeCommand(run, [
    defaults,
    `--basedir=${join(root, "usr")}`,
    `--lc-messages-dir=${join(root, "usr/share/mysql")}`,
    `--character-sets-dir=${join(root, "usr/share/mysql/charsets")}`,
    `--plugin-dir=${join(root, "usr/lib/mysql/plugin")}`,
    ...more,
  ]);
}

/** A new data directory with root without password, kept in the cache. */
async function mysqlTemplate(installation: MysqlInstallation): Promise<string> {
  const key = createHash("sha256").update(`${recipe} ${installation.version}`).digest("hex").slice(0, 16);
  const template = join(cacheDirectory("mysql"), key);
  if (existsSync(template)) return template;
  return withLock(`mysql-template-${key}`, async () => {
    if (!existsSync(template)) makeTemplate(installation, template);
    return template;
  });
}

function makeTemplate(installation: MysqlInstallation, template: string): void {
  process.stderr.write(`setup: making a MySQL ${installation.version} data directory (once)\n`);
  const work = throwAwayDirectory("mysql-template");
  const datadir = join(work, "data");
  try {
    mkdirSync(join(work, "tree"));
    const { user } = installation;
    if (user !== null) spawnSync("chown", [`${user.uid}:${user.gid}`, work]);
    const [command, ...args] = commandOf(installation, work, [
      "--no-defaults",
      "--initialize-insecure",
      `--datadir=${datadir}`,
      "--secure-file-priv=NULL",
      "--innodb-redo-log-capacity=16M",
    ]);
    const done = spawnSync(command, args, { encoding: "utf8" });
    if (done.status !== 0) throw new Error(`mysqld --initialize failed: ${done.stderr.slice(-2000)}`);
    // Each server has a UUID of its own, and TLS only where a test asks for it.
    for (const name of ["auto.cnf", "ca.pem", "ca-key.pem"]) rmSync(join(datadir, name), { force: true });
    for (const name of ["server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem"]) {
      rmSync(join(datadir, name), { force: true });
    }
    // Copy first, then rename inside the cache: another process never sees half a template.
    const partial = `${template}.${process.pid}`;
    cpSync(datadir, partial, { recursive: true });
    renameSync(partial, template);
  } finally {
    removeDirectory(work);
  }
}
