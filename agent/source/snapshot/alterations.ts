/**
 * ALTER TABLE changes values without a row event. Behind each, a job looks whether the table's followed
 * columns are what they were: a chunk of one row, which counts only where no other such statement came
 * before its high mark. Only where they are others is the table read again.
 */
import type { SnapshotJob, SnapshotProgress, TableEvent } from "../../change.ts";
import { readsAllRows, withJobs } from "../../snapshot-jobs.ts";

const isLookAt = (table: string) => (job: SnapshotJob) =>
  job.table === table && job.unlessShape !== undefined;

/** The progress with a look at the table; "read" where it has to be read whatever a look would find. */
export function afterAlter(
  progress: SnapshotProgress | undefined,
  table: string,
  redefines: TableEvent["redefines"],
): SnapshotProgress | undefined | "read" {
  const jobs = progress?.jobs ?? [];
  // What has not begun reads all rows as they are behind the statement.
  if (jobs.some((job) => job.table === table && job.begun === null && readsAllRows(job))) return progress;
  if (redefines === "twice") return "read";
  // Two statements before a look: the second may have put back what the first took, but not the values.
  if (jobs.some(isLookAt(table))) return redefines === undefined ? progress : "read";
  const unlessShape = progress?.shapes?.[table] ?? "";
  return withJobs(progress, [{ table, reason: "resync", scope: { kind: "all" }, topic: null, unlessShape }]);
}

/** The progress without looks at the table: all of its rows are read from now on. */
export function withoutLooks(
  progress: SnapshotProgress | undefined,
  table: string,
): SnapshotProgress | undefined {
  if (progress?.jobs.some(isLookAt(table)) !== true) return progress;
  const isLook = isLookAt(table);
  return { ...progress, jobs: progress.jobs.filter((job) => !isLook(job)) };
}

/** The progress that knows this shape of the table. */
export function withShape(
  progress: SnapshotProgress | undefined,
  table: string,
  shape: string,
): SnapshotProgress | undefined {
  return progress === undefined ? undefined : { ...progress, shapes: { ...progress.shapes, [table]: shape } };
}
