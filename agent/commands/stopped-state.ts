/**
 * The state of an agent that does not run, for commands that change it. LevelDB's lock keeps a
 * running one's closed.
 */
import { accessSync, existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { diskLimits, stateDirectory, volumeOf } from "../config/derived.ts";
import { takeSupervisor } from "../config/load.ts";
import type { Settings } from "../config/settings-table.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import { Logger } from "../observe/log.ts";
import { Spool } from "../spool/spool.ts";
import type { Output } from "./command.ts";

/**
 * Opens it, does the work and closes it, as the user that owns it: files that root leaves there
 * would be closed to the agent. Settings that only root can read have to be read before.
 *
 * Throws COMMAND_REFUSED where there is no state, CONTROL_RIGHTS where it is another user's, and what opening it throws.
 */
export async function withStoppedState<T>(
  settings: Settings,
  output: Output,
  work: (spool: Spool) => Promise<T>,
): Promise<T> {
  const stateDir = stateDirectory(settings, takeSupervisor());
  const marker = join(stateDir, "state.json");
  if (!existsSync(marker)) {
    if (isClosed(marker)) {
      throw new AgentError("CONTROL_RIGHTS", `the state in ${stateDir} is closed to this user`);
    }
    throw noState(stateDir);
  }
  const limits = diskLimits(settings, await volumeOf(stateDir));
  becomeOwner(stateDir);
  const spool = await Spool.open({
    stateDir,
    limits: { bytesMax: limits.spoolBytesMax, diskFreeMin: limits.diskFreeMinBytes },
    syncMinMs: 0,
    quarantineKeepDays: settings.quarantineKeepDays,
    observer: { synced: () => undefined, intakeClosed: () => undefined, intakeOpened: () => undefined },
    log: new Logger({
      format: "text",
      level: "warn",
      inJournal: false,
      clock: systemClock,
      write: (line) => output.err(line),
    }),
    clock: systemClock,
  });
  try {
    return await work(spool);
  } finally {
    await spool.close();
  }
}

/** The error of a command that needs a state where there is none. */
export function noState(stateDir: string): AgentError {
  return new AgentError("COMMAND_REFUSED", `there is no state in ${stateDir}`, {
    hint: "See STATE_DIR; --env-file names the settings of another agent.",
  });
}

function isClosed(path: string): boolean {
  try {
    accessSync(path);
    return false;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EACCES";
  }
}

/** Goes on as the user that owns the state: files that root leaves there would be closed to the agent. */
export function becomeOwner(stateDir: string): void {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = statSync(stateDir);
  if (uid === 0) return;
  process.setgroups?.([gid]);
  process.setgid?.(gid);
  process.setuid?.(uid);
}
