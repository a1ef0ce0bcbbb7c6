/** `magento-edge-agent replay`: what the binlog still has is sent again. */
import { askAgent } from "../control/control-client.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import type { ReplayBegun } from "../replay.ts";
import { type Command, sharedOptions, usageError } from "./command.ts";
import { findSockets } from "./find-sockets.ts";

const unitsMs: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

export const replayCommand: Command = {
  name: "replay",
  summary: "Reads the binlog again since some time and sends it with the same ids and sequences.",
  positionals: [],
  options: {
    since: { type: "string", value: "2h", text: "How far back: minutes (m), hours (h) or days (d)." },
    entity: { type: "string", value: "ENTITY", text: "Only this entity's events; default all." },
    "env-file": sharedOptions.envFile,
  },
  more: () =>
    [
      "Heals a broker or a consumer that lost data: a consumer that has an event ignores it. It begins at the start of",
      "the binlog file that was in use then. Files that were begun before the present epoch are left out: it says so,",
      "and for what was sent before there is resync. Live changes come behind it. Asks the running agent over its admin",
      "socket (root).",
    ].join("\n"),
  run: async (args, output) => {
    const since = args.text("since");
    if (since === null) throw usageError("since when? --since=2h", "replay");
    const sinceMs = systemClock.wallMs() - durationMs(since);
    const question = {
      command: "replay",
      args: { sinceMs: String(sinceMs), entity: args.text("entity") },
      timeoutMs: 120_000,
    };
    const answer = await askAgent(findSockets(args).admin, question);
    if (!isBegun(answer)) throw new AgentError("AGENT_NOT_RUNNING", "the agent's answer is not understood");
    output.out(
      `${answer.from} to ${answer.to} is read again (since ${new Date(answer.sinceMs).toISOString()})\n`,
    );
    if (typeof answer.missing === "string") output.out(`${answer.missing}\n`);
    return 0;
  },
};

function durationMs(text: string): number {
  const [, number, unit = ""] = /^(\d{1,5})([mhd])$/.exec(text) ?? [];
  const unitMs = unitsMs[unit];
  if (number === undefined || unitMs === undefined) {
    throw usageError(`--since=${text} is no time such as 30m, 2h or 1d`, "replay");
  }
  return Number(number) * unitMs;
}

function isBegun(value: unknown): value is ReplayBegun {
  if (typeof value !== "object" || value === null) return false;
  if (!("from" in value && "to" in value && "sinceMs" in value)) return false;
  return typeof value.from === "string" && typeof value.to === "string" && typeof value.sinceMs === "number";
}
