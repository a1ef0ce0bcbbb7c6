/** Where a connection starts, and whether the server still has what the checkpoint names. */
import { type Checkpoint, type Position, type TransactionIdentity } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { positionLost } from "./approach.ts";
import { FILE_START } from "./binlog-event.ts";
import type { ControlConnection } from "./control-connection.ts";
import type { DumpStart } from "./dump-connection.ts";
import {
  readBinlogFiles,
  readCurrentPosition,
  readMariadbGtids,
  type ServerFacts,
  type ServerPosition,
} from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";
import { POSITION_32_MAX } from "./stream-position.ts";

export interface Start {
  readonly dump: DumpStart;
  readonly expected: TransactionIdentity | null;
}

export interface FirstStart extends Start {
  readonly from: ServerPosition & { readonly resumePosition: number };
}

/** Reading this much again for a proof is too much; the checks of file, size and server stay. */
const PROOF_BYTES_MAX = 64 * 1024 * 1024;

/** The start for a checkpoint. For the proof it is before the last transaction, else behind it. */
export function planStart(from: Checkpoint, prove: boolean): Start {
  const behind: Start = {
    dump: { kind: "position", file: from.file, position: from.resumePosition },
    expected: null,
  };
  const last = from.lastTransaction;
  if (!prove || last === null || last.file !== from.file) return behind;
  if (last.startPosition > POSITION_32_MAX || from.position - last.startPosition > PROOF_BYTES_MAX)
    return behind;
  const position = Math.min(last.startPosition, from.resumePosition);
  return { dump: { kind: "position", file: last.file, position }, expected: last };
}

/** Throws POSITION_LOST when this is not the server, or it does not have the place any more. */
export function requirePosition(
  from: Checkpoint,
  facts: ServerFacts,
  files: ReadonlyMap<string, number>,
): void {
  if (facts.serverId !== from.serverId || facts.serverUuid !== from.serverUuid) {
    throw positionLost(
      `the state belongs to server ${serverName(from)}, and this is server ${serverName(facts)}`,
    );
  }
  const size = files.get(from.file);
  if (size === undefined) {
    const names = [...files.keys()];
    throw positionLost(
      `the server no longer has ${from.file}; it has ${names.length === 0 ? "no binlog" : `${names[0]} to ${names.at(-1)}`}`,
    );
  }
  if (size < from.position) {
    throw positionLost(`${from.file} has ${size} bytes, and the state stands at ${from.position}`);
  }
}

function serverName(server: { readonly serverId: number; readonly serverUuid: string | null }): string {
  return server.serverUuid === null ? String(server.serverId) : `${server.serverId} (${server.serverUuid})`;
}

/** The start of an agent without state: START_POSITION, else the current end. */
export async function startWithoutCheckpoint(
  control: ControlConnection,
  settings: SourceSettings,
  facts: ServerFacts,
): Promise<FirstStart> {
  const { startPosition } = settings;
  if (startPosition === null) {
    const current = await readCurrentPosition(control, facts.flavour);
    return byPosition(current, current.position);
  }
  const place = parsePlace(startPosition);
  if (place === null) {
    return {
      dump: { kind: "gtid", gtidSet: startPosition },
      expected: null,
      from: { file: "", position: 0, gtidSet: startPosition, resumePosition: FILE_START },
    };
  }
  const size = (await readBinlogFiles(control)).get(place.file);
  if (size === undefined || size < place.position) {
    throw positionLost(`START_POSITION is ${startPosition}, which the server does not have`);
  }
  const gtidSet =
    facts.flavour === "mariadb" ? await readMariadbGtids(control, place.file, place.position) : null;
  // Without GTIDs from the server they are gathered on the way from the file's start.
  return byPosition({ ...place, gtidSet }, gtidSet === null ? FILE_START : place.position);
}

function byPosition(place: ServerPosition, resumePosition: number): FirstStart {
  const position = Math.min(resumePosition, place.position > POSITION_32_MAX ? FILE_START : resumePosition);
  return {
    dump: { kind: "position", file: place.file, position },
    expected: null,
    from: { ...place, resumePosition: position },
  };
}

/** `file:position`; null for anything that is not, which is then a GTID. */
function parsePlace(text: string): Position | null {
  const parts = /^([^:/\\]+\.\d+):(\d{1,16})$/.exec(text.trim());
  if (parts === null) return null;
  const position = Number(parts[2]);
  if (!Number.isSafeInteger(position) || position < FILE_START) {
    throw new AgentError("CONFIG_INVALID", `START_POSITION ${text} names no place in a binlog`);
  }
  return { file: parts[1] ?? "", position };
}
