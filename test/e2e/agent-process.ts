/** The agent as a process of its own: from source by this Node, or the built bundle. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts } from "../servers/ports.ts";
import { startProcess, waitUntilReady, type ExitStatus, type ServerProcess } from "../servers/processes.ts";
import type { MemoryCgroup } from "./memory.ts";

const root = join(import.meta.dirname, "..", "..");

export type AgentForm = "source" | "bundle";

/** How the unit starts Node: its options and environment, so that tests measure what is shipped. */
const shipped = readShippedStart();

function readShippedStart(): {
  readonly options: readonly string[];
  readonly variables: Record<string, string>;
} {
  const unit = readFileSync(join(root, "systemd", "magento-edge-agent.service"), "utf8");
  const options = /^ExecStart=\S+ (.*) \S+ run$/m.exec(unit)?.[1]?.split(" ");
  if (options === undefined) throw new Error("the unit has no ExecStart that can be read");
  const variables: Record<string, string> = {};
  for (const [, line = ""] of unit.matchAll(/^Environment=(.*)$/gm)) {
    for (const pair of line.split(" "))
      variables[pair.slice(0, pair.indexOf("="))] = pair.slice(pair.indexOf("=") + 1);
  }
  return { options, variables };
}

export interface AgentOptions {
  /** Settings by their environment names; ports and STATE_DIR are added. */
  readonly settings: Readonly<Record<string, string | undefined>>;
  readonly form?: AgentForm;
  /** Another program in the agent's place. */
  readonly program?: string;
  /** Options of Node itself, after those of the unit. */
  readonly nodeOptions?: readonly string[];
  /** Every start is put into this group before the program runs. */
  readonly cgroup?: MemoryCgroup;
  /** Its STATE_DIR; the caller removes it. Default: one that goes with `remove`. */
  readonly stateDir?: string;
}

/** One agent with a state directory of its own, which survives kill and restart and goes with `remove`. */
export class AgentProcess {
  readonly stateDir: string;
  readonly logFile: string;
  readonly #directory: string;
  readonly #options: AgentOptions;
  readonly #ports: { readonly metrics: number; readonly health: number };
  #process: ServerProcess | null = null;

  private constructor(options: AgentOptions, ports: readonly number[]) {
    this.#options = options;
    this.#directory = mkdtempSync(join(tmpdir(), "mea-agent-"));
    this.stateDir = options.stateDir ?? join(this.#directory, "state");
    this.logFile = join(this.#directory, "agent.log");
    this.#ports = { metrics: ports[0] ?? 0, health: ports[1] ?? 0 };
  }

  /** Takes ports and a directory; starts nothing yet. */
  static async prepare(options: AgentOptions): Promise<AgentProcess> {
    return new AgentProcess(options, await freePorts(2));
  }

  get pid(): number {
    if (this.#process === null) throw new Error("the agent does not run");
    return this.#process.pid;
  }

  /** Starts it and waits until its health port answers, whatever the answer. */
  async start(moreSettings: Readonly<Record<string, string | undefined>> = {}): Promise<void> {
    const agent = this.launch(moreSettings);
    await waitUntilReady(agent, async () => (await this.#get(this.#ports.health, "/livez")) !== null, 60_000);
  }

  /** Starts it and waits for nothing. */
  launch(moreSettings: Readonly<Record<string, string | undefined>> = {}): ServerProcess {
    const [command, args] = this.#commandLine(["run"]);
    const agent = startProcess({
      command,
      args,
      cwd: root,
      logFile: this.logFile,
      env: { ...this.#environment(), ...moreSettings },
    });
    this.#options.cgroup?.add(agent.pid);
    this.#process = agent;
    return agent;
  }

  #commandLine(words: readonly string[]): [string, readonly string[]] {
    const bundle = join(root, "dist", "magento-edge-agent.cjs");
    const form = this.#options.form ?? "source";
    if (form === "bundle" && !existsSync(bundle)) throw new Error(`${bundle} is missing: npm run build`);
    const own = form === "bundle" ? bundle : join(root, "agent", "main.ts");
    const program = this.#options.program ?? own;
    return [
      process.execPath,
      [
        "--disable-warning=ExperimentalWarning",
        ...shipped.options,
        ...(this.#options.nodeOptions ?? []),
        program,
        ...words,
      ],
    ];
  }

  #environment(): Record<string, string | undefined> {
    return {
      ...shipped.variables,
      NOTIFY_SOCKET: undefined,
      NODE_OPTIONS: undefined,
      HTTPS_PROXY: undefined,
      https_proxy: undefined,
      STATE_DIR: this.stateDir,
      RUNTIME_DIRECTORY: this.#directory,
      METRICS_PORT: String(this.#ports.metrics),
      HEALTH_PORT: String(this.#ports.health),
      ...this.#options.settings,
    };
  }

  /** Runs another command of the agent, such as status, with the same settings; resolves with its output. */
  async command(...words: readonly string[]): Promise<{ code: number | null; output: string }> {
    const [command, args] = this.#commandLine(words);
    const logFile = join(this.#directory, `command-${Math.random().toString(36).slice(2)}.log`);
    const ran = startProcess({ command, args, cwd: root, logFile, env: this.#environment() });
    const { code } = await ran.exited;
    return { code, output: ran.log() };
  }

  running(): boolean {
    return this.#process?.running() ?? false;
  }

  exited(): Promise<ExitStatus> {
    if (this.#process === null) throw new Error("the agent was never started");
    return this.#process.exited;
  }

  /** kill -9; the state directory stays. */
  async kill(): Promise<void> {
    await this.#process?.kill();
  }

  /** SIGTERM and the wait for its end. */
  async stop(timeoutMs = 30_000): Promise<ExitStatus | null> {
    return this.#process === null ? null : this.#process.stop(timeoutMs);
  }

  /** Removes the state of a stopped agent: the next start is a first one. */
  async forget(): Promise<void> {
    await this.#process?.kill();
    rmSync(this.stateDir, { recursive: true, force: true });
  }

  /** Stops it if it runs and removes its directory. */
  async remove(): Promise<void> {
    await this.#process?.kill();
    this.#process = null;
    rmSync(this.#directory, { recursive: true, force: true });
  }

  log(): string {
    return this.#process?.log() ?? "";
  }

  async #get(port: number, path: string): Promise<string | null> {
    try {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(2_000) });
      return await answer.text();
    } catch {
      return null;
    }
  }

  /** The text of /metrics, or null while it does not answer. */
  metrics(): Promise<string | null> {
    return this.#get(this.#ports.metrics, "/metrics");
  }

  /** The text of /health, or null while it does not answer. */
  health(): Promise<string | null> {
    return this.#get(this.#ports.health, "/health");
  }

  /** The status of /health (200 or 503), or null while it does not answer. */
  async healthStatus(): Promise<number | null> {
    try {
      const answer = await fetch(`http://127.0.0.1:${this.#ports.health}/health`, {
        method: "HEAD",
        signal: AbortSignal.timeout(2_000),
      });
      return answer.status;
    } catch {
      return null;
    }
  }

  /** Sum of a metric over its labels; null while the agent does not answer. */
  async metric(name: string, labels = ""): Promise<number | null> {
    const text = await this.metrics();
    return text === null ? null : sumOf(text, name, labels);
  }

  /** Polls until the condition holds; throws with the log's end when the time is over or the agent ended. */
  async until(what: string, holds: () => Promise<boolean>, timeoutMs: number, pollMs = 100): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await holds())) {
      const ended = !this.running();
      if (ended || performance.now() > deadline) {
        const why = ended
          ? "the agent has ended"
          : `not in ${timeoutMs} ms\n${(await this.command("status")).output}`;
        throw new Error(`waiting until ${what}: ${why}; its log ends:\n${this.log().slice(-3000)}`);
      }
      await sleep(pollMs);
    }
  }
}

/** Sum over all label sets of one metric whose labels contain the text; throws where the metric is not there. */
export function sumOf(metrics: string, name: string, labels = ""): number {
  let [sum, seen] = [0, 0];
  for (const line of metrics.split("\n")) {
    if (!line.startsWith(name)) continue;
    const match = /^([A-Za-z0-9_:]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null || match[1] !== name || !(match[2] ?? "").includes(labels)) continue;
    seen += 1;
    sum += Number(match[3]);
  }
  if (seen === 0 && labels === "") throw new Error(`the agent has no metric ${name}`);
  return sum;
}
