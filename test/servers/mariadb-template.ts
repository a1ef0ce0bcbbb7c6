import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { cacheDirectory } from "./cache.ts";
import { type Account, ensureDebianTree, runInTree, treeCommand, treeRoot } from "./debian-tree.ts";
import { withLock } from "./locks.ts";
import { ensureDebianPackages } from "./packages.ts";

const mariadbd = "/usr/sbin/mariadbd";
const recipe = "1";

export type MariadbVersion = "10.11" | "11.8";

/** The installed server, its version, and the user that it runs as (null: this one). */
export interface MariadbInstallation {
  readonly command: string;
  readonly version: string;
  readonly user: Account | null;
  /** The Debian tree that it runs from; null for this machine's own. */
  readonly tree: string | null;
}

/** Installs MariaDB where it is missing: 10.11 on this machine, newer ones as a tree of their own. */
export async function ensureMariadb(wanted: MariadbVersion = "10.11"): Promise<MariadbInstallation> {
  if (wanted === "11.8") return ensureNewMariadb();
  if (!existsSync(mariadbd)) await ensureDebianPackages(["mariadb-server"], "the throw-away database");
  const said = spawnSync(mariadbd, ["--version"], { encoding: "utf8" });
  const version = /Ver (\S+)/.exec(said.stdout)?.[1];
  if (version === undefined) throw new Error(`${mariadbd} --version gave no version: ${said.stderr}`);
  // mariadbd refuses to run as root.
  return { command: mariadbd, version, user: serverAccount(), tree: null };
}

async function ensureNewMariadb(): Promise<MariadbInstallation> {
  const tree = await ensureDebianTree({
    suite: "trixie",
    packages: ["mariadb-server-core", "mariadb-client-core"],
    why: "the throw-away MariaDB 11.8",
  });
  const version = versionInTree(tree, "usr/sbin/mariadbd");
  return { command: "usr/sbin/mariadbd", version, user: serverAccount(), tree };
}

/** What the tree's server says of itself; it runs as this user, from where it lies. */
export function versionInTree(tree: string, program: string): string {
  const [command, ...args] = treeCommand({ tree, program, mountPoint: "", user: null }, ["--version"]);
  const said = spawnSync(command, args, { encoding: "utf8" });
  const version = /Ver (\S+)/.exec(said.stdout)?.[1];
  if (version === undefined) throw new Error(`${program} --version gave no version: ${said.stderr}`);
  return version;
}

/** The user that throw-away servers run as; null without root, where it is this one. */
export function serverAccount(): Account | null {
  if (process.getuid?.() !== 0) return null;
  return accountOf("mysql") ?? accountOf("nobody");
}

/** How to start the server with these arguments. */
export function startInstalled(
  installation: MariadbInstallation,
  args: readonly string[],
  directory: string,
): { readonly command: string; readonly args: readonly string[]; readonly asUser: boolean } {
  const { tree, user } = installation;
  if (tree === null) return { command: installation.command, args, asUser: true };
  const wanted = { tree, program: installation.command, mountPoint: join(directory, "tree"), user };
  const root = treeRoot(wanted);
  const [defaults = "", ...more] = args;
  const [command, ...rest] = treeCommand(wanted, [
    defaults,
    `--basedir=${join(root, "usr")}`,
    `--lc-messages-dir=${join(root, "usr/share/mariadb")}`,
    `--character-sets-dir=${join(root, "usr/share/mariadb/charsets")}`,
    `--plugin-dir=${join(root, "usr/lib/mysql/plugin")}`,
    ...more,
  ]);
  return { command, args: rest, asUser: false };
}

/**
 * A data directory as mariadb-install-db makes it, without anonymous users, root without password.
 * Made once per server version and kept in the cache: copying takes milliseconds, making seconds.
 */
export async function dataDirectoryTemplate(installation: MariadbInstallation): Promise<string> {
  const key = createHash("sha256").update(`${recipe} ${installation.version}`).digest("hex").slice(0, 16);
  const template = join(cacheDirectory("mariadb"), key);
  if (existsSync(template)) return template;
  return withLock(`mariadb-template-${key}`, async () => {
    if (existsSync(template)) return template;
    if (installation.tree === null) makeTemplate(template);
    else makeTreeTemplate(installation.tree, template);
    return template;
  });
}

function makeTemplate(template: string): void {
  process.stderr.write("setup: making a MariaDB data directory (once)\n");
  const work = throwAwayDirectory("mariadb-template");
  const datadir = join(work, "data");
  const asMysql = process.getuid?.() === 0 ? ["--user=mysql"] : [];
  try {
    if (asMysql.length > 0) run("chown", ["mysql:mysql", work]);
    run("mariadb-install-db", [
      "--no-defaults",
      `--datadir=${datadir}`,
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
      "--innodb-log-file-size=16M",
      ...asMysql,
    ]);
    // An anonymous user at localhost would be taken before a user at '%'.
    run(
      mariadbd,
      ["--no-defaults", "--bootstrap", `--datadir=${datadir}`, "--innodb-log-file-size=16M", ...asMysql],
      "DELETE FROM mysql.global_priv WHERE User='';\n",
    );
    // Copy first, then rename inside the cache: another process never sees half a template.
    const partial = `${template}.${process.pid}`;
    cpSync(datadir, partial, { recursive: true });
    renameSync(partial, template);
  } finally {
    removeDirectory(work);
  }
}

/** The new server's own set-up program, inside its own tree. */
function makeTreeTemplate(tree: string, template: string): void {
  process.stderr.write("setup: making a MariaDB 11.8 data directory (once)\n");
  const work = throwAwayDirectory("mariadb-template");
  try {
    runInTree(tree, work, [
      "mariadb-install-db",
      "--no-defaults",
      "--datadir=/mnt/data",
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
      "--innodb-log-file-size=16M",
      "--user=root",
      // It would look up this machine's name, which a tree does not know.
      "--force",
    ]);
    const anonymous = "DELETE FROM mysql.global_priv WHERE User='';";
    runInTree(tree, work, [
      "sh",
      "-c",
      `echo "${anonymous}" | mariadbd --no-defaults --bootstrap --user=root --datadir=/mnt/data --innodb-log-file-size=16M`,
    ]);
    const partial = `${template}.${process.pid}`;
    cpSync(join(work, "data"), partial, { recursive: true });
    renameSync(partial, template);
  } finally {
    removeDirectory(work);
  }
}

function run(command: string, args: readonly string[], input = ""): void {
  const done = spawnSync(command, args, { encoding: "utf8", input });
  if (done.status !== 0) {
    const why = done.error?.message ?? `${done.stdout}${done.stderr}`.slice(-2000);
    throw new Error(`${command} failed (${done.status ?? "no status"}): ${why}`);
  }
}

function accountOf(name: string): Account | null {
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((candidate) => candidate.startsWith(`${name}:`));
  const fields = line?.split(":");
  const uid = Number(fields?.[2]);
  const gid = Number(fields?.[3]);
  return Number.isInteger(uid) && Number.isInteger(gid) ? { uid, gid } : null;
}
