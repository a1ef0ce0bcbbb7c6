/**
 * Jobs of snapshots and resyncs that were asked for behind the place up to which everything was
 * delivered. A database that is made anew from the marker begins at that place, which knows nothing of
 * them; also of those that are done it may have held what was not delivered yet.
 */
import type { Checkpoint, SnapshotJob } from "../change.ts";

/** With more of them whole tables take their place. */
const ASKED_MAX = 200;

export class AskedJobs {
  #jobs: readonly SnapshotJob[] = [];
  #generation = 0;

  /** What the marker had. */
  restore(jobs: readonly SnapshotJob[]): void {
    this.#jobs = jobs;
    this.#generation = jobs.at(-1)?.generation ?? 0;
  }

  /** The state has this checkpoint now. */
  note({ snapshot }: Checkpoint): void {
    if (snapshot === undefined || snapshot.generation <= this.#generation) return;
    const made = snapshot.jobs.filter(({ generation }) => generation > this.#generation);
    this.#generation = snapshot.generation;
    if (made.length > 0) this.#jobs = bounded([...this.#jobs, ...made]);
  }

  /** Those that the checkpoint does not know, in their order; the same list while nothing changes. */
  behind(delivered: Checkpoint | null): readonly SnapshotJob[] {
    const known = delivered?.snapshot?.generation ?? 0;
    if (this.#jobs.some(({ generation }) => generation <= known))
      this.#jobs = this.#jobs.filter(({ generation }) => generation > known);
    return this.#jobs;
  }
}

function bounded(jobs: readonly SnapshotJob[]): readonly SnapshotJob[] {
  if (jobs.length <= ASKED_MAX) return jobs;
  const whole = new Map<string, SnapshotJob>();
  for (const job of jobs) {
    const name = JSON.stringify([job.table, job.purpose ?? "rows", job.topic, job.unlessShape !== undefined]);
    whole.delete(name);
    whole.set(name, { ...job, scope: { kind: "all" } });
  }
  return [...whole.values()].slice(-ASKED_MAX);
}
