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
  /** What of the time asked for cannot be read, why, and what to do; null where all of it can. */
  readonly missing: string | null;
}

const resync = "resync ENTITY --all sends how its rows are now";

/**
 * The start of the newest binlog file that was created at or before `sinceMs`: everything since then
 * is in it or behind it. Files from before `epochMs`, when the present epoch began, are left alone;
 * where there is none before `sinceMs`, it is the oldest one that is left. Reads with the agent's server
 * id: its stream must be closed meanwhile. Throws COMMAND_REFUSED when no file is left.
 */
export async function findPlaceInTime(
  settings: SourceSettings,
  sinceMs: number,
  epochMs: number,
): Promise<PlaceInTime> {
  const { files, encrypted } = await filesOf(settings);
  let found: BegunFile | null = null;
  let tooOld: BegunFile | null = null;
  for (const file of files.toReversed()) {
    const seconds = await fileCreatedSeconds({
      connection: connectionOptions(settings, encrypted),
      serverId: settings.serverId,
      start: { kind: "position", file, position: FILE_START },
      heartbeatMs: HEARTBEAT_MS,
    });
    if (seconds === null) break;
    const begun = { file, createdMs: seconds * 1000 };
    if (begun.createdMs < epochMs) {
      tooOld = begun;
      break;
    }
    found = begun;
    if (found.createdMs <= sinceMs) break;
  }
  const epochText = `the present epoch began at ${timeText(epochMs)}`;
  if (found === null) {
    throw new AgentError(
      "COMMAND_REFUSED",
      `${epochText}, and the server has no binlog file that was begun since${tooOld === null ? "" : `: the newest, ${fileText(tooOld)}, is older`}`,
      { hint: `A replay reads whole files of the present epoch; ${resync}.` },
    );
  }
  const place = await findNewPlace(settings, `${found.file}:${FILE_START}`);
  const isShort = found.createdMs > sinceMs;
  const because =
    tooOld === null
      ? `the server has no file before ${fileText(found)}`
      : `${epochText}, when ${fileText(tooOld)} was in use, and whole files of it are read`;
  const missing = isShort
    ? `not from ${timeText(sinceMs)} to ${timeText(found.createdMs)}: ${because}; for that time ${resync}`
    : null;
  return { place, createdMs: found.createdMs, missing };
}

interface BegunFile {
  readonly file: string;
  readonly createdMs: number;
}

function fileText({ file, createdMs }: BegunFile): string {
  return `${file} (begun ${timeText(createdMs)})`;
}

function timeText(ms: number): string {
  return new Date(ms).toISOString();
}

async function filesOf(
  settings: SourceSettings,
): Promise<{ readonly files: string[]; readonly encrypted: boolean }> {
  await using control = await openControl(settings);
  const { encrypted } = await readServerFacts(control);
  return { files: [...(await readBinlogFiles(control)).keys()], encrypted };
}
