/** The list of what is to be read: jobs are added behind it, and the first is replaced as it goes on. */
import type { SnapshotJob, SnapshotProgress, WantedJob } from "./change.ts";
import type { SnapshotStatus } from "./ports.ts";

const nothing: SnapshotProgress = { generation: 0, paused: false, jobs: [] };

/** The progress with jobs behind those that are there. */
export function withJobs(
  progress: SnapshotProgress | undefined,
  wanted: readonly WantedJob[],
): SnapshotProgress {
  const before = progress ?? nothing;
  const made = wanted.map((job, index): SnapshotJob => ({
    ...job,
    generation: before.generation + index + 1,
    begun: null,
    after: null,
    rows: 0,
  }));
  return {
    ...before,
    generation: before.generation + made.length,
    jobs: [...before.jobs, ...made],
  };
}

/** The progress with its first job in its new state, or without it. */
export function replaced(
  progress: SnapshotProgress | undefined,
  job: SnapshotJob | null,
): SnapshotProgress | undefined {
  if (progress === undefined) return undefined;
  return { ...progress, jobs: [...(job === null ? [] : [job]), ...progress.jobs.slice(1)] };
}

/** The progress with jobs that were asked for behind it, as far as it does not know them: they begin again. */
export function withAsked(
  progress: SnapshotProgress | undefined,
  asked: readonly SnapshotJob[],
): SnapshotProgress | undefined {
  const before = progress ?? nothing;
  const unknown = asked.filter(({ generation }) => generation > before.generation);
  const newest = unknown.at(-1);
  if (newest === undefined) return progress;
  return { ...before, generation: newest.generation, jobs: [...before.jobs, ...unknown.map(fromTheStart)] };
}

/** The progress with such jobs at their beginning again, where they are under way. */
export function restarted(
  progress: SnapshotProgress | undefined,
  isMeant: (job: SnapshotJob) => boolean,
): SnapshotProgress | undefined {
  if (progress?.jobs.some((job) => job.begun !== null && isMeant(job)) !== true) return progress;
  const jobs = progress.jobs.map((job) => (job.begun !== null && isMeant(job) ? fromTheStart(job) : job));
  return { ...progress, jobs };
}

/** The job as it was before its first row. */
export function fromTheStart(job: SnapshotJob): SnapshotJob {
  return { ...job, begun: null, after: null, rows: 0 };
}

/** The progress without its first job, which has read all that it was asked for. */
export function completed(
  progress: SnapshotProgress | undefined,
  job: SnapshotJob,
): SnapshotProgress | undefined {
  const left = replaced(progress, null);
  const { table, generation } = job;
  // One that had begun before a loss has read some of its rows before it.
  if (left === undefined || !readsAllRows(job) || generation <= (left.lost?.[table] ?? 0)) return left;
  const { complete = [], lost = {}, ...others } = left;
  return {
    ...others,
    complete: [...complete.filter((name) => name !== table), table],
    ...lostOf(lost, (name) => name !== table),
  };
}

/** The progress after a part of the tables' history was lost: only jobs that begin from now on make up for it. */
export function withLoss(
  progress: SnapshotProgress | undefined,
  tables: readonly string[],
): SnapshotProgress {
  const { complete = [], lost = {}, ...others } = progress ?? nothing;
  const [first] = others.jobs;
  const begun = first === undefined ? others.generation : first.generation - (first.begun === null ? 1 : 0);
  const now = Object.fromEntries(tables.map((table) => [table, begun]));
  return {
    ...others,
    complete: complete.filter((table) => !tables.includes(table)),
    lost: { ...lost, ...now },
  };
}

/**
 * The progress of the tables that are followed now. What changes while a table is not followed nobody
 * reads, so of one that left the mapping nothing is known when it comes back.
 */
export function ofFollowed(
  progress: SnapshotProgress | undefined,
  tables: readonly { readonly table: string }[],
): SnapshotProgress | undefined {
  if (progress?.complete === undefined && progress?.lost === undefined) return progress;
  const followed = new Set(tables.map(({ table }) => table));
  const { complete = [], lost = {}, ...others } = progress;
  return {
    ...others,
    complete: complete.filter((table) => followed.has(table)),
    ...lostOf(lost, (table) => followed.has(table)),
  };
}

/** Those of the tables, as the progress has them: not at all where there are none. */
function lostOf(
  lost: Readonly<Record<string, number>>,
  isMeant: (table: string) => boolean,
): Pick<SnapshotProgress, "lost"> {
  const meant = Object.entries(lost).filter(([table]) => isMeant(table));
  return meant.length === 0 ? {} : { lost: Object.fromEntries(meant) };
}

/** Whether it reads all rows of its table for everybody who follows the entity. */
export function readsAllRows({ scope, purpose = "rows", topic, unlessShape }: WantedJob): boolean {
  return scope.kind === "all" && purpose === "rows" && topic === null && unlessShape === undefined;
}

/** Whether a job that waits will make up for all that the table may lack. */
export function awaitsAllRows(progress: SnapshotProgress | undefined, table: string): boolean {
  const lostAt = progress?.lost?.[table] ?? 0;
  return (progress?.jobs ?? []).some(
    (job) => job.table === table && readsAllRows(job) && job.generation > lostAt,
  );
}

/** For status and metrics; null while there is nothing to read. */
export function statusOf(
  progress: SnapshotProgress | undefined,
  now: Pick<SnapshotStatus, "rowsPerSecond" | "waitsFor">,
): SnapshotStatus | null {
  const [job] = progress?.jobs ?? [];
  if (progress === undefined || job === undefined) return null;
  return {
    table: job.table,
    reason: job.reason,
    purpose: job.purpose ?? "rows",
    generation: job.generation,
    rows: job.rows,
    rowsEstimated: job.begun?.rowsEstimated ?? null,
    waiting: progress.jobs.length - 1,
    paused: progress.paused,
    ...now,
  };
}

/** What waits while nothing is captured, or is on its way to the disk. */
export function statusAtRest(progress: SnapshotProgress | undefined): SnapshotStatus | null {
  return statusOf(progress, { rowsPerSecond: 0, waitsFor: "the stream" });
}
