import { spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export interface StartOptions {
  readonly command: string;
  readonly args: readonly string[];
  /** Standard output and error go here, appended. */
  readonly logFile: string;
  /** Added to this process's environment; undefined takes a name out. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Runs as this user; only where this process is root. */
  readonly user?: { readonly uid: number; readonly gid: number };
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * A server process in a process group of its own. Whatever happens to this process (end, failed
 * test, signal, kill -9) the group is killed with it; a test that forgets `stop` leaves no orphan.
 */
export interface ServerProcess {
  readonly pid: number;
  readonly logFile: string;
  readonly exited: Promise<ExitStatus>;
  running(): boolean;
  /** TERM, then KILL when the time is over; resolves when it has ended. Idempotent. */
  stop(timeoutMs?: number): Promise<ExitStatus>;
  /** KILL at once; resolves when it has ended. */
  kill(): Promise<ExitStatus>;
  signal(name: NodeJS.Signals): void;
  /** What it has written so far. */
  log(): string;
}

const groups = new Set<number>();
let cleanupInstalled = false;

export function startProcess(options: StartOptions): ServerProcess {
  installCleanup();
  const [command, args] = withParentDeathSignal(options);
  const output = openSync(options.logFile, "a");
  const child = spawn(command, args, {
    detached: true,
    stdio: ["ignore", output, output],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
  });
  closeSync(output);
  let status: ExitStatus | null = null;
  const exited = new Promise<ExitStatus>((resolve) => {
    const end = (ended: ExitStatus): void => {
      status = ended;
      if (child.pid !== undefined) groups.delete(child.pid);
      resolve(ended);
    };
    child.once("error", () => end({ code: 127, signal: null }));
    child.once("exit", (code, signal) => end({ code, signal }));
  });
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${options.command} cannot be started: is it installed?`);
  groups.add(pid);
  const running = (): boolean => status === null;
  return {
    pid,
    logFile: options.logFile,
    exited,
    running,
    signal: (name) => {
      if (running()) killGroup(pid, name);
    },
    stop: (timeoutMs = 10_000) => stopGroup({ pid, exited, running, timeoutMs }),
    kill: () => {
      if (running()) killGroup(pid, "SIGKILL");
      return exited;
    },
    log: () => readFileSync(options.logFile, "utf8"),
  };
}

/**
 * Polls until `isReady` says true. Throws with the end of the log when the process ends first or
 * the time is over; the process is killed then.
 */
export async function waitUntilReady(
  server: ServerProcess,
  isReady: () => Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline) {
    if (!server.running()) {
      throw new Error(`the server ended before it was ready; its log ends:\n${server.log().slice(-3000)}`);
    }
    if (await isReady()) return;
    await sleep(25);
  }
  await server.kill();
  throw new Error(`the server was not ready in ${timeoutMs} ms; its log ends:\n${server.log().slice(-3000)}`);
}

async function stopGroup(target: {
  readonly pid: number;
  readonly exited: Promise<ExitStatus>;
  readonly running: () => boolean;
  readonly timeoutMs: number;
}): Promise<ExitStatus> {
  if (!target.running()) return target.exited;
  killGroup(target.pid, "SIGTERM");
  const timer = setTimeout(() => killGroup(target.pid, "SIGKILL"), target.timeoutMs);
  const status = await target.exited;
  clearTimeout(timer);
  return status;
}

function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // Already gone.
  }
}

let setprivFound: boolean | undefined;

/** setpriv asks the kernel to kill the child with its parent: the one way that survives kill -9. */
function withParentDeathSignal(options: StartOptions): [string, readonly string[]] {
  setprivFound ??= spawnSync("setpriv", ["--pdeathsig", "KILL", "true"]).status === 0;
  if (!setprivFound) {
    if (options.user !== undefined)
      throw new Error("setpriv (Debian package util-linux) is needed to change the user");
    return [options.command, options.args];
  }
  const user =
    options.user === undefined
      ? []
      : [`--reuid=${options.user.uid}`, `--regid=${options.user.gid}`, "--clear-groups"];
  return ["setpriv", [...user, "--pdeathsig", "KILL", options.command, ...options.args]];
}

function installCleanup(): void {
  if (cleanupInstalled) return;
  cleanupInstalled = true;
  const killAll = (): void => {
    for (const pid of groups) killGroup(pid, "SIGKILL");
  };
  // Before the removal of their directories, which also waits for "exit".
  process.prependListener("exit", killAll);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    const onSignal = (): void => {
      // Others that listen to the signal (the demo) end in their own order and reach "exit".
      if (process.listenerCount(signal) > 1) return;
      killAll();
      process.removeListener(signal, onSignal);
      process.kill(process.pid, signal);
    };
    process.on(signal, onSignal);
  }
}
