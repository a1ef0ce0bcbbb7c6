/** The list of what is to be read: jobs are added behind it, and the first is replaced as it goes on. */
import type { SnapshotJob, SnapshotProgress, WantedJob } from "./change.ts";

type ProgressBefore = Omit<SnapshotProgress, "hasRows"> & { readonly hasRows?: boolean };

/** The progress with jobs behind those that are there. */
export function withJobs(
  progress: SnapshotProgress | undefined,
  wanted: readonly WantedJob[],
): SnapshotProgress {
  const { hasRows = true, ...before }: ProgressBefore = progress ?? {
    generation: 0,
    paused: false,
    jobs: [],
    hasRows: false,
  };
  const made = wanted.map((job, index): SnapshotJob => ({
    ...job,
    generation: before.generation + index + 1,
    begun: null,
    after: null,
    rows: 0,
  }));
  const rowsCome = hasRows || wanted.some(({ purpose = "rows" }) => purpose === "rows");
  return {
    ...before,
    generation: before.generation + made.length,
    jobs: [...before.jobs, ...made],
    ...(rowsCome ? {} : { hasRows: false }),
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
