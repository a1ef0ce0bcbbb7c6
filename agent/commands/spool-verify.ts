/**
 * `magento-edge-agent spool verify`: every record of the spool, read once. A running agent reads its
 * own, slowly beside its work, and is asked how far it is; a stopped one's is read here.
 */
import { existsSync } from "node:fs";
import type { Lane } from "../change.ts";
import type { ControlCommand } from "../control/control-server.ts";
import { askIfRunning } from "../control/control-client.ts";
import { flagArgument } from "../control/protocol.ts";
import { stateDirectory } from "../config/derived.ts";
import { takeSupervisor } from "../config/load.ts";
import { formatBytes } from "../config/value-kinds.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import type { LiveProof, LiveVerify } from "../spool/live-verify.ts";
import type { Spool } from "../spool/spool.ts";
import { type SpoolReport, verifySpool } from "../spool/verify.ts";
import { type Command, type Output, sharedOptions } from "./command.ts";
import { findSockets } from "./find-sockets.ts";
import { loadFrom, settingsOrThrow } from "./load-settings.ts";
import { becomeOwner, noState } from "./stopped-state.ts";

const POLL_MS = 250;
/** Every five seconds. */
const POLLS_TOLD = 20;

export const spoolVerifyCommand: Command = {
  name: "spool verify",
  summary: "Reads every record of the spool and names what is damaged. Exit 0 or 1. For root alone.",
  positionals: [],
  options: { json: sharedOptions.json, "env-file": sharedOptions.envFile },
  more: () =>
    [
      "Nothing is changed: the agent heals damage by itself when it starts, or when it comes to it.",
      "A running agent reads its own spool, at most 20 MiB a second beside its work, and goes on when this command",
      "is ended; the command, given again, joins it. A stopped agent's spool is read as fast as the disk gives it.",
    ].join("\n"),
  run: async (args, output) => {
    const sockets = findSockets(args);
    const stateDir = stateDirectory(settingsOrThrow(loadFrom(args, true)), takeSupervisor());
    const running = await verifyRunning(sockets.admin, output);
    if (running === null) {
      if (!existsSync(stateDir)) throw noState(stateDir);
      becomeOwner(stateDir);
    }
    const report = running ?? (await verifyStopped(stateDir));
    if (args.flag("json")) {
      output.out(`${JSON.stringify({ schema: "magento-edge-agent/spool-verify/1", stateDir, ...report })}\n`);
    } else print(stateDir, report, output);
    return report.faults.length === 0 ? 0 : 1;
  },
};

/** In the running agent, by its admin socket: begins a proof, or joins the one under way. */
export function spoolVerification(spool: Pick<Spool, "proof">): ControlCommand {
  let current: LiveVerify | null = null;
  let failure: AgentError | null = null;
  return async (args) => {
    if (
      flagArgument(args, "begin") &&
      (current === null || current.proof.report !== null || failure !== null)
    ) {
      failure = null;
      current = spool.proof();
      current.run().catch((cause: unknown) => {
        failure = new AgentError("SPOOL_IO", "the spool cannot be read", { cause });
      });
    }
    if (failure !== null) throw failure;
    if (current === null) throw new AgentError("COMMAND_REFUSED", "no proof of the spool is under way");
    return current.proof;
  };
}

/** Null when no agent runs. */
async function verifyRunning(socket: string, output: Output): Promise<SpoolReport | null> {
  const ask = (begin: boolean) => askIfRunning(socket, { command: "spool verify", args: { begin } }, isProof);
  let proof = await ask(true);
  for (let polls = 1; proof !== null && proof.report === null; polls += 1) {
    if (polls % POLLS_TOLD === 0)
      output.err(`${formatBytes(proof.bytes)} of about ${formatBytes(proof.ofBytes)} read\n`);
    await systemClock.sleep(POLL_MS);
    proof = await ask(false);
    if (proof === null)
      throw new AgentError("AGENT_NOT_RUNNING", "the agent ended before it had read all of its spool");
  }
  return proof?.report ?? null;
}

function isProof(value: unknown): value is LiveProof {
  return typeof value === "object" && value !== null && "bytes" in value && "report" in value;
}

async function verifyStopped(stateDir: string): Promise<SpoolReport> {
  try {
    return await verifySpool(stateDir);
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== "SPOOL_LOCKED") throw error;
    throw new AgentError("COMMAND_REFUSED", `another process has the spool in ${stateDir} open`, {
      cause: error,
      hint: "It is an agent that does not answer on its admin socket, or another command.",
    });
  }
}

function print(stateDir: string, report: SpoolReport, output: Output): void {
  for (const { queue, lane, events, bytes, acked, last } of report.queues) {
    output.out(
      `${nameOf(queue, lane)}: ${events} events wait (${acked + 1} to ${last}), ${formatBytes(bytes)}\n`,
    );
  }
  output.out(`${report.quarantined} in quarantine, ${report.indexRecords} records of the index\n`);
  for (const { queue, lane, seq, what } of report.faults) {
    output.out(
      `DAMAGE ${[nameOf(queue, lane), seq === null ? "" : String(seq)].filter((part) => part !== "").join(" ")}: ${what}\n`,
    );
  }
  const count = report.faults.length;
  output.out(
    count === 0
      ? `${stateDir} is sound\n`
      : `${count} ${count === 1 ? "damage" : "damages"} in ${stateDir}\n`,
  );
}

/** As topics are known; the lane is said where it is not the usual one. */
function nameOf(queue: string, lane: Lane | null): string {
  return lane === "bulk" ? `${queue} (bulk)` : queue;
}
