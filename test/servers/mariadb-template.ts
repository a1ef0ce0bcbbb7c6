import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { cacheDirectory } from "./cache.ts";
import { withLock } from "./locks.ts";
import { ensureDebianPackages } from "./packages.ts";

const mariadbd = "/usr/sbin/mariadbd";
const recipe = "1";

export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** The installed server, its version, and the user that it runs as (null: this one). */
export interface MariadbInstallation {
  readonly command: string;
  readonly version: string;
  readonly user: ServerUser | null;
}

/** Installs MariaDB where it is missing. */
export async function ensureMariadb(): Promise<MariadbInstallation> {
  if (!existsSync(mariadbd)) await ensureDebianPackages(["mariadb-server"], "the throw-away database");
  const said = spawnSync(mariadbd, ["--version"], { encoding: "utf8" });
  const version = /Ver (\S+)/.exec(said.stdout)?.[1];
  if (version === undefined) throw new Error(`${mariadbd} --version gave no version: ${said.stderr}`);
  // mariadbd refuses to run as root.
  return { command: mariadbd, version, user: process.getuid?.() === 0 ? accountOf("mysql") : null };
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
    makeTemplate(template);
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

function run(command: string, args: readonly string[], input = ""): void {
  const done = spawnSync(command, args, { encoding: "utf8", input });
  if (done.status !== 0) {
    const why = done.error?.message ?? `${done.stdout}${done.stderr}`.slice(-2000);
    throw new Error(`${command} failed (${done.status ?? "no status"}): ${why}`);
  }
}

function accountOf(name: string): ServerUser {
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((candidate) => candidate.startsWith(`${name}:`));
  const fields = line?.split(":");
  const uid = Number(fields?.[2]);
  const gid = Number(fields?.[3]);
  if (!Number.isInteger(uid) || !Number.isInteger(gid)) throw new Error(`there is no user ${name}`);
  return { uid, gid };
}
