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
  Position,
  SnapshotChunk,
  SnapshotJob,
  SnapshotProgress,
  SourceItem,
  TableEvent,
} from "../../change.ts";
import type { AgentError } from "../../kernel/errors.ts";
import type { Clock, Log } from "../../kernel/service.ts";
import { awaitsAllRows, completed, replaced, restarted, statusOf } from "../../snapshot-jobs.ts";
import type { SnapshotStatus, SourceObserver } from "../../ports.ts";
import type { SourceSettings } from "../settings.ts";
import { translateError } from "../source-errors.ts";
import { comparePositions } from "../stream-position.ts";
import { ChunkReader, type OpenTable, type ReadChunk } from "./chunk-reader.ts";
import { rangeRule } from "./key-range.ts";
import { CHUNK_ROWS_MAX, Pace } from "./pace.ts";
import { ReadingLog } from "./reading-log.ts";
import { isReshaping, shapeOf } from "./shape.ts";
import { SnapshotRate } from "./snapshot-rate.ts";
import { type Flaw, Window } from "./window.ts";

/** The stream as the weave sees it. */
export interface StreamView {
  /** A number of its connection; null while there is none. */
  connection(): number | null;
  /** Everything up to here was taken; null inside a transaction, or while nothing is known. */
  delivered(): Position | null;
  deliveredCheckpoint(): Checkpoint | null;
  /** Whether a transaction that was read ends there. */
  endsAt(position: Position): boolean;
  /** Makes whoever waits for the stream look again. */
  wakeUp(): void;
}

/** When rows may be read, and how many. */
export interface ReadingRules {
  /** Why no rows may be read now; null where they may. */
  readonly mayRead: () => string | null;
  /** Rows a second; null: as fast as the database answers quickly. */
  readonly rateMax: number | null;
  /** What is to be read once a statement put rows into the table; without it nothing more. */
  readonly afterReplacement?: (table: string, progress: SnapshotProgress | undefined) => SnapshotProgress;
  /** For tests: smaller chunks. */
  readonly rowsMax?: number;
  /** For a test that shows what the low mark is for: everything that was streamed is taken for visible. */
  readonly naiveLowMark?: boolean;
}

export interface WeaveParts extends ReadingRules {
  readonly settings: SourceSettings;
  readonly tables: readonly FollowedTable[];
  readonly observer: Pick<SourceObserver, "oddity">;
  readonly clock: Clock;
  readonly log: Log;
}

/** A chunk under way, from before its SELECT until it was given or thrown away. */
interface UnderWay {
  readonly job: SnapshotJob;
  readonly window: Window;
  readonly connection: number;
  readonly place: Checkpoint;
  /** Fingerprint of the columns that are read. */
  shape: string;
  /** Tables (indices) whose deletes reach into this one. */
  parents: ReadonlySet<number>;
  read: ReadChunk | null;
  failed: AgentError | null;
  /** The shop has no such table. */
  isMissing: boolean;
  /** The server does not show everything up to `place` yet, or the stream is behind. */
  tooEarly: boolean;
}

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
  #tableChanged({ table: index, what, statement }: TableEvent): void {
    const table = this.#parts.tables[index]?.table ?? "";
    // Its columns may be others now.
    if (this.#progress?.jobs[0]?.table === table) this.#table = null;
    if (what === "altered") return;
    // What was read so far is of rows that are gone.
    this.#progress = restarted(this.#progress, (job) => job.table === table);
    if (what === "reset") return;
    this.#progress = this.#parts.afterReplacement?.(table, this.#progress) ?? this.#progress;
    this.#log.replaced(table, statement, awaitsAllRows(this.#progress, table));
  }

  /** Items whose checkpoint holds the progress: the last one's, as no other is kept by anyone. */
  stamped(items: readonly SourceItem[]): readonly SourceItem[] {
    const last = items.at(-1);
    const snapshot = this.#progress;
    if (last === undefined || snapshot === undefined) return items;
    return [...items.slice(0, -1), { ...last, checkpoint: { ...last.checkpoint, snapshot } }];
  }

  #takeChunk(view: StreamView): SnapshotChunk | null {
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
    return this.#given(chunk, read, checkpoint);
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
      checkpoint: { ...checkpoint, ...(this.#progress === undefined ? {} : { snapshot: this.#progress }) },
    };
  }

  get #jobsLeft(): number {
    return this.#progress?.jobs.length ?? 0;
  }

  /** Whether the table had other columns when it was last read. */
  #noteShape(table: string, shape: string): boolean {
    const shapes = this.#progress?.shapes ?? {};
    const before = shapes[table];
    if (before === shape || this.#progress === undefined) return false;
    this.#progress = { ...this.#progress, shapes: { ...shapes, [table]: shape } };
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
      const table = (this.#table ??= await reader.open(job, followed));
      if (table === null) {
        chunk.isMissing = true;
        return;
      }
      const isParent = (index: number): boolean =>
        table.parents.has(`${settings.tablePrefix}${tables[index]?.table ?? ""}`);
      chunk.shape = shapeOf(followed, table);
      chunk.parents = new Set([...tables.keys()].filter(isParent));
      const read = await reader.read(table, job.after, this.#pace.limit, place);
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
