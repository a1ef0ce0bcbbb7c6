/**
 * Weaves chunks of rows into the stream (design: first snapshot and resync). One chunk at a time: it
 * is read beside the stream while the window remembers what the stream says of its table, and given
 * once the stream has delivered everything up to its high mark. Its rows are then those of exactly
 * that place, so by their sequence they are newer than every change up to there and older than every
 * later one, wherever in the spool they come to stand.
 *
 * Nothing is held back for it: the stream never waits for a chunk.
 */
import type {
  BegunJob,
  Checkpoint,
  FollowedTable,
  Progress,
  SnapshotChunk,
  SnapshotJob,
  SnapshotProgress,
  SourceItem,
  TableEvent,
} from "../../change.ts";
import type { AgentError } from "../../kernel/errors.ts";
import {
  awaitsAllRows,
  completed,
  fromTheStart,
  readsAllRows,
  replaced,
  restarted,
  statusOf,
} from "../../snapshot-jobs.ts";
import type { SnapshotStatus } from "../../ports.ts";
import { translateError } from "../source-errors.ts";
import { comparePositions } from "../stream-position.ts";
import { afterAlter, withoutLooks, withShape } from "./alterations.ts";
import { ChunkReader, type OpenTable, type ReadChunk } from "./chunk-reader.ts";
import { rangeRule } from "./key-range.ts";
import { CHUNK_ROWS_MAX, Pace } from "./pace.ts";
import { ReadingLog } from "./reading-log.ts";
import { isComparable, isReshaping, shapeOf } from "./shape.ts";
import { SnapshotRate } from "./snapshot-rate.ts";
import type { StreamView, UnderWay, WeaveParts } from "./weave-parts.ts";
import { type Flaw, Window } from "./window.ts";

const LOOK_AGAIN_MS = 20;
const BLOCKED_MS = 500;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 30_000;
/** What no later try mends: the job ends without having been read. */
const hopeless: ReadonlySet<string> = new Set(["SOURCE_UNSUITABLE", "SOURCE_UNREADABLE", "USAGE"]);

export class SnapshotWeave {
  readonly #parts: WeaveParts;
  readonly #log: ReadingLog;
  readonly #rate: SnapshotRate;
  readonly #pace: Pace;
  #progress: SnapshotProgress | undefined;
  #reader: ChunkReader | null = null;
  #table: OpenTable | null = null;
  #underWay: UnderWay | null = null;
  #retryMs = RETRY_MS;
  #waitsFor: string | null = null;
  #looks = false;
  readonly #ending = new AbortController();

  constructor(parts: WeaveParts, progress: SnapshotProgress | undefined) {
    this.#parts = parts;
    this.#progress = progress;
    this.#pace = new Pace(parts.rateMax, parts.rowsMax ?? CHUNK_ROWS_MAX);
    this.#rate = new SnapshotRate(parts.clock);
    this.#log = new ReadingLog(parts);
  }

  /** For status and metrics; null while there is nothing to read. */
  status(): SnapshotStatus | null {
    return statusOf(this.#progress, { rowsPerSecond: this.#rate.perSecond(), waitsFor: this.#waitsFor });
  }

  /** Whether a chunk waits for the stream: then each of its events may be the one. */
  get isPending(): boolean {
    return this.#underWay !== null && this.#underWay.read !== null;
  }

  /** What was taken from the stream, with what is to follow on it; null where there is nothing. */
  weave(items: readonly SourceItem[] | null, view: StreamView): readonly SourceItem[] | null {
    if (items !== null) this.#look(items);
    if (this.#progress === undefined) return items;
    const chunk = this.#takeChunk(view);
    this.#begin(view);
    if (chunk !== null) return [...(items ?? []), chunk];
    return items === null ? null : this.stamped(items);
  }

  close(): void {
    this.#ending.abort();
    this.#underWay = null;
    void this.#closeReader();
  }

  #look(items: readonly SourceItem[]): void {
    this.#underWay?.window.add(items);
    for (const item of items) if (item.kind === "table") this.#tableChanged(item);
  }

  /** What follows from it for what is read stands in the checkpoint of the batch that has the statement. */
  #tableChanged({ table: index, what, redefines, statement }: TableEvent): void {
    const table = this.#parts.tables[index]?.table ?? "";
    // Its columns may be others now.
    if (this.#progress?.jobs[0]?.table === table) this.#table = null;
    if (what === "altered") {
      if (this.#parts.afterReplacement === undefined) return;
      const after = afterAlter(this.#progress, table, redefines);
      if (after !== "read") this.#progress = after;
      else this.#log.altered(table, statement, this.#readAnew(table));
      return;
    }
    if (what === "replaced") this.#log.replaced(table, statement, this.#readAnew(table));
    // What was read so far is of rows that are gone.
    else this.#progress = restarted(this.#progress, (job) => job.table === table);
  }

  /** Whether the table is read as a whole now: not with SNAPSHOT_MODE=never. */
  #readAnew(table: string): boolean {
    const before = restarted(withoutLooks(this.#progress, table), (job) => job.table === table);
    this.#progress = this.#parts.afterReplacement?.(table, before) ?? before;
    return awaitsAllRows(this.#progress, table);
  }

  /** Items whose checkpoint holds the progress: the last one's, as no other is kept by anyone. */
  stamped(items: readonly SourceItem[]): readonly SourceItem[] {
    const last = items.at(-1);
    const snapshot = this.#progress;
    if (last === undefined || snapshot === undefined) return items;
    return [...items.slice(0, -1), { ...last, checkpoint: { ...last.checkpoint, snapshot } }];
  }

  /** A chunk, or that there is none behind a look. */
  #takeChunk(view: StreamView): SnapshotChunk | Progress | null {
    const chunk = this.#underWay;
    if (chunk === null) return null;
    if (chunk.connection !== view.connection()) {
      // Its statements may still be under way: the next chunk gets a connection of its own.
      this.#underWay = null;
      void this.#closeReader();
      return null;
    }
    if (chunk.failed !== null || chunk.tooEarly || chunk.isMissing) {
      this.#underWay = null;
      this.#notRead(chunk);
      return null;
    }
    const { read } = chunk;
    const delivered = view.delivered();
    if (read === null || delivered === null || comparePositions(delivered, read.high) < 0) return null;
    this.#underWay = null;
    const flaw = chunk.window.flawAt(read.high, chunk.parents);
    const isDoubtful = read.mustEnd !== null && !view.endsAt(read.mustEnd);
    const checkpoint = view.deliveredCheckpoint();
    if (flaw !== null || isDoubtful || checkpoint === null) {
      this.#waste(chunk.job, flaw);
      return null;
    }
    if (chunk.job.unlessShape !== undefined) return this.#looked(chunk, chunk.job.unlessShape, checkpoint);
    if (this.#isOfOldShape(chunk)) return null;
    return this.#given(chunk, read, checkpoint);
  }

  /** Behind an ALTER TABLE: whether there is more to read than what the chunk says of the columns. */
  #looked({ job: { table }, shape }: UnderWay, unlessShape: string, checkpoint: Checkpoint): Progress {
    this.#table = null;
    this.#progress = replaced(this.#progress, null);
    if (unlessShape === shape) this.#log.unaltered(table);
    else {
      const before = this.#progress;
      const isRead = this.#readAnew(table);
      const isKnown = isComparable(unlessShape, shape);
      this.#log.altered(table, isKnown ? "ALTER TABLE" : null, isRead);
      if (!isRead && !isKnown) this.#progress = withShape(before, table, shape);
    }
    // A stream that is silent would leave it on disk as not done.
    return { kind: "progress", commitTimeMs: null, checkpoint: this.#withProgress(checkpoint) };
  }

  /** Whether the rows before it were read in another shape: then they are read again, too. */
  #isOfOldShape({ job, shape }: UnderWay): boolean {
    const isRows = (job.purpose ?? "rows") === "rows";
    const before = this.#progress?.shapes?.[job.table];
    if (job.begun === null || !isRows || !isReshaping(before, shape)) return false;
    this.#progress = replaced(this.#progress, fromTheStart(job));
    this.#log.beginsAgain(job.table);
    return true;
  }

  #notRead({ job, window, failed, isMissing }: UnderWay): void {
    // Behind a statement about the table it is looked at once more before the job ends for it.
    const isFinal = !window.isAltered;
    if (failed !== null) this.#failed(job, failed, isFinal);
    else if (isMissing && isFinal) {
      this.#parts.log.notice("the shop has no such table; its rows are left out", { table: job.table });
      this.#progress = completed(this.#progress, job);
    } else this.#tooEarly();
  }

  #given(chunk: UnderWay, read: ReadChunk, checkpoint: Checkpoint): SnapshotChunk {
    const { clock, tables } = this.#parts;
    const { job, place, window } = chunk;
    const table = tables.findIndex((one) => one.table === job.table);
    const followed = tables[table];
    const rule = followed === undefined ? null : rangeRule(job, followed, this.#table, read);
    const rows = window.broughtForward(read.rows, read.high, rule);
    const begun = job.begun ?? {
      epoch: place.epoch,
      position: { file: place.file, position: place.position },
      atMs: read.readAtMs,
      rowsEstimated: this.#table?.rowsEstimated ?? 0,
    };
    const begunJob: BegunJob = { ...job, begun };
    const done = { ...begunJob, after: read.after ?? job.after, rows: job.rows + rows.length };
    const isReshaped = (job.purpose ?? "rows") === "rows" && this.#noteShape(job.table, chunk.shape);
    this.#progress = read.isLast ? completed(this.#progress, job) : replaced(this.#progress, done);
    if (job.begun === null && readsAllRows(job)) this.#progress = withoutLooks(this.#progress, job.table);
    this.#rate.add(read.rows.length);
    this.#pace.read(
      { rows: read.rows.length, bytes: read.bytes, selectMs: read.selectMs },
      clock.monotonicMs(),
    );
    if (read.isLast) this.#table = null;
    const isFirst = job.begun === null;
    const given = { job: begunJob, isFirst, done: read.isLast ? done : null, jobsLeft: this.#jobsLeft };
    this.#log.given(given, this.status());
    return {
      kind: "chunk",
      table,
      ...(rule === null ? {} : { keyRange: rule.range }),
      job: begunJob,
      isFirst,
      isReshaped,
      isLast: read.isLast,
      rows,
      overtaken: window.overtaken(rows, read.high),
      position: read.high,
      serverId: checkpoint.serverId,
      readAtMs: read.readAtMs,
      commitTimeMs: null,
      checkpoint: this.#withProgress(checkpoint),
    };
  }

  #withProgress(checkpoint: Checkpoint): Checkpoint {
    return this.#progress === undefined ? checkpoint : { ...checkpoint, snapshot: this.#progress };
  }

  get #jobsLeft(): number {
    return this.#progress?.jobs.length ?? 0;
  }

  /** Whether the table had other columns when it was last read. */
  #noteShape(table: string, shape: string): boolean {
    const before = this.#progress?.shapes?.[table];
    if (before === shape) return false;
    this.#progress = withShape(this.#progress, table, shape);
    if (!isReshaping(before, shape)) return false;
    this.#parts.log.notice("the table has other columns than when its rows were last read", { table });
    return true;
  }

  #waste(job: SnapshotJob, flaw: Flaw | null): void {
    this.#pace.wasted(this.#parts.clock.monotonicMs());
    if (flaw !== "table") return;
    this.#table = null;
    this.#parts.log.notice("the table changed its form while its rows were read; they are read again", {
      table: job.table,
    });
  }

  #tooEarly(): void {
    this.#waitsFor = "the stream, or commits that are not visible yet";
    this.#pace.waitUntil(this.#parts.clock.monotonicMs() + LOOK_AGAIN_MS);
  }

  #failed(job: SnapshotJob, error: AgentError, isFinal: boolean): void {
    const { clock, log } = this.#parts;
    void this.#closeReader();
    this.#table = null;
    if (isFinal && hopeless.has(error.code)) {
      log.error("an entity's rows cannot be read, and are left out", {
        table: job.table,
        code: error.code,
        reason: error.message,
        hint: error.hint,
      });
      this.#progress = replaced(this.#progress, null);
      return;
    }
    if (this.#waitsFor !== error.message) {
      log.warn("rows cannot be read now; it is tried again", {
        table: job.table,
        code: error.code,
        reason: error.message,
        hint: error.hint,
      });
    }
    this.#waitsFor = error.message;
    this.#pace.waitUntil(clock.monotonicMs() + this.#retryMs);
    this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2);
  }

  /** Starts the next chunk, where there is one and it may be read now. */
  #begin(view: StreamView): void {
    const { clock, tables, mayRead } = this.#parts;
    const [job] = this.#progress?.jobs ?? [];
    if (this.#underWay !== null || job === undefined || this.#progress?.paused === true) return;
    const connection = view.connection();
    const delivered = view.delivered();
    if (connection === null || delivered === null || delivered.file === "") return;
    const nowMs = clock.monotonicMs();
    if (nowMs < this.#pace.nextMs) return this.#lookAt(this.#pace.nextMs - nowMs, view);
    const blocked = mayRead();
    if (blocked !== null) {
      this.#waitsFor = blocked;
      this.#log.waits(job.table, blocked);
      this.#pace.waitUntil(nowMs + BLOCKED_MS);
      return this.#lookAt(BLOCKED_MS, view);
    }
    const table = tables.findIndex((one) => one.table === job.table);
    const followed = tables[table];
    const place = view.deliveredCheckpoint();
    if (place === null) return;
    if (followed === undefined) {
      this.#progress = replaced(this.#progress, null);
      return;
    }
    const window = new Window(table, followed);
    const chunk: UnderWay = {
      job,
      shape: "",
      parents: new Set(),
      window,
      connection,
      place,
      read: null,
      failed: null,
      isMissing: false,
      tooEarly: false,
    };
    this.#underWay = chunk;
    void this.#read(chunk, followed).finally(() => view.wakeUp());
  }

  /** Never rejects: what went wrong stands in the chunk. */
  async #read(chunk: UnderWay, followed: FollowedTable): Promise<void> {
    const { settings, clock, observer, tables } = this.#parts;
    const { job, place } = chunk;
    try {
      const notes = { note: (what: string) => observer.oddity(what, job.table) };
      const reader = (this.#reader ??= await ChunkReader.open(settings, place, {
        clock,
        notes,
        naiveLowMark: this.#parts.naiveLowMark ?? false,
      }));
      chunk.tooEarly = this.#table === null && !(await reader.shows(place));
      if (chunk.tooEarly) return;
      const table = (this.#table ??= await reader.open(job, followed));
      chunk.isMissing = table === null;
      if (table === null) return;
      const isParent = (index: number): boolean =>
        table.parents.has(`${settings.tablePrefix}${tables[index]?.table ?? ""}`);
      chunk.shape = shapeOf(followed, table);
      chunk.parents = new Set([...tables.keys()].filter(isParent));
      const limit = job.unlessShape === undefined ? this.#pace.limit : 1;
      const read = await reader.read(table, job.after, limit, place);
      if (read === null) chunk.tooEarly = true;
      else {
        chunk.read = read;
        this.#retryMs = RETRY_MS;
        this.#waitsFor = null;
      }
    } catch (thrown) {
      chunk.failed = translateError(thrown);
    }
  }

  /** Comes round again by then, also when the stream says nothing. */
  #lookAt(inMs: number, view: StreamView): void {
    if (this.#looks) return;
    this.#looks = true;
    const look = async (): Promise<void> => {
      await this.#parts.clock.sleep(inMs, this.#ending.signal);
      this.#looks = false;
      view.wakeUp();
    };
    void look();
  }

  async #closeReader(): Promise<void> {
    const reader = this.#reader;
    this.#reader = null;
    await reader?.[Symbol.asyncDispose]();
  }
}
