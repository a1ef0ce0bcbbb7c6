/**
 * Root file systems of Debian (and Ubuntu) releases other than this machine's, made by debootstrap once and kept
 * in the cache. A program of such a tree runs by the tree's own loader and libraries, under the
 * machine's own paths: no change of root, no /proc, no /dev, so nothing is left to unmount.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "./cache.ts";
import { withLock } from "./locks.ts";
import { ensureDebianPackages, PackagesMissingError } from "./packages.ts";

const recipe = "1";
const bulk = [
  "var/cache/apt/archives",
  "var/lib/apt/lists",
  "usr/share/doc",
  "usr/share/man",
  "usr/share/locale",
];

/** Where a distribution's packages are, and the keys that it signs them with. */
export interface Archive {
  readonly url: string;
  readonly keyring: string;
}

export interface TreeWanted {
  /** "sid", "trixie", "bookworm"; of the archive, where one is named. */
  readonly suite: string;
  /** Default: Debian's own, as debootstrap knows it. */
  readonly archive?: () => Promise<Archive>;
  readonly packages: readonly string[];
  /** What it is for, in the messages. */
  readonly why: string;
}

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The directory of such a tree; made where it is missing (about half a minute). Root is needed to
 * make one. Never changed afterwards: whoever needs to write into it works on a copy.
 */
export async function ensureDebianTree({ suite, packages, why, archive }: TreeWanted): Promise<string> {
  const text = [recipe, suite, ...packages].join(" ");
  const key = createHash("sha256").update(text).digest("hex").slice(0, 16);
  const tree = join(cacheDirectory("debian"), `${suite}-${key}`);
  if (existsSync(tree)) return tree;
  await ensureDebianPackages(["debootstrap"], why);
  return withLock(`debian-tree-${key}`, async () => {
    if (existsSync(tree)) return tree;
    if (process.getuid?.() !== 0) {
      throw new PackagesMissingError(`${why} needs a tree of ${suite}, which only root can make`);
    }
    process.stderr.write(`setup: making a tree of ${suite} with ${packages.join(", ")} (${why}; once)\n`);
    const partial = `${tree}.partial`;
    // What a run left that was killed: the lock says that nobody works on it.
    removeTree(partial);
    const place = await suiteFrom(archive, suite, partial);
    const made = await debootstrap(["--variant=minbase", `--include=${packages.join(",")}`, ...place]);
    if (made.status !== 0) {
      removeTree(partial);
      throw new PackagesMissingError(`debootstrap of ${suite} failed: ${made.output.slice(-2000)}`);
    }
    for (const directory of bulk) {
      rmSync(join(partial, directory), { recursive: true, force: true });
      mkdirSync(join(partial, directory), { recursive: true });
    }
    renameSync(partial, tree);
    return tree;
  });
}

/** debootstrap knows no suite that is younger than itself: its script for all of Ubuntu's is "gutsy". */
async function suiteFrom(archive: TreeWanted["archive"], suite: string, target: string): Promise<string[]> {
  if (archive === undefined) return [suite, target];
  const { url, keyring } = await archive();
  return [`--keyring=${keyring}`, suite, target, url, "gutsy"];
}

/** A debootstrap that was killed can have left /proc mounted inside: unmounted before removal. */
function removeTree(tree: string): void {
  for (const inside of ["proc", "sys", "dev/pts", "dev"]) {
    spawnSync("umount", ["--lazy", join(tree, inside)], { stdio: "ignore" });
  }
  spawnSync("rm", ["-rf", "--one-file-system", tree]);
}

function debootstrap(args: readonly string[]): Promise<{ status: number; output: string }> {
  return new Promise((resolve, reject) => {
    // Its mounts live in a mount namespace of its own and vanish with it.
    const child = spawn("unshare", ["--mount", "debootstrap", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    });
    let output = "";
    const collect = (chunk: Buffer): void => {
      output += chunk.toString("utf8");
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", reject);
    child.on("close", (code) => resolve({ status: code ?? 1, output }));
  });
}

export interface TreeProgram {
  readonly tree: string;
  /** Path inside the tree. */
  readonly program: string;
  /** An empty directory under which the program sees the tree, `treeRoot(...)`. */
  readonly mountPoint: string;
  /** Only root can change it; null: this one. */
  readonly user: Account | null;
}

/** Where the program finds its tree's files. */
export function treeRoot({ tree, mountPoint, user }: TreeProgram): string {
  return user === null ? tree : mountPoint;
}

/**
 * The command line of a tree's program. Another user cannot reach a cache that lies in root's home,
 * so the tree is mounted for it, in a mount namespace that ends with the process.
 */
export function treeCommand(run: TreeProgram, args: readonly string[]): [string, ...string[]] {
  const root = treeRoot(run);
  const libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib/mysql/private"];
  const loader = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"].find((path) =>
    existsSync(join(run.tree, path)),
  );
  if (loader === undefined) throw new Error(`${run.tree} has no loader of x64 or arm64`);
  const program: [string, ...string[]] = [
    join(root, loader),
    "--library-path",
    libraries.map((path) => join(root, path)).join(":"),
    join(root, run.program),
    ...args,
  ];
  if (run.user === null) return program;
  // Made before the program starts, and again by nobody: it is only a place to mount on.
  mkdirSync(run.mountPoint, { recursive: true });
  return [
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount --bind "$1" "$2" && shift 2 && exec "$@"',
    "sh",
    run.tree,
    run.mountPoint,
    "setpriv",
    `--reuid=${run.user.uid}`,
    `--regid=${run.user.gid}`,
    "--clear-groups",
    // The change of user has taken the parent's death signal away.
    "--pdeathsig",
    "KILL",
    ...program,
  ];
}

/** A path inside a tree whose tools run there by chroot, in a mount namespace of its own. */
export function runInTree(tree: string, workDirectory: string, command: readonly string[]): void {
  const done = spawnSync(
    "unshare",
    [
      "--mount",
      "sh",
      "-c",
      'mount --bind "$2" "$1/mnt" && mount -t proc proc "$1/proc" && tree="$1" && shift 2 && exec chroot "$tree" "$@"',
      "sh",
      tree,
      workDirectory,
      ...command,
    ],
    { encoding: "utf8" },
  );
  if (done.status !== 0) {
    const why = done.error?.message ?? `${done.stdout}${done.stderr}`.slice(-2000);
    throw new Error(`${command[0] ?? ""} in ${tree} failed (${done.status ?? "no status"}): ${why}`);
  }
}
