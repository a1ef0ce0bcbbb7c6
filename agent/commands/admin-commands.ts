/**
 * What the running agent does for root over the admin socket: everything that changes state or
 * shows row data. Each of these leaves a line in the log; its arguments are checked by the command.
 */
import type { Agent } from "../assemble.ts";
import type { ControlCommands } from "../control/control-server.ts";
import { AgentError } from "../kernel/errors.ts";
import { buildInfo } from "./build-info.ts";

/** The dispatch table: a new command is a row here, and a file with what it does. */
export function adminCommands(agent: Agent): ControlCommands {
  return {
    adopt: async () => {
      if (agent.adoption !== null) return agent.adoption.adopt();
      throw new AgentError("COMMAND_REFUSED", "the state belongs to this machine already");
    },
    version: async () => ({ ...buildInfo, instance: agent.instance }),
  };
}
