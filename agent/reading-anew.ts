/** What the agent itself does when a part of the history is lost: it reads the tables anew. */
import type { CaptureRounds } from "./capture-rounds.ts";
import type { Settings } from "./config/settings-table.ts";
import { type AgentError, asError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import { type IndexRecords, voidedStates } from "./index-upkeep.ts";
import type { MappingInUse } from "./mapping-in-use.ts";
import { type Beginning, beginAnew } from "./new-beginning.ts";
import type { SpoolWriter } from "./ports.ts";
import { addResync, wholeTables } from "./snapshots.ts";
import { isLossOfSameServer } from "./source/position-loss.ts";

interface AnewParts {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Log;
}

interface AnewRooms {
  readonly spool: Pick<SpoolWriter, "checkpoint" | "append"> & { readonly index: IndexRecords };
  readonly mapped: MappingInUse;
}

/** Begins a new epoch at another place; all rows are read again unless SNAPSHOT_MODE=never. */
export function beginAnewWith(
  { settings, clock }: AnewParts,
  { spool, mapped }: AnewRooms,
  from: string,
): Promise<Beginning> {
  const { transform, source } = mapped.rooms;
  const wanted = settings.snapshotMode === "never" ? [] : wholeTables(mapped.mapping, "position-lost");
  const placeAt = (place: string) => source.placeAt(place);
  const voidIndex = () => voidedStates(spool.index, transform.index.relations);
  return beginAnew({ spool, transform, placeAt, wanted, voidIndex, nowMs: clock.wallMs() }, from);
}

/** ON_POSITION_LOST=resnapshot. Where it may be the wrong server that answers, an operator decides. */
export async function mendLoss(
  { settings, log }: AnewParts,
  halt: AgentError,
  beginAt: (from: string) => Promise<Beginning>,
): Promise<boolean> {
  const { onPositionLost, snapshotMode } = settings;
  if (halt.code !== "POSITION_LOST" || onPositionLost !== "resnapshot" || snapshotMode === "never")
    return false;
  if (!isLossOfSameServer(halt)) return false;
  try {
    const { epoch, from, to } = await beginAt("current");
    log.notice("a new epoch begins, and all rows are read again, because the position is lost", {
      epoch,
      from,
      to,
    });
    return true;
  } catch (error) {
    log.warn("the new epoch cannot begin yet", { reason: asError(error).message });
    return false;
  }
}

export async function resyncTopic(
  { spool, mapped, capture, log }: AnewRooms & { readonly capture: CaptureRounds; readonly log: Log },
  topic: string,
): Promise<void> {
  const { entities } = mapped.rooms.transform.topics;
  for (const entity of Object.keys(entities).filter((name) => entities[name] === topic)) {
    const request = { entity, scope: { kind: "all" }, topic: null } as const;
    try {
      await capture.atRest(async () => void (await addResync(spool, mapped.mapping, request)), true);
    } catch (error) {
      log.error("an entity whose events are lost is not read again: ask for its resync", {
        entity,
        reason: asError(error).message,
      });
    }
  }
}
