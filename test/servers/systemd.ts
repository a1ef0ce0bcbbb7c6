/**
 * A really booted systemd, for tests of the unit: Debian 12's, as process 1 of a container of
 * systemd-nspawn, with a network of its own that reaches nothing. The root file system is a layer
 * over a cached tree; layer, mounts and processes go with the container.
 */
import { spawnSync } from "node:child_process";
import { appendFileSync, chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { makeControlGroups, removeControlGroups } from "./control-groups.ts";
import { ensureDebianTree } from "./debian-tree.ts";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { ensureDebianPackages } from "./packages.ts";
import { startProcess, type ServerProcess } from "./processes.ts";

const repository = join(import.meta.dirname, "..", "..");
const program = "opt/magento-edge-agent/releases/test";
/** A number that no account of Debian has. */
const account = { name: "magento-edge-agent", id: 4_711 } as const;

export interface BootOptions {
  /** Directories of this machine, by the path that they have in the container. */
  readonly binds?: Readonly<Record<string, string>>;
  /** Lines of /etc/magento-edge-agent/agent.env. */
  readonly settings: readonly string[];
  /** Secrets in /etc/magento-edge-agent/credentials, loaded by a drop-in. */
  readonly credentials?: Readonly<Record<string, string>>;
  /** Lines of a second drop-in's [Service] section. */
  readonly service?: readonly string[];
  /** Files of this machine, by the path that they are copied to. */
  readonly files?: Readonly<Record<string, string>>;
}

export interface Ran {
  readonly status: number;
  readonly output: string;
}

/** A container with the agent installed as the docs lay it out; its unit is not enabled. */
export interface BootedSystemd {
  /** Runs a command inside, as root. */
  run(...command: readonly string[]): Ran;
  /** Properties of the agent's unit. */
  show(...properties: readonly string[]): Record<string, string>;
  /** What the unit wrote to the journal. */
  journal(): string;
  /** Polls the unit's properties; throws with the journal's end when the time is over. */
  until(what: string, holds: (unit: Record<string, string>) => boolean, timeoutMs?: number): Promise<void>;
  /**
   * Puts the running unit under its own limits of memory and tasks on a machine whose controllers
   * are of version 1, which a systemd in a container does not use; else systemd has done so itself.
   */
  enforceLimits(): void;
  /** Ends the container and removes everything of it. Idempotent. */
  stop(): Promise<void>;
}

const polled = ["ActiveState", "SubState", "NRestarts", "ExecMainStatus", "StatusText", "MainPID"];

export const unitName = "magento-edge-agent.service";

/** Brings systemd-nspawn and the container's tree. */
export async function ensureSystemd(): Promise<string> {
  await ensureDebianPackages(["systemd-container"], "the booted systemd of the tests");
  return ensureDebianTree({
    suite: "bookworm",
    packages: ["systemd", "systemd-sysv", "dbus", "libstdc++6"],
    why: "the booted systemd of the tests",
  });
}

/** Boots in a few seconds. The bundle in dist/ has to be built. */
export async function bootSystemd(options: BootOptions): Promise<BootedSystemd> {
  const tree = await ensureSystemd();
  const directory = throwAwayDirectory("systemd");
  const layer = join(directory, "layer");
  for (const name of ["layer", "work", "root"]) mkdirSync(join(directory, name), { mode: 0o755 });
  chmodSync(directory, 0o755);
  installAgent(tree, layer, options);
  const groups = makeControlGroups();
  const container = startProcess({
    command: "unshare",
    // Killed together: process 1 of a container outlives systemd-nspawn, but not the namespace that
    // systemd-nspawn itself is process 1 of.
    args: [
      ...ownNamespaces,
      "sh",
      "-c",
      mountAndBoot,
      "sh",
      tree,
      directory,
      groups.join(" "),
      ...bindArguments(options),
    ],
    logFile: join(directory, "console.log"),
    // Without them nspawn would take this process for a service of a running systemd.
    env: { NOTIFY_SOCKET: undefined, LISTEN_FDS: undefined, LISTEN_PID: undefined },
  });
  const booted = new Container(container, directory, groups);
  try {
    await booted.waitUntilBooted();
  } catch (thrown) {
    await booted.stop();
    throw thrown;
  }
  return booted;
}

const ownNamespaces = ["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
const mountAndBoot = `
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/layer,workdir=$2/work" "$2/root" || exit 1
  for group in $3; do
    # A new group of cpuset has none of its parent's processors and memory yet.
    for name in cpuset.cpus cpuset.mems; do
      [ ! -e "$group/$name" ] || cat "$group/../$name" > "$group/$name"
    done
    echo 0 > "$group/cgroup.procs" || exit 1
  done
  root="$2/root"; shift 3
  exec systemd-nspawn --quiet --boot --directory="$root" --register=no --keep-unit --console=pipe \\
    --private-network --machine=mea-test --link-journal=no --resolv-conf=off --timezone=off "$@"`;

function bindArguments({ binds }: BootOptions): string[] {
  return Object.entries(binds ?? {}).map(([inside, outside]) => `--bind=${outside}:${inside}`);
}

/** Files and owners as the docs lay them out. */
function installAgent(tree: string, layer: string, options: BootOptions): void {
  const write = (path: string, text: string, mode = 0o644): void => {
    mkdirSync(join(layer, dirname(path)), { recursive: true, mode: 0o755 });
    writeFileSync(join(layer, path), text, { mode });
  };
  const copy = (from: string, path: string, mode = 0o644): void => {
    mkdirSync(join(layer, dirname(path)), { recursive: true, mode: 0o755 });
    copyFileSync(from, join(layer, path));
    chmodSync(join(layer, path), mode);
  };
  copy(process.execPath, `${program}/bin/node`, 0o755);
  copy(join(repository, "dist", "magento-edge-agent.cjs"), `${program}/lib/agent.cjs`);
  for (const addon of ["classic-level.node", "node-unix-socket.node"]) {
    copy(join(repository, "dist", addon), `${program}/lib/${addon}`);
  }
  spawnSync("ln", ["-s", "releases/test", join(layer, "opt/magento-edge-agent/current")]);
  copy(join(repository, "systemd", unitName), `etc/systemd/system/${unitName}`);
  const etc = "etc/magento-edge-agent";
  write(`${etc}/agent.env`, `${options.settings.join("\n")}\n`, 0o640);
  const credentials = Object.entries(options.credentials ?? {});
  for (const [id, secret] of credentials) write(`${etc}/credentials/${id}`, secret, 0o600);
  const dropIn = (name: string, lines: readonly string[]): void =>
    write(`etc/systemd/system/${unitName}.d/${name}.conf`, ["[Service]", ...lines, ""].join("\n"));
  dropIn(
    "credentials",
    credentials.map(([id]) => `LoadCredential=${id}:/${etc}/credentials/${id}`),
  );
  dropIn("test", options.service ?? []);
  for (const [path, from] of Object.entries(options.files ?? {})) copy(from, path);
  for (const [file, line] of [
    [
      "etc/passwd",
      `${account.name}:x:${account.id}:${account.id}::/var/lib/${account.name}:/usr/sbin/nologin`,
    ],
    ["etc/group", `${account.name}:x:${account.id}:`],
  ] as const) {
    copy(join(tree, file), file);
    appendFileSync(join(layer, file), `${line}\n`);
  }
  spawnSync("chown", ["-R", "root:root", layer]);
  spawnSync("chown", [`root:${account.id}`, join(layer, etc), join(layer, etc, "agent.env")]);
  chmodSync(join(layer, etc), 0o750);
}

class Container implements BootedSystemd {
  readonly #process: ServerProcess;
  readonly #directory: string;
  readonly #groups: readonly string[];
  #init: number | null = null;

  constructor(container: ServerProcess, directory: string, groups: readonly string[]) {
    this.#process = container;
    this.#directory = directory;
    this.#groups = groups;
  }

  async waitUntilBooted(): Promise<void> {
    const deadline = performance.now() + 60_000;
    for (;;) {
      if (!this.#process.running() || performance.now() > deadline) {
        throw new Error(`systemd did not boot; the console ends:\n${this.#process.log().slice(-3000)}`);
      }
      this.#init ??= initBelow(this.#process.pid);
      if (this.#init !== null) {
        const { output } = this.run("systemctl", "is-system-running");
        if (/running|degraded/.test(output)) return;
      }
      await sleep(50);
    }
  }

  enforceLimits(): void {
    const memory = this.#groups.find((group) => group.startsWith("/sys/fs/cgroup/memory/"));
    const pids = this.#groups.find((group) => group.startsWith("/sys/fs/cgroup/pids/"));
    const tracked = this.#groups.find((group) => group.startsWith("/sys/fs/cgroup/systemd/"));
    if (memory === undefined || pids === undefined || tracked === undefined) return;
    const limits = this.show("MemoryMax", "TasksMax");
    const processes = readFileSync(join(tracked, "payload/system.slice", unitName, "cgroup.procs"), "utf8");
    const limit = (group: string, file: string, value = ""): void => {
      mkdirSync(join(group, "unit"), { recursive: true });
      writeFileSync(join(group, "unit", file), value);
      for (const pid of processes.trim().split("\n")) writeFileSync(join(group, "unit", "cgroup.procs"), pid);
    };
    limit(memory, "memory.limit_in_bytes", limits["MemoryMax"]);
    limit(pids, "pids.max", limits["TasksMax"]);
  }

  run(...command: readonly string[]): Ran {
    const target = `--target=${this.#init ?? 0}`;
    const spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"];
    const ran = spawnSync(
      "nsenter",
      [target, ...spaces, "env", "-i", "PATH=/usr/sbin:/usr/bin", ...command],
      {
        encoding: "utf8",
        timeout: 90_000,
      },
    );
    return { status: ran.status ?? -1, output: `${ran.stdout}${ran.stderr}` };
  }

  show(...properties: readonly string[]): Record<string, string> {
    const { output } = this.run("systemctl", "show", unitName, `--property=${properties.join(",")}`);
    return Object.fromEntries(
      output
        .trimEnd()
        .split("\n")
        .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    );
  }

  journal(): string {
    return this.run("journalctl", "--no-pager", "--output=cat", `--unit=${unitName}`).output;
  }

  async until(
    what: string,
    holds: (unit: Record<string, string>) => boolean,
    timeoutMs = 30_000,
  ): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const unit = this.show(...polled);
      if (holds(unit)) return;
      if (performance.now() > deadline) {
        throw new Error(
          `not in time: ${what}; ${JSON.stringify(unit)}; the journal ends:\n${this.journal().slice(-3000)}`,
        );
      }
      await sleep(100);
    }
  }

  async stop(): Promise<void> {
    // The kernel ends everything of a container with its process 1, and its mounts with its namespace.
    await this.#process.kill();
    const deadline = performance.now() + 5_000;
    while (!removeControlGroups(this.#groups) && performance.now() < deadline) await sleep(50);
    removeDirectory(this.#directory);
  }
}

/** The container's process 1 as this machine numbers it: below unshare and systemd-nspawn. */
function initBelow(pid: number): number | null {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
    for (const child of children.filter((number) => number > 0)) {
      const name = readFileSync(`/proc/${child}/comm`, "utf8").trim();
      const found = name === "systemd" ? child : initBelow(child);
      if (found !== null) return found;
    }
  } catch {
    // A process of the boot's first moment has just ended.
  }
  return null;
}
