/** `magento-edge-agent status`: asks the running agent over its read-only control socket. */
import { askAgent } from "../control/control-client.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import { type Arguments, type Command, type Output, sharedOptions, usageError } from "./command.ts";
import { cutoverConditions, cutoverScreen } from "./cutover.ts";
import { findSockets } from "./find-sockets.ts";
import { isStatusReport, type StatusReport, statusScreen } from "./status-report.ts";

export const statusCommand: Command = {
  name: "status",
  summary: "Prints how the running agent is. Exit 0 healthy, 2 degraded, 69 not running.",
  positionals: [],
  options: {
    json: sharedOptions.json,
    cutover: {
      type: "boolean",
      text: "What has to hold before a switch-over, each with its state. Exit 0 when all of it holds, 2 when not.",
    },
    "wait-healthy": {
      type: "string",
      value: "60s",
      text: "Wait until it is ready and reads the binlog, at most so long. Cluster and lag do not count. Exit 0 or 1.",
    },
    socket: {
      type: "string",
      value: "FILE",
      text: "The control socket, where it is not in its usual place.",
    },
    "env-file": sharedOptions.envFile,
  },
  run: async (args, output) => {
    const path = args.text("socket") ?? findSockets(args).readOnly;
    const wait = args.text("wait-healthy");
    if (args.flag("cutover")) return showCutover(path, args, output);
    return wait === null
      ? showStatus(path, args, output)
      : waitHealthy(path, durationMs(wait, "wait-healthy", "status"), output);
  },
};

async function showStatus(path: string, args: Arguments, output: Output): Promise<number> {
  const report = await askStatus(path);
  output.out(args.flag("json") ? `${JSON.stringify(report)}\n` : statusScreen(report));
  return report.health.status === "healthy" ? 0 : 2;
}

async function showCutover(path: string, args: Arguments, output: Output): Promise<number> {
  const conditions = cutoverConditions(await askStatus(path));
  const ready = conditions.every(({ holds }) => holds);
  output.out(args.flag("json") ? `${JSON.stringify({ ready, conditions })}\n` : cutoverScreen(conditions));
  return ready ? 0 : 2;
}

/** What the agent that listens there answers. Throws AGENT_NOT_RUNNING. */
export async function askStatus(path: string): Promise<StatusReport> {
  const answer = await askAgent(path, { command: "status" });
  if (isStatusReport(answer)) return answer;
  throw new AgentError("AGENT_NOT_RUNNING", "the agent's answer is not understood", {
    hint: "Is the running agent of another version?",
  });
}

/** Local facts only: an upgrade during an outage of the cluster has to go through. */
async function waitHealthy(path: string, limitMs: number, output: Output): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + limitMs;
  for (;;) {
    const reason = await unwellBecause(path);
    if (reason === null) {
      output.out("ready, and reading the binlog\n");
      return 0;
    }
    if (systemClock.monotonicMs() >= deadlineMs) {
      output.err(`not healthy after ${Math.round(limitMs / 1000)} s: ${reason}\n`);
      return 1;
    }
    await systemClock.sleep(250);
  }
}

async function unwellBecause(path: string): Promise<string | null> {
  try {
    const report = await askStatus(path);
    if (!report.ready) return "not ready yet";
    const { state, reason } = report.source;
    if (state !== "streaming" && state !== "paused") return `the binlog is not read: ${reason ?? state}`;
    return report.loops.live ? null : "a loop makes no progress";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Throws USAGE, naming the option. */
export function durationMs(text: string, option: string, command: string): number {
  const match = /^([0-9]{1,6})(ms|s|m|min)?$/.exec(text);
  if (match === null) throw usageError(`--${option}=${text} is no time such as 60s or 2m`, command);
  const factor = match[2] === "ms" ? 1 : match[2] === "m" || match[2] === "min" ? 60_000 : 1000;
  return Number(match[1]) * factor;
}
