import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { cacheDirectory } from "./cache.ts";

/** daprd's modules want this Go or a newer one. */
const wanted: readonly number[] = [1, 26, 6];
/** What an older Go fetches as a module and hands over to. */
const handOver = "go1.27.3";
/** The first Go that can hand over to another version. */
const canHandOver: readonly number[] = [1, 21, 0];

export interface GoToolchain {
  /** Put in front of PATH. */
  readonly bin: string;
  readonly env: Readonly<Record<string, string>>;
  /** For the person who waits. */
  readonly what: string;
}

/**
 * A Go that is new enough. Taken as it is where the machine has one; else Debian's golang packages
 * (from backports where the release's own are too old) are unpacked into the cache, installed
 * nowhere, and fetch the newer Go as a module. Throws with the reason when neither can be had.
 */
export async function ensureGo(): Promise<GoToolchain> {
  const found = versionOf("go");
  if (found !== null && !isOlder(found, canHandOver)) {
    const bin = spawnSync("sh", ["-c", 'dirname "$(command -v go)"'], { encoding: "utf8" }).stdout.trim();
    return toolchain(bin, found);
  }
  const bootstrap = cacheDirectory("go-bootstrap");
  let bin = unpackedGo(bootstrap);
  if (bin === null) {
    process.stderr.write(
      "setup: this machine has no Go; unpacking Debian's golang packages into the cache\n",
    );
    await unpackDebianGo(bootstrap);
    bin = unpackedGo(bootstrap);
  }
  const version = bin === null ? null : versionOf(join(bin, "go"));
  if (bin === null || version === null) throw new Error("Debian's golang packages hold no go command");
  return toolchain(bin, version);
}

function toolchain(bin: string, version: readonly number[]): GoToolchain {
  if (!isOlder(version, wanted)) return { bin, env: {}, what: `Go ${version.join(".")}` };
  return { bin, env: { GOTOOLCHAIN: handOver }, what: `Go ${version.join(".")}, which fetches ${handOver}` };
}

function versionOf(command: string): readonly number[] | null {
  // In a directory without go.mod, and without handing over: the version of this very command.
  const said = spawnSync(command, ["version"], {
    encoding: "utf8",
    cwd: tmpdir(),
    env: { ...process.env, GOTOOLCHAIN: "local" },
  });
  const match = /go version go(\d+)\.(\d+)(?:\.(\d+))?/.exec(said.stdout ?? "");
  return match === null ? null : [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
}

function isOlder(version: readonly number[], than: readonly number[]): boolean {
  for (const [at, number] of than.entries()) {
    const difference = (version[at] ?? 0) - number;
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function unpackedGo(directory: string): string | null {
  const root = join(directory, "root", "usr", "lib");
  if (!existsSync(root)) return null;
  const name = readdirSync(root).find((entry) => entry.startsWith("go-"));
  return name === undefined ? null : join(root, name, "bin");
}

/** Debian's packages through apt, with lists of its own: the machine's sources stay as they are. */
async function unpackDebianGo(target: string): Promise<void> {
  if (!existsSync("/usr/bin/apt-get")) throw new Error("there is neither Go 1.21 or newer nor apt-get here");
  const work = throwAwayDirectory("go");
  try {
    for (const name of ["lists/partial", "cache/archives/partial", "root"])
      mkdirSync(join(work, name), { recursive: true });
    writeFileSync(join(work, "sources.list"), sourcesWithBackports());
    const options = [
      ["Dir::Etc::sourcelist", join(work, "sources.list")],
      ["Dir::Etc::sourceparts", "-"],
      ["Dir::State::lists", join(work, "lists")],
      ["Dir::Cache", join(work, "cache")],
      ["APT::Sandbox::User", ""],
    ].flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    await run("apt-get", [...options, "-q", "update"], work);
    const names = await run(
      "apt-cache",
      [...options, "search", "--names-only", "^golang-1[.][0-9]+-go$"],
      work,
    );
    const minors = [...names.matchAll(/^golang-1\.(\d+)-go /gm)].map((match) => Number(match[1]));
    const newest = Math.max(0, ...minors);
    if (newest < 21) throw new Error("Debian's packages here have no Go 1.21 or newer");
    await run(
      "apt-get",
      [...options, "-q", "download", `golang-1.${newest}-go`, `golang-1.${newest}-src`],
      work,
    );
    for (const file of readdirSync(work)) {
      if (file.endsWith(".deb")) await run("dpkg-deb", ["-x", file, "root"], work);
    }
    rmSync(join(target, "root"), { recursive: true, force: true });
    await run("cp", ["-a", "root", join(target, `root.${process.pid}`)], work);
    renameSync(join(target, `root.${process.pid}`), join(target, "root"));
  } finally {
    removeDirectory(work);
  }
}

/** The machine's own sources, and on Debian the backports of the same mirror. */
function sourcesWithBackports(): string {
  const release = readFileSync("/etc/os-release", "utf8");
  const codename = /^VERSION_CODENAME=(\w+)/m.exec(release)?.[1] ?? "";
  const isDebian = /^ID=debian$/m.test(release);
  const keyring = `/usr/share/keyrings/${isDebian ? "debian" : "ubuntu"}-archive-keyring.gpg`;
  const options = existsSync(keyring) ? `[signed-by=${keyring}] ` : "";
  const format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
  const known = spawnSync("apt-get", ["indextargets", "--format", format, "Created-By: Packages"], {
    encoding: "utf8",
  });
  const lines = new Set<string>();
  for (const line of known.stdout.split("\n")) {
    const [uri, suite, component] = line.trim().split(/\s+/);
    if (uri === undefined || suite === undefined || component === undefined) continue;
    if (!suite.startsWith(codename) || suite.includes("-security")) continue;
    lines.add(`deb ${options}${uri} ${suite} ${component}`);
    if (isDebian && suite === codename) lines.add(`deb ${options}${uri} ${codename}-backports ${component}`);
  }
  return `${[...lines].join("\n")}\n`;
}

function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString("utf8")));
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString("utf8")));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${command} failed (${code ?? "killed"}): ${errors.slice(-1000)}`));
    });
  });
}
