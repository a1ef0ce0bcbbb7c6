/** `magento-edge-agent spool verify`: every record of a stopped agent's spool, read once. */
import { existsSync } from "node:fs";
import type { Lane } from "../change.ts";
import { stateDirectory } from "../config/derived.ts";
import { takeSupervisor } from "../config/load.ts";
import { formatBytes } from "../config/value-kinds.ts";
import { AgentError } from "../kernel/errors.ts";
import { type SpoolReport, verifySpool } from "../spool/verify.ts";
import { type Command, type Output, sharedOptions } from "./command.ts";
import { loadFrom, settingsOrThrow } from "./load-settings.ts";
import { becomeOwner, noState } from "./stopped-state.ts";

export const spoolVerifyCommand: Command = {
  name: "spool verify",
  summary: "Reads every record of a stopped agent's spool and names what is damaged. Exit 0 or 1.",
  positionals: [],
  options: { json: sharedOptions.json, "env-file": sharedOptions.envFile },
  more: () =>
    [
      "Nothing is changed: the agent heals damage by itself when it starts, or when it comes to it.",
      "A running agent keeps its spool closed to others; it proves each record before it sends it.",
    ].join("\n"),
  run: async (args, output) => {
    const stateDir = stateDirectory(settingsOrThrow(loadFrom(args, true)), takeSupervisor());
    if (!existsSync(stateDir)) throw noState(stateDir);
    becomeOwner(stateDir);
    const report = await verifyStopped(stateDir);
    if (args.flag("json")) {
      output.out(`${JSON.stringify({ schema: "magento-edge-agent/spool-verify/1", stateDir, ...report })}\n`);
    } else print(stateDir, report, output);
    return report.faults.length === 0 ? 0 : 1;
  },
};

async function verifyStopped(stateDir: string): Promise<SpoolReport> {
  try {
    return await verifySpool(stateDir);
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== "SPOOL_LOCKED") throw error;
    throw new AgentError("COMMAND_REFUSED", `the agent runs and has the spool in ${stateDir} open`, {
      cause: error,
      hint: "Stop it first: systemctl stop magento-edge-agent. It proves each record itself before it sends it.",
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
