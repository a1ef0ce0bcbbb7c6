/** Where the running agent's control sockets are, for the commands that ask it. */
import { existsSync } from "node:fs";
import { type ControlSockets, controlSockets, controlSocketsIn } from "../config/derived.ts";
import { takeSupervisor } from "../config/load.ts";
import type { Arguments } from "./command.ts";
import { installedEnvFile, loadFrom } from "./load-settings.ts";

/** RuntimeDirectory= of the installed unit. */
const installedDirectory = "/run/magento-edge-agent";

/** Those of the agent that the settings describe, else those of the installed service. */
export function findSockets(args: Arguments): ControlSockets {
  const supervisor = takeSupervisor();
  const { settings, file } = loadFrom(args, true);
  const installed = controlSocketsIn(installedDirectory);
  if (settings === null) return installed;
  const own = controlSockets(settings, supervisor);
  if (existsSync(own.readOnly) || existsSync(own.admin)) return own;
  // A state directory that somebody names on the command line is not the installed service's.
  const meansInstalled = settings.stateDir === null || file === installedEnvFile;
  return meansInstalled && existsSync(installedDirectory) ? installed : own;
}
