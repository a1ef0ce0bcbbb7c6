/**
 * What is to be read beside the stream, by settings and by the operator's word. The source reads it
 * (source/snapshot/), and the checkpoint holds how far it is.
 */
import { awaitsAllRows, withJobs } from "./snapshot-jobs.ts";
import type { Checkpoint, SnapshotProgress, SnapshotReason, SnapshotScope, WantedJob } from "./change.ts";
import type { Settings } from "./config/settings-table.ts";
import { AgentError } from "./kernel/errors.ts";
import type { RowsFacts } from "./observe/facts.ts";
import type { SpoolStats, SpoolWriter } from "./ports.ts";
import type { EntityMapping, Mapping } from "./transform/mapping.ts";

/** Most keys that one resync names: they stand in every checkpoint until it is done. */
export const RESYNC_KEYS_MAX = 500;
/** Jobs that wait, for the same reason. */
const JOBS_MAX = 100;

export function wholeTables(mapping: Mapping, reason: SnapshotReason): WantedJob[] {
  return mapping.entities.map(({ table }) => wholeTable(table, reason));
}

export function wholeTable(table: string, reason: SnapshotReason): WantedJob {
  return { table, reason, scope: { kind: "all" }, topic: null };
}

/** What has to be read for the index, beside the jobs that are asked for anyway. */
export interface IndexWants {
  wanted: (after: Checkpoint | null, others: readonly WantedJob[]) => readonly WantedJob[];
}

/**
 * What SNAPSHOT_MODE asks for where the stream begins, and the index in each of its modes. A table of
 * which not all rows were read is asked for, also one that came into the mapping later, and again where
 * it could not be read. A loop that begins again before its wish was on disk asks for the same; `always`
 * asks for all tables once in the life of the process.
 */
export function snapshotsAtStart(
  settings: RowSettings,
  index: IndexWants,
): (mapping: Mapping, after: Checkpoint | null) => readonly WantedJob[] {
  const rows = rowsAtStart(settings);
  return (mapping, after) => {
    const wanted = rows(mapping, after);
    return [...wanted, ...index.wanted(after, wanted)];
  };
}

type RowSettings = Pick<Settings, "snapshotMode" | "startPosition">;

function rowsAtStart(
  settings: RowSettings,
): (mapping: Mapping, after: Checkpoint | null) => readonly WantedJob[] {
  const { snapshotMode } = settings;
  const isTrusted = trustedBy(settings) !== null;
  let atStart: number | null = null;
  return (mapping, after) => {
    if (snapshotMode === "never") return [];
    const generation = after?.snapshot?.generation ?? 0;
    atStart ??= generation;
    if (snapshotMode === "always" && generation === atStart) return wholeTables(mapping, "always");
    return unread(mapping, after?.snapshot, isTrusted)
      .filter((table) => !awaitsAllRows(after?.snapshot, table))
      .map((table) => wholeTable(table, after?.snapshot?.lost?.[table] === undefined ? "initial" : "resync"));
  };
}

/** By which setting an operator vouches for what was there before the agent; null: by none. */
function trustedBy({ snapshotMode, startPosition }: RowSettings): RowsFacts["trusted"] {
  if (snapshotMode === "never") return "SNAPSHOT_MODE=never";
  // Who names a place to begin at has what was before it.
  return snapshotMode === "initial" && startPosition !== null ? "START_POSITION" : null;
}

/** Tables of which not all rows were read. Trusted: what was there before the agent is no business of its own, only what was lost since. */
function unread(mapping: Mapping, progress: SnapshotProgress | undefined, isTrusted: boolean): string[] {
  const { complete = [], lost = {} } = progress ?? {};
  const tables = mapping.entities.map(({ table }) => table);
  return tables.filter((table) => (isTrusted ? table in lost : !complete.includes(table)));
}

/** What consumers can have of the rows that were there before the agent, or whose history was lost. */
export function rowsFacts(
  settings: RowSettings,
  mapping: Mapping,
  progress: SnapshotProgress | undefined,
): RowsFacts {
  const trusted = trustedBy(settings);
  const jobs = progress?.jobs ?? [];
  return {
    unread: unread(mapping, progress, trusted !== null),
    isReading: jobs.some(({ purpose = "rows", topic }) => purpose === "rows" && topic === null),
    // Nobody has to vouch for what was read anyway.
    trusted: unread(mapping, progress, false).length === 0 ? null : trusted,
  };
}

/** Why no rows may be read now: live changes need what room there is first. */
export function mayReadRows(stats: SpoolStats): string | null {
  if (stats.intake !== "open") return "the spool takes nothing at the moment";
  return stats.directoryBytes > stats.bytesMax / 2 ? "the spool is half full" : null;
}

/** What is asked to be read again, for its events or for digests of it. */
export interface JobRequest {
  readonly entity: string;
  readonly scope: SnapshotScope;
  readonly purpose: "rows" | "digests";
}

/** What an operator asks to read again. */
export interface ResyncRequest {
  readonly entity: string;
  readonly scope: SnapshotScope;
  readonly topic: string | null;
}

export interface ResyncAccepted {
  readonly entity: string;
  readonly generation: number;
  /** Jobs before it. */
  readonly ahead: number;
}

type State = Pick<SpoolWriter, "checkpoint" | "append">;

/** Adds a resync to the state; capture must be at rest. Throws COMMAND_REFUSED. */
export async function addResync(
  state: State,
  mapping: Mapping,
  { entity, scope, topic }: ResyncRequest,
): Promise<ResyncAccepted> {
  const { table } = fitEntity(mapping, entity, scope);
  const { generation, jobs } = await change(state, (before) =>
    withJobs(before, [{ table, reason: "resync", scope, topic }]),
  );
  return { entity, generation, ahead: jobs.length - 1 };
}

/** Adds jobs in their order, all of them or none; capture must be at rest. Throws COMMAND_REFUSED. */
export async function addJobs(
  state: State,
  mapping: Mapping,
  requests: readonly JobRequest[],
): Promise<readonly ResyncAccepted[]> {
  const wanted = requests.map(({ entity, scope, purpose }): WantedJob => {
    const { table } = fitEntity(mapping, entity, scope);
    const reason = purpose === "digests" ? "verify" : "resync";
    return { table, reason, scope, topic: null, ...(purpose === "rows" ? {} : { purpose }) };
  });
  const { generation, jobs } = await change(state, (before) => withJobs(before, wanted));
  return requests.map(({ entity }, index) => {
    const behind = requests.length - 1 - index;
    return { entity, generation: generation - behind, ahead: jobs.length - 1 - behind };
  });
}

function fitEntity(mapping: Mapping, name: string, scope: SnapshotScope): EntityMapping {
  const entity = mapping.entities.find((one) => one.entity === name);
  if (entity === undefined) {
    throw new AgentError("COMMAND_REFUSED", `the mapping has no entity "${name}"`, {
      hint: `It has: ${mapping.entities.map((one) => one.entity).join(", ")}.`,
    });
  }
  refuseUnfit(entity, scope);
  return entity;
}

/** Pauses or goes on; capture must be at rest. */
export async function pauseReading(state: State, paused: boolean): Promise<SnapshotProgress> {
  return change(state, (before) => ({ ...withJobs(before, []), paused }));
}

async function change(
  state: State,
  make: (before: SnapshotProgress | undefined) => SnapshotProgress,
): Promise<SnapshotProgress> {
  const checkpoint = state.checkpoint();
  if (checkpoint === null) {
    throw new AgentError("COMMAND_REFUSED", "the state has no position yet", {
      hint: "Start the agent first.",
    });
  }
  const snapshot = make(checkpoint.snapshot);
  if (snapshot.jobs.length > JOBS_MAX) {
    throw new AgentError("COMMAND_REFUSED", `${JOBS_MAX} resyncs wait already`, {
      hint: "Wait until some are done: magento-edge-agent status.",
    });
  }
  // Whoever asked is told that it is taken, so no crash may lose it.
  await state.append({ events: [], checkpoint: { ...checkpoint, snapshot }, durable: true });
  return snapshot;
}

function refuseUnfit({ entity, keys }: EntityMapping, scope: SnapshotScope): void {
  if (scope.kind === "range" && keys.length !== 1) {
    throw new AgentError(
      "COMMAND_REFUSED",
      `the key of ${entity} has ${keys.length} parts, so it has no range`,
      {
        hint: "Name keys, or read all.",
      },
    );
  }
  if (scope.kind !== "keys") return;
  if (scope.keys.length > RESYNC_KEYS_MAX) {
    throw new AgentError("COMMAND_REFUSED", `${scope.keys.length} keys are more than ${RESYNC_KEYS_MAX}`, {
      hint: "Name a range, or ask in parts.",
    });
  }
  const unfit = scope.keys.find((key) => keys.length > 1 && key.split(":").length !== keys.length);
  if (unfit !== undefined) {
    throw new AgentError(
      "COMMAND_REFUSED",
      `"${unfit}" is no key of ${entity}: that has ${keys.length} parts`,
      {
        hint: `As in magento_id: ${keys.join(":")}.`,
      },
    );
  }
}
