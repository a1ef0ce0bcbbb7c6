/** Asks the server what became of a position that is lost, so that the operator reads its right name. */
import type { Checkpoint } from "../change.ts";
import type { AgentError } from "../kernel/errors.ts";
import { action, actionOf, eventTimestamp, eventTypeAt, FILE_START } from "./binlog-event.ts";
import { connectionOptions, type ControlConnection, openControl, textOf } from "./control-connection.ts";
import { DumpConnection, type DumpOptions } from "./dump-connection.ts";
import { missingGtids } from "./failover.ts";
import { nameLoss, positionLost } from "./position-loss.ts";
import { readBinlogFiles, readServerFacts, type ServerFacts } from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";
import { isDumpRefused } from "./source-errors.ts";

const HEARTBEAT_MS = 5_000;

/**
 * What a failure means for a checkpoint: a refused dump, and bytes that are no events on the way to
 * where it stands, say that the position is lost. Anything else is given back as it is.
 */
export function asLoss(failure: AgentError, from: Checkpoint, onTheWay: boolean): AgentError {
  const place = from.file === "" ? `GTID ${from.gtidSet ?? ""}` : `${from.file}:${from.resumePosition}`;
  if (isDumpRefused(failure) && failure.code === "SOURCE_UNREACHABLE") {
    return positionLost("refused", `the server refuses to stream from ${place}: ${failure.message}`, failure);
  }
  if (failure.code === "SOURCE_UNREADABLE" && onTheWay) {
    return positionLost(
      "other_history",
      `what stands before ${from.file}:${from.position} is not what was read there (${failure.message})`,
      failure,
    );
  }
  return failure;
}

/** The loss by its right name. Rejects when the server cannot be asked. */
export async function askAboutLoss(
  lost: AgentError,
  from: Checkpoint,
  settings: SourceSettings,
): Promise<AgentError> {
  await using control = await openControl(settings);
  const facts = await readServerFacts(control);
  if (from.file === "") return (await gtidLoss(control, facts, from.gtidSet ?? "")) ?? lost;
  return nameLoss(lost, from, {
    files: await readBinlogFiles(control),
    createdSeconds: (file) =>
      fileCreatedSeconds({
        connection: connectionOptions(settings, facts.encrypted),
        serverId: settings.serverId,
        start: { kind: "position", file, position: FILE_START },
        heartbeatMs: HEARTBEAT_MS,
      }),
  });
}

/** When a binlog file was created: its first event says so. Null when it cannot be read. */
export function fileCreatedSeconds(dump: DumpOptions): Promise<number | null> {
  return new Promise((resolve) => {
    const connection = new DumpConnection(dump, {
      event: (buffer, start) => {
        if (actionOf(eventTypeAt(buffer, start)) !== action.format) return;
        const seconds = eventTimestamp(buffer, start);
        connection.close();
        resolve(seconds);
      },
      failed: () => resolve(null),
    });
    connection.open();
  });
}

/** Why a server does not stream from a GTID; null when it should. */
export async function gtidLoss(
  control: ControlConnection,
  facts: ServerFacts,
  gtidSet: string,
): Promise<AgentError | null> {
  const missing = await missingGtids(control, facts.flavour, gtidSet);
  if (missing !== "") return positionLost("gtid_unknown", `the server has never had GTID ${missing}`);
  if (facts.flavour === "mariadb") {
    // It says no more than that it does not find the place.
    return positionLost("gtid_purged", `the server has purged what follows on GTID ${gtidSet}`);
  }
  const [row] = await control.query("SELECT GTID_SUBTRACT(@@GLOBAL.gtid_purged, ?) AS lacking", [gtidSet]);
  const lacking = textOf(row, "lacking");
  if (lacking === "") return null;
  return positionLost("gtid_purged", `the server has purged GTID ${lacking}, which follows on ${gtidSet}`);
}
