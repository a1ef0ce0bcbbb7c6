/**
 * What the running agent does for its operators, by socket. A new command is a row here, and a file
 * with what it does; it checks its arguments itself (control/protocol.ts has the tools).
 */
import type { Agent } from "../assemble.ts";
import type { ControlCommands } from "../control/control-server.ts";
import { type ControlArguments, flagArgument, textArgument } from "../control/protocol.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import type { Beginning } from "../new-beginning.ts";
import { buildInfo } from "./build-info.ts";
import type { ReplayRequest } from "../replay.ts";
import { addResync, pauseReading } from "../snapshots.ts";
import { type Choice, QuarantineDesk, type ReadAgain } from "./quarantine-desk.ts";
import { resyncArguments } from "./resync.ts";
import { verifyArguments } from "./verify.ts";
import { spoolVerification } from "./spool-verify.ts";
import { releaseArguments } from "./topic-release.ts";

/** For the service's group: nothing that changes state or shows row data. */
export function readOnlyCommands(
  agent: Pick<Agent, "spool">,
  status: () => Promise<unknown>,
): ControlCommands {
  const desk = new QuarantineDesk(agent.spool.quarantined, systemClock);
  return {
    status,
    "quarantine.list": () => desk.list(),
  };
}

/** For root alone: everything else. Each of them leaves a line in the log. */
export function adminCommands(agent: Agent): ControlCommands {
  return {
    adopt: async () => {
      if (agent.adoption !== null) return agent.adoption.adopt();
      throw new AgentError("COMMAND_REFUSED", "the state belongs to this machine already");
    },
    "position restart": (args) => restartPosition(agent, textArgument(args, "from")),
    resync: (args) => {
      const request = resyncArguments(args);
      return atRest(agent, () => addResync(agent.spool, agent.mapped.mapping, request));
    },
    verify: async (args) => {
      if (agent.adoption !== null) throw agent.adoption.reason;
      return agent.verifications.start(verifyArguments(args));
    },
    replay: (args) => atRest(agent, () => agent.replay(replayArguments(args)), false),
    "snapshot pause": () => atRest(agent, () => pauseReading(agent.spool, true)),
    "snapshot resume": () => atRest(agent, () => pauseReading(agent.spool, false)),
    "spool verify": spoolVerification(agent.spool),
    "topic release": async (args) => agent.forwarder.release(releaseArguments(args)),
    version: async () => ({ ...buildInfo, instance: agent.instance }),
    ...quarantineCommands(agent, (ids) => agent.readAgain(ids)),
  };
}

export function quarantineCommands(
  agent: Pick<Agent, "spool" | "forwarder">,
  readAgain: ReadAgain,
): ControlCommands {
  const desk = new QuarantineDesk(agent.spool.quarantined, systemClock);
  return {
    "quarantine.show": (args) => desk.show(textArgument(args, "id")),
    "quarantine.retry": (args) => desk.retry(choiceOf(args), (id) => agent.forwarder.retry(id), readAgain),
    "quarantine.drop": async (args) => {
      if (!flagArgument(args, "yes")) throw new AgentError("USAGE", "drop deletes for good; say yes");
      return desk.drop(choiceOf(args));
    },
  };
}

/** Capture rests meanwhile, wherever it stands: its place is given up. */
function restartPosition(agent: Agent, from: string): Promise<Beginning> {
  return atRest(agent, () => agent.beginAnew(from));
}

/** Runs while nothing is captured, unless told otherwise also inside a large transaction; capture then goes on. */
async function atRest<T>(agent: Agent, work: () => Promise<T>, anywhere = true): Promise<T> {
  if (agent.adoption !== null) throw agent.adoption.reason;
  const made = Promise.withResolvers<T>();
  await agent.capture.atRest(async () => made.resolve(await work()), anywhere);
  return made.promise;
}

function replayArguments(args: ControlArguments): ReplayRequest {
  const { entity } = args;
  const sinceMs = Number(textArgument(args, "sinceMs"));
  if (!Number.isSafeInteger(sinceMs)) throw new AgentError("USAGE", "the time is no number");
  if (entity !== null && typeof entity !== "string")
    throw new AgentError("USAGE", "an entity is a text, or null");
  return { sinceMs, entity };
}

/** All of them only where that is said: a forgotten id must not mean everything. */
function choiceOf(args: ControlArguments): Choice {
  return flagArgument(args, "all") ? { id: null } : { id: textArgument(args, "id") };
}
