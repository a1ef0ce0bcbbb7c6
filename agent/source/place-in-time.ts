/** Where in the binlog an operator's "two hours ago" lies. */
import { AgentError } from "../kernel/errors.ts";
import { FILE_START } from "./binlog-event.ts";
import { connectionOptions, openControl } from "./control-connection.ts";
import { fileCreatedSeconds } from "./loss-inquiry.ts";
import { findNewPlace, type NewPlace } from "./new-place.ts";
import { readBinlogFiles, readServerFacts } from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";

const HEARTBEAT_MS = 5_000;

export interface PlaceInTime {
  readonly place: NewPlace;
  readonly createdMs: number;
}

/**
 * The start of the newest binlog file that was created at or before `sinceMs`: everything since then
 * is in it or behind it. Files from before `notBeforeMs` are left alone; where there is none before
 * `sinceMs`, it is the oldest one that is left. Reads with the agent's server id: its stream must be
 * closed meanwhile. Throws COMMAND_REFUSED when no file is left.
 */
export async function findPlaceInTime(
  settings: SourceSettings,
  sinceMs: number,
  notBeforeMs: number,
): Promise<PlaceInTime> {
  const { files, encrypted } = await filesOf(settings);
  let found: { readonly file: string; readonly createdMs: number } | null = null;
  for (const file of files.toReversed()) {
    const seconds = await fileCreatedSeconds({
      connection: connectionOptions(settings, encrypted),
      serverId: settings.serverId,
      start: { kind: "position", file, position: FILE_START },
      heartbeatMs: HEARTBEAT_MS,
    });
    if (seconds === null || seconds * 1000 < notBeforeMs) break;
    found = { file, createdMs: seconds * 1000 };
    if (found.createdMs <= sinceMs) break;
  }
  if (found === null) {
    throw new AgentError(
      "COMMAND_REFUSED",
      "the server has no binlog file that begins within the present epoch",
      {
        hint: "What was read in an earlier epoch, or in the file in which this one began, is sent again by a resync.",
      },
    );
  }
  const place = await findNewPlace(settings, `${found.file}:${FILE_START}`);
  return { place, createdMs: found.createdMs };
}

async function filesOf(
  settings: SourceSettings,
): Promise<{ readonly files: string[]; readonly encrypted: boolean }> {
  await using control = await openControl(settings);
  const { encrypted } = await readServerFacts(control);
  return { files: [...(await readBinlogFiles(control)).keys()], encrypted };
}
