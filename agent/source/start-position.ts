/** Where a connection starts, and whether the server still has what the checkpoint names. */
import {
  binlogFileNumber,
  type Checkpoint,
  nextEpoch,
  type Position,
  STATE_FORMAT_VERSION,
  type TransactionIdentity,
} from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { FILE_START } from "./binlog-event.ts";
import type { ControlConnection } from "./control-connection.ts";
import type { DumpStart } from "./dump-connection.ts";
import { positionLost } from "./position-loss.ts";
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

/** The server's binlog files in their order, with their sizes. */
export type BinlogFiles = ReadonlyMap<string, number>;

/**
 * The start for a checkpoint. For the proof it is before the last transaction, which can stand in an
 * earlier file; else it is behind it.
 */
export function planStart(from: Checkpoint, prove: boolean, files: BinlogFiles): Start {
  const behind: Start = {
    dump: { kind: "position", file: from.file, position: from.resumePosition },
    expected: null,
  };
  const last = from.lastTransaction;
  if (!prove || last === null || last.startPosition > POSITION_32_MAX) return behind;
  const distance = bytesBetween({ file: last.file, position: last.startPosition }, from, files);
  if (distance === null || distance > PROOF_BYTES_MAX) return behind;
  const position =
    last.file === from.file ? Math.min(last.startPosition, from.resumePosition) : last.startPosition;
  return { dump: { kind: "position", file: last.file, position }, expected: last };
}

/** Where the place is not known: the server skips what the set says is done. */
export function startByGtid(gtidSet: string): Start {
  return { dump: { kind: "gtid", gtidSet }, expected: null };
}

/** Null when a file between the two is not there any more. */
function bytesBetween(start: Position, end: Position, files: BinlogFiles): number | null {
  if (start.file === end.file) return end.position - start.position;
  const names = [...files.keys()];
  const first = names.indexOf(start.file);
  const last = names.indexOf(end.file);
  if (first < 0 || last < first) return null;
  let bytes = end.position - start.position;
  for (const name of names.slice(first, last)) bytes += files.get(name) ?? 0;
  return bytes;
}

/** Throws POSITION_LOST when the server, which is the same by its uuid, does not have the place any more. */
export function requirePosition(from: Checkpoint, facts: ServerFacts, files: BinlogFiles): void {
  if (facts.serverId !== from.serverId) {
    throw positionLost(
      "server_copied",
      `the server has the uuid that the state knows and another server_id: ${facts.serverId}, not ${from.serverId}`,
    );
  }
  const size = files.get(from.file);
  if (size === undefined) throw missingFile(from, [...files.keys()]);
  if (size < from.position) {
    throw positionLost(
      "cut_short",
      `${from.file} has ${size} bytes, and the state stands at ${from.position}: what was read from it is not there any more`,
    );
  }
}

function missingFile({ file }: Checkpoint, names: readonly string[]): AgentError {
  const [oldest] = names;
  const newest = names.at(-1);
  if (oldest === undefined || newest === undefined)
    return positionLost("purged", `the server no longer has ${file}; it has no binlog at all`);
  const has = `it has ${oldest} to ${newest}`;
  if (baseName(oldest) !== baseName(file)) {
    return positionLost("files_renamed", `the server has no file named ${file} any more; ${has}`);
  }
  if (binlogFileNumber(file) > binlogFileNumber(newest)) {
    return positionLost("other_history", `the server does not have ${file} yet or any more; ${has}`);
  }
  return positionLost("purged", `the server no longer has ${file}; ${has}`);
}

function baseName(file: string): string {
  return file.slice(0, file.lastIndexOf("."));
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
    // MySQL's set lacks transactions before the position whose commit is under way.
    return facts.flavour === "mysql"
      ? byPosition({ ...current, gtidSet: null }, FILE_START)
      : byPosition(current, current.position);
  }
  const place = parsePlace(startPosition);
  if (place === null) {
    return {
      ...startByGtid(startPosition),
      from: { file: "", position: 0, gtidSet: startPosition, resumePosition: FILE_START },
    };
  }
  const size = (await readBinlogFiles(control)).get(place.file);
  if (size === undefined || size < place.position) {
    throw positionLost(
      "start_position",
      `START_POSITION is ${startPosition}, which the server does not have`,
    );
  }
  const gtidSet =
    facts.flavour === "mariadb" ? await readMariadbGtids(control, place.file, place.position) : null;
  // Without GTIDs from the server they are gathered on the way from the file's start.
  return byPosition({ ...place, gtidSet }, gtidSet === null ? FILE_START : place.position);
}

/** The checkpoint of an agent that begins there. */
export function newCheckpoint(place: FirstStart["from"], facts: ServerFacts, wallMs: number): Checkpoint {
  return {
    formatVersion: STATE_FORMAT_VERSION,
    epoch: nextEpoch(null, wallMs),
    file: place.file,
    position: place.position,
    resumePosition: place.resumePosition,
    gtidSet: place.gtidSet,
    serverId: facts.serverId,
    serverUuid: facts.serverUuid,
    lastTransaction: null,
    partial: null,
    newestCommitMs: 0,
  };
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
