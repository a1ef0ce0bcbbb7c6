/** What the log says of a snapshot or resync: its begin, how far it is from time to time, its end. */
import type { BegunJob, SnapshotJob } from "../../change.ts";
import type { Clock, Log } from "../../kernel/service.ts";
import { secondsLeft, type SnapshotStatus } from "../../ports.ts";

/** How often a long reading says how far it is. */
const SAY_EVERY_MS = 30_000;

export interface GivenChunk {
  readonly job: BegunJob;
  readonly isFirst: boolean;
  /** Set with the job's last chunk. */
  readonly done: SnapshotJob | null;
  /** Jobs that are not done. */
  readonly jobsLeft: number;
}

export class ReadingLog {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #log: Log;
  #saidAtMs = 0;
  #waitsFor: string | null = null;

  constructor({ clock, log }: { readonly clock: Pick<Clock, "monotonicMs">; readonly log: Log }) {
    this.#clock = clock;
    this.#log = log;
  }

  /** `status` is that of the reading now, null when nothing is left. */
  given({ job, isFirst, done, jobsLeft }: GivenChunk, status: SnapshotStatus | null): void {
    const about = { table: job.table, reason: job.reason, generation: job.generation };
    const what = job.purpose === "index" ? "keys" : "rows";
    this.#waitsFor = null;
    if (isFirst) {
      this.#saidAtMs = this.#clock.monotonicMs();
      this.#log.notice(`${what} are being read`, { ...about, estimated: job.begun.rowsEstimated });
    }
    if (done === null) {
      this.#sayHowFar(about, status);
      return;
    }
    this.#log.notice(`all ${what} were read`, { ...about, rows: done.rows });
    if (jobsLeft === 0 && what === "rows") this.#log.notice("the snapshot is complete");
  }

  /** No rows may be read now: said once, until some are read again. */
  waits(table: string, reason: string): void {
    if (this.#waitsFor === reason) return;
    this.#waitsFor = reason;
    this.#log.notice("the reading of rows waits", { table, reason });
  }

  /** Rows that no row event told of can stand in the table now. */
  replaced(table: string, statement: string, isReadAgain: boolean): void {
    const about = { table, because: statement };
    if (isReadAgain) this.#log.notice("other rows can stand in a table now; it is read again", about);
    else
      this.#log.error("other rows can stand in a table now, and nothing reads them", {
        ...about,
        hint: "What consumers have of it is void: resync its entity with --all.",
      });
  }

  /** An ALTER TABLE changed values, as far as can be told; `statement` null: it cannot be. */
  altered(table: string, statement: string | null, isReadAgain: boolean): void {
    const about = { table, ...(statement === null ? {} : { because: statement }) };
    const hint = "Resync its entity with --all.";
    if (isReadAgain) this.#log.notice("the table was altered; it is read again", about);
    else if (statement === null)
      this.#log.warn("the table was altered, and how its columns were before is not known", {
        ...about,
        hint,
      });
    else
      this.#log.error("the values of a table can be others since it was altered, and nothing reads them", {
        ...about,
        hint,
      });
  }

  unaltered(table: string): void {
    this.#log.info("the table was altered, but for its followed columns; its rows are not read again", {
      table,
    });
  }

  beginsAgain(table: string): void {
    this.#log.notice("the table has other columns than at the begin of its reading; it begins again", {
      table,
    });
  }

  #sayHowFar(about: Readonly<Record<string, string | number>>, status: SnapshotStatus | null): void {
    const nowMs = this.#clock.monotonicMs();
    if (status === null || nowMs - this.#saidAtMs < SAY_EVERY_MS) return;
    this.#saidAtMs = nowMs;
    const left = secondsLeft(status);
    this.#log.notice("rows are read", {
      ...about,
      rows: status.rows,
      estimated: status.rowsEstimated ?? undefined,
      rowsPerSecond: Math.round(status.rowsPerSecond),
      ...(left === null ? {} : { secondsLeft: Math.round(left) }),
      more: status.waiting,
    });
  }
}
