/** What the agent itself does when a part of the history is lost: it reads the tables anew. */
import type { Settings } from "./config/settings-table.ts";
import { type AgentError, asError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import { type IndexRecords, voidedStates } from "./index-upkeep.ts";
import type { MappingInUse } from "./mapping-in-use.ts";
import { type Beginning, beginAnew } from "./new-beginning.ts";
import type { SpoolWriter } from "./ports.ts";
import type { SnapshotJob, SnapshotProgress } from "./change.ts";
import { awaitsAllRows, restarted, withJobs, withLoss } from "./snapshot-jobs.ts";
import { wholeTable, wholeTables } from "./snapshots.ts";
import { isLossOfSameServer } from "./source/position-loss.ts";
import type { EntityMapping, Mapping } from "./transform/mapping.ts";
import type { Transform } from "./transform/transform.ts";

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
  const followed = mapped.mapping.entities.map(({ table }) => table);
  const placeAt = (place: string) => source.placeAt(place);
  const voidIndex = () => voidedStates(spool.index, transform.index.relations);
  return beginAnew({ spool, transform, placeAt, followed, wanted, voidIndex, nowMs: clock.wallMs() }, from);
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

/** What is to be read from now on. */
export interface ReadAgain {
  readonly progress: SnapshotProgress;
  /** Whether something makes up for what was lost: with SNAPSHOT_MODE=never nothing does. */
  readonly isHealing: boolean;
}

/**
 * Events of a topic are lost: what is being read for it begins again, and entities that are told of on
 * it are read as a whole, unless they wait for that already. Of what `resync --to-topic` had sent there
 * before, nothing is known any more.
 */
export function afterLossOf(
  topic: string,
  progress: SnapshotProgress | undefined,
  { settings, mapped }: { readonly settings: Pick<Settings, "snapshotMode">; readonly mapped: MappedTopics },
): ReadAgain {
  const { entities } = mapped.rooms.transform.topics;
  const isTold = ({ entity }: EntityMapping): boolean => entities[entity] === topic;
  const tables = mapped.mapping.entities.filter(isTold).map(({ table }) => table);
  const isToldThere = ({ purpose, table, topic: other }: SnapshotJob): boolean =>
    purpose !== "index" && (other === null ? tables.includes(table) : other === topic);
  const after = readAnew(restarted(progress, isToldThere), tables, settings);
  const isElsewhere = after.jobs.some((job) => job.topic === topic);
  return {
    progress: after,
    isHealing: tables.length === 0 ? isElsewhere : tables.every((table) => awaitsAllRows(after, table)),
  };
}

/**
 * Rows of the tables can differ from what was told of them, and no event will come for it: that is noted,
 * and those that do not wait to be read as a whole already are, unless SNAPSHOT_MODE=never. What is under
 * way there has to begin again before.
 */
export function readAnew(
  progress: SnapshotProgress | undefined,
  tables: readonly string[],
  { snapshotMode }: Pick<Settings, "snapshotMode">,
): SnapshotProgress {
  const lost = withLoss(progress, tables);
  const lacking = tables.filter((table) => !awaitsAllRows(lost, table));
  return withJobs(lost, snapshotMode === "never" ? [] : lacking.map((table) => wholeTable(table, "resync")));
}

interface MappedTopics {
  readonly mapping: Mapping;
  readonly rooms: { readonly transform: Pick<Transform, "topics"> };
}
