/** A place where the operator lets capture begin anew: named in words, looked up on the server. */
import type { Checkpoint } from "../change.ts";
import { STATE_FORMAT_VERSION } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import {
  action,
  actionOf,
  eventEndLow,
  eventLength,
  eventTypeAt,
  HEADER_BYTES,
  isArtificial,
  rotateTarget,
} from "./binlog-event.ts";
import { connectionOptions, type ControlConnection, openControl, textOf } from "./control-connection.ts";
import { DumpConnection, type DumpOptions } from "./dump-connection.ts";
import { gtidLoss } from "./loss-inquiry.ts";
import { readServerFacts } from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";
import { isDumpRefused } from "./source-errors.ts";
import { startWithoutCheckpoint } from "./start-position.ts";
import { POSITION_32_MAX } from "./stream-position.ts";

/** Where to begin, on which server; what belongs to the state is the caller's to add. */
export type NewPlace = Omit<Checkpoint, "epoch" | "newestCommitMs">;

const HEARTBEAT_MS = 500;
/** A GTID is looked for from the start of its file. */
const LOOK_MS = 60_000;
/** Events that stand inside a transaction: none of them can be the first one that is read. */
const insideTransaction = /table_map|_rows|xid|annotate|rows_query|^Query: (COMMIT|BEGIN)/i;

/**
 * Looks `from` up: "current" (the end of the binlog now), FILE:POSITION, or a GTID. Throws
 * POSITION_LOST when the server does not have it, COMMAND_REFUSED when it is no place to begin at.
 */
export async function findNewPlace(settings: SourceSettings, from: string): Promise<NewPlace> {
  const startPosition = from === "current" ? null : from;
  await using control = await openControl(settings);
  const facts = await readServerFacts(control);
  const first = await startWithoutCheckpoint(control, { ...settings, startPosition }, facts);
  let { file, position, resumePosition } = first.from;
  if (first.dump.kind === "gtid") {
    try {
      ({ file, position } = await firstPlace({
        connection: connectionOptions(settings, facts.encrypted),
        serverId: settings.serverId,
        start: first.dump,
        heartbeatMs: HEARTBEAT_MS,
      }));
    } catch (thrown) {
      if (!(thrown instanceof AgentError) || !isDumpRefused(thrown)) throw thrown;
      throw (await gtidLoss(control, facts, from)) ?? thrown;
    }
    resumePosition = position;
  } else if (startPosition !== null) await refuseInside(control, file, position);
  return {
    formatVersion: STATE_FORMAT_VERSION,
    file,
    position,
    resumePosition,
    gtidSet: first.from.gtidSet,
    serverId: facts.serverId,
    serverUuid: facts.serverUuid,
    lastTransaction: null,
    partial: null,
  };
}

/** The server itself refuses a place between no two events; inside a transaction it would not. */
async function refuseInside(control: ControlConnection, file: string, position: number): Promise<void> {
  let type: string;
  try {
    const [event] = await control.query("SHOW BINLOG EVENTS IN ? FROM ? LIMIT 1", [file, position]);
    if (event === undefined) return;
    type = `${textOf(event, "Event_type")}: ${textOf(event, "Info")}`;
  } catch (cause) {
    throw new AgentError("COMMAND_REFUSED", `no event starts at ${file}:${position}`, {
      cause,
      hint: `SHOW BINLOG EVENTS IN '${file}' names the places; a transaction starts at its Gtid event.`,
    });
  }
  if (!insideTransaction.test(type)) return;
  throw new AgentError(
    "COMMAND_REFUSED",
    `${file}:${position} lies inside a transaction (${type.split(":")[0] ?? ""})`,
    { hint: `SHOW BINLOG EVENTS IN '${file}' names the places; a transaction starts at its Gtid event.` },
  );
}

/** Where the first event of a dump stands that the dump was asked for, or its end when there is none. */
function firstPlace(dump: DumpOptions): Promise<{ readonly file: string; readonly position: number }> {
  return new Promise((resolve, reject) => {
    let file = "";
    const timer = setTimeout(() => {
      connection.close();
      reject(new AgentError("SOURCE_UNREACHABLE", "the server did not name the place of the GTID in time"));
    }, LOOK_MS);
    const connection = new DumpConnection(dump, {
      event: (buffer, start, end) => {
        const what = actionOf(eventTypeAt(buffer, start));
        if (what === action.rotate) {
          // A checksum behind the name, where there is one, is cut off with what is no name.
          const { file: named } = rotateTarget(buffer, start, end);
          file = /^.*?\.\d+/.exec(named)?.[0] ?? named;
        }
        const isGroup = what === action.mariadbGtid || what === action.mysqlGtid;
        if (!(isGroup && !isArtificial(buffer, start)) && what !== action.heartbeat) return;
        const endLow = eventEndLow(buffer, start);
        const position = isGroup ? endLow - eventLength(buffer, start) : endLow;
        if (file === "" || position < HEADER_BYTES || endLow > POSITION_32_MAX) return;
        clearTimeout(timer);
        connection.close();
        resolve({ file, position });
      },
      failed: (error) => {
        clearTimeout(timer);
        reject(error);
      },
    });
    connection.open();
  });
}
