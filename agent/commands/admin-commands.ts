/**
 * What the running agent does for root over the admin socket: everything that changes state or
 * shows row data. Each of these leaves a line in the log; its arguments are checked by the command.
 */
import type { Agent } from "../assemble.ts";
import type { ControlCommands } from "../control/control-server.ts";
import { textArgument } from "../control/protocol.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import { type Beginning, beginAnew } from "../new-beginning.ts";
import { buildInfo } from "./build-info.ts";

/** The dispatch table: a new command is a row here, and a file with what it does. */
export function adminCommands(agent: Agent): ControlCommands {
  return {
    adopt: async () => {
      if (agent.adoption !== null) return agent.adoption.adopt();
      throw new AgentError("COMMAND_REFUSED", "the state belongs to this machine already");
    },
    "position restart": (args) => restartPosition(agent, textArgument(args, "from")),
    version: async () => ({ ...buildInfo, instance: agent.instance }),
  };
}

/** Capture rests meanwhile, wherever it stands: its place is given up. */
async function restartPosition(agent: Agent, from: string): Promise<Beginning> {
  if (agent.adoption !== null) throw agent.adoption.reason;
  const { transform, source } = agent.mapped.rooms;
  const made = Promise.withResolvers<Beginning>();
  await agent.capture.atRest(async () => {
    const placeAt = (place: string) => source.placeAt(place);
    made.resolve(
      await beginAnew({ spool: agent.spool, transform, placeAt, nowMs: systemClock.wallMs() }, from),
    );
  }, true);
  return made.promise;
}
