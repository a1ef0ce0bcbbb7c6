/** Reads chunks of rows over one connection of its own. Writes nothing, locks nothing. */
import type { Checkpoint, FollowedTable, PackedRows, Position, SnapshotJob } from "../../change.ts";
import { AgentError } from "../../kernel/errors.ts";
import { RowPacker } from "../../packed-rows.ts";
import { type ControlConnection, numberOf, openControl, type RowTaker } from "../control-connection.ts";
import type { OddityNotes } from "../decode/wire.ts";
import { readServerFacts } from "../server-facts.ts";
import type { SourceSettings } from "../settings.ts";
import { comparePositions } from "../stream-position.ts";
import { type DeliveredPlace, type LowMark, Marks } from "./marks.ts";
import { readParents, readTable, type TableReading } from "./table-query.ts";
import { TextRow } from "./text-row.ts";

/** Bytes of large columns that one chunk takes; a single row may have more. */
const LARGE_BYTES_MAX = 4 * 1024 * 1024;
/** A stream that is further behind than this catches up first. */
const LAG_BYTES_MAX = 4 * 1024 * 1024;
/** A stream that was near is looked at again after so long; it waits for each chunk's high mark anyway. */
const LAG_LOOK_MS = 200;

/** A table as it is read now. */
export interface OpenTable {
  readonly reading: TableReading;
  /** Names, with prefix. */
  readonly parents: ReadonlySet<string>;
  readonly rowsEstimated: number;
}

export interface ReadChunk {
  readonly rows: PackedRows;
  /** Key of the last row; null where there was none. */
  readonly after: readonly string[] | null;
  readonly isLast: boolean;
  readonly high: Position;
  /** The chunk counts only if a transaction ends here (marks.ts). */
  readonly mustEnd: Position | null;
  readonly bytes: number;
  readonly selectMs: number;
  readonly readAtMs: number;
}

export interface ReaderClock {
  monotonicMs(): number;
  wallMs(): number;
}

export interface ReaderParts {
  readonly clock: ReaderClock;
  readonly notes: OddityNotes;
  readonly naiveLowMark: boolean;
}

/** The server that the stream reads from. */
export type ReadServer = Pick<Checkpoint, "serverId" | "serverUuid">;

export class ChunkReader implements AsyncDisposable {
  readonly #control: ControlConnection;
  readonly #settings: SourceSettings;
  readonly #marks: Marks;
  readonly #clock: ReaderClock;
  readonly #notes: OddityNotes;
  #lagLookMs = Number.NEGATIVE_INFINITY;
  #packers: readonly [RowPacker, RowPacker] = [new RowPacker(1), new RowPacker(1)];
  /** The last low mark was good: the next is likely to be, and rows are asked for together with it. */
  #isHopeful = false;

  /** Connects, and makes sure that it is the server that the stream reads from. */
  static async open(settings: SourceSettings, server: ReadServer, parts: ReaderParts): Promise<ChunkReader> {
    const control = await openControl(settings, { multipleStatements: true });
    try {
      const facts = await readServerFacts(control);
      if (facts.serverId !== server.serverId || facts.serverUuid !== server.serverUuid) {
        throw new AgentError(
          "SOURCE_UNREACHABLE",
          `server ${facts.serverId} answered the snapshot, and the stream reads from ${server.serverId}`,
        );
      }
      await control.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
      // Values come as they are stored, whatever the server's defaults are (selected-values.ts).
      await control.query("SET SESSION sql_mode = '', time_zone = '+00:00', character_set_results = NULL");
      const marks = await Marks.of(control, facts.flavour, parts.naiveLowMark);
      return new ChunkReader(control, settings, marks, parts);
    } catch (thrown) {
      await control[Symbol.asyncDispose]();
      throw thrown;
    }
  }

  private constructor(
    control: ControlConnection,
    settings: SourceSettings,
    marks: Marks,
    parts: ReaderParts,
  ) {
    this.#control = control;
    this.#settings = settings;
    this.#marks = marks;
    this.#clock = parts.clock;
    this.#notes = parts.notes;
  }

  /** Whether everything up to `place` is visible: MySQL's binlog has an ALTER TABLE before its dictionary does. */
  async shows(place: DeliveredPlace): Promise<boolean> {
    const mark = await this.#marks.ask(place);
    await this.#marks.end();
    return mark !== null;
  }

  /** Null where the shop has no such table. Throws what `readTable` throws. */
  async open(job: SnapshotJob, followed: FollowedTable): Promise<OpenTable | null> {
    const reading = await readTable(this.#control, this.#settings, readOf(job, followed), job.scope);
    if (reading === null) return null;
    const parents = await readParents(this.#control, this.#settings, followed.table);
    const [row] = await this.#control.query(
      "SELECT TABLE_ROWS AS estimated FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
      [this.#settings.database, `${this.#settings.tablePrefix}${followed.table}`],
    );
    return { reading, parents, rowsEstimated: numberOf(row, "estimated") || 0 };
  }

  /**
   * The next rows behind `after`; null while not everything up to `place` is visible, or the stream
   * is too far behind.
   */
  async read(
    { reading }: OpenTable,
    after: readonly string[] | null,
    limit: number,
    place: DeliveredPlace,
  ): Promise<ReadChunk | null> {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lagLookMs > LAG_LOOK_MS) {
      if (isFarBehind(place, await this.#marks.high())) return null;
      this.#lagLookMs = nowMs;
    }
    const isShort = reading.selectSizes(limit, after) === null;
    return isShort && this.#isHopeful
      ? await this.#readAtOnce(reading, after, limit, place)
      : await this.#readInSteps(reading, after, limit, place);
  }

  /** Mark, rows and mark in one go, so that the server does not wait for this side. */
  async #readAtOnce(...[reading, after, limit, place]: ReadArguments): Promise<ReadChunk | null> {
    const rows = new RowsTaken(reading, this.#nextPacker(reading), this.#clock, this.#notes);
    const { opening, closing } = this.#marks;
    // What this side has still to do before it listens is no time of the server's.
    setImmediate(() => rows.listens());
    const answers = await this.#control.batch([
      ...opening.map((sql) => ({ sql })),
      { sql: reading.select(limit, after), take: rows.take },
      ...closing.map((sql) => ({ sql })),
    ]);
    const mark = await this.#marks.lowMark(answers, place);
    this.#isHopeful = mark !== null;
    return mark === null ? null : rows.chunk(limit, mark, this.#marks.highMark(answers));
  }

  /** First the mark alone, so that nothing is read in vain; then as many rows as fit. */
  async #readInSteps(...[reading, after, limit, place]: ReadArguments): Promise<ReadChunk | null> {
    const { closing } = this.#marks;
    const mark = await this.#marks.ask(place);
    this.#isHopeful = mark !== null;
    if (mark === null) {
      await this.#marks.end();
      return null;
    }
    const count = await this.#fitting(reading, after, limit);
    const rows = new RowsTaken(reading, this.#nextPacker(reading), this.#clock, this.#notes);
    const answers = await this.#control.batch([
      { sql: reading.select(count, after), take: rows.take },
      ...closing.map((sql) => ({ sql })),
    ]);
    return rows.chunk(count, mark, this.#marks.highMark(answers));
  }

  /** Memory by turns: while one chunk is read the one before it may still be encoded. */
  #nextPacker({ packers }: TableReading): RowPacker {
    const [next, before] = this.#packers;
    this.#packers = [before, next];
    next.reset(packers.length);
    return next;
  }

  /** How many of the next rows fit into a chunk; 1 for a row that alone does not. */
  async #fitting(reading: TableReading, after: readonly string[] | null, limit: number): Promise<number> {
    const sql = reading.selectSizes(limit, after);
    if (sql === null) return limit;
    let bytes = 0;
    let count = 0;
    for (const row of await this.#control.query(sql)) {
      bytes += numberOf(row, "bytes");
      if (bytes > LARGE_BYTES_MAX && count > 0) return count;
      count += 1;
    }
    return limit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#control[Symbol.asyncDispose]();
  }
}

/** For the index alone no other column is read: a missing one is as one that the table does not have. */
function readOf({ purpose }: SnapshotJob, followed: FollowedTable): FollowedTable {
  if (purpose !== "index") return followed;
  const wanted = new Set([...followed.keyColumns, ...(followed.indexColumns ?? [])]);
  return { ...followed, columns: followed.columns.map((column, index) => (wanted.has(index) ? column : "")) };
}

function isFarBehind(place: Position, end: Position): boolean {
  if (place.file === end.file) return end.position - place.position > LAG_BYTES_MAX;
  // Just rotated: the stream is about to follow.
  return comparePositions(place, end) < 0 && end.position > LAG_BYTES_MAX;
}

type ReadArguments = [
  reading: TableReading,
  after: readonly string[] | null,
  limit: number,
  place: DeliveredPlace,
];

/** The rows of one chunk, while they come and when they are there. */
class RowsTaken {
  readonly #reading: TableReading;
  readonly #clock: ReaderClock;
  readonly #notes: OddityNotes;
  readonly #rows: RowPacker;
  readonly #row = new TextRow();
  /** The last row, as it came. */
  #last: Parameters<RowTaker> | null = null;
  #bytes = 0;
  #startedMs: number;

  constructor(reading: TableReading, rows: RowPacker, clock: ReaderClock, notes: OddityNotes) {
    this.#reading = reading;
    this.#clock = clock;
    this.#notes = notes;
    this.#rows = rows;
    this.#startedMs = clock.monotonicMs();
  }

  /** From now on it is the server that is waited for. */
  listens(): void {
    this.#startedMs = this.#clock.monotonicMs();
  }

  readonly take: RowTaker = (bytes, start, end) => {
    const row = this.#row;
    const { order, packers } = this.#reading;
    row.open(bytes, start, end);
    // The parts of the key come first, once more.
    for (let part = 0; part < order.length; part += 1) row.next();
    for (const pack of packers) {
      if (pack === null) {
        this.#rows.missing();
        continue;
      }
      row.next();
      if (row.isNull) this.#rows.null();
      else pack(row, this.#rows, this.#notes);
    }
    this.#bytes += end - start;
    this.#last = [bytes, start, end];
  };

  /** All of them are there; `count` were asked for. */
  chunk(count: number, { mustEnd }: LowMark, high: Position): ReadChunk {
    return {
      rows: this.#rows,
      after: this.#keyOfLast(),
      isLast: this.#rows.length < count,
      high,
      mustEnd,
      bytes: this.#bytes,
      selectMs: this.#clock.monotonicMs() - this.#startedMs,
      readAtMs: this.#clock.wallMs(),
    };
  }

  #keyOfLast(): readonly string[] | null {
    if (this.#last === null) return null;
    const row = this.#row;
    row.open(...this.#last);
    return this.#reading.order.map(() => {
      row.next();
      return row.bytes.toString("base64", row.start, row.end);
    });
  }
}
