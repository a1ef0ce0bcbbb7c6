/** `magento-edge-agent adopt`: the state belongs to this machine from now on. */
import { type Adopted, adoptState, guardMachine } from "../adoption.ts";
import { takeSupervisor } from "../config/load.ts";
import { askIfRunning } from "../control/control-client.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import { type MachineFacts, readMachine } from "../machine.ts";
import type { Spool } from "../spool/spool.ts";
import { type Command, type Output, sharedOptions } from "./command.ts";
import { findSockets } from "./find-sockets.ts";
import { loadFrom, settingsOrThrow } from "./load-settings.ts";
import { withStoppedState } from "./stopped-state.ts";

export const adoptCommand: Command = {
  name: "adopt",
  summary:
    "Makes a state that was made on another machine this machine's own. Only one of the two may go on.",
  positionals: [],
  options: { "env-file": sharedOptions.envFile },
  more: () =>
    [
      "A copied state publishes nothing, so that a clone of the shop's machine cannot write into production.",
      "Adopt it where this machine takes the other one's place, after that one was stopped for good: what both",
      "publish would be mixed up in the consumers. It gets a new instance and a new epoch, so that everything it",
      "publishes is newer than what its origin did. What the origin published after the copy was made, and this",
      "machine's database does not have, stays with the consumers until those rows change.",
      "A stopped agent is adopted in its directory, a running one over its admin socket (root).",
    ].join("\n"),
  run: async (args, output) => {
    const running = await askIfRunning(findSockets(args).admin, { command: "adopt" }, isAdopted);
    if (running !== null) return told(running, output);
    const settings = settingsOrThrow(loadFrom(args, true));
    const machine = readMachine({ root: "/", runtimeDirectory: takeSupervisor().runtimeDirectory });
    const adopted = await withStoppedState(settings, output, (spool) => adoptStopped(spool, machine));
    return told(adopted, output);
  },
};

async function adoptStopped(spool: Spool, machine: MachineFacts): Promise<Adopted> {
  if ((await guardMachine(spool.meta, machine)) === null) {
    throw new AgentError("COMMAND_REFUSED", "the state belongs to this machine already");
  }
  return adoptState(spool, machine, systemClock.wallMs());
}

function told({ instance, epoch }: Adopted, output: Output): number {
  const time = epoch === null ? "" : `, epoch ${epoch}`;
  output.out(`adopted: the state belongs to this machine now (instance ${instance}${time})\n`);
  return 0;
}

function isAdopted(value: unknown): value is Adopted {
  return (
    typeof value === "object" &&
    value !== null &&
    "instance" in value &&
    typeof value.instance === "string" &&
    "epoch" in value &&
    (value.epoch === null || typeof value.epoch === "number")
  );
}
