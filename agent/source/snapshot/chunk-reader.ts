/** Reads chunks of rows over one connection of its own. Writes nothing, locks nothing. */
import type { Checkpoint, FollowedTable, Position, SnapshotJob, Value } from "../../change.ts";
import { AgentError } from "../../kernel/errors.ts";
import { type ControlConnection, numberOf, openControl, type SelectedRow } from "../control-connection.ts";
import type { OddityNotes } from "../decode/wire.ts";
import { readServerFacts } from "../server-facts.ts";
import type { SourceSettings } from "../settings.ts";
import { comparePositions } from "../stream-position.ts";
import { type DeliveredPlace, Marks } from "./marks.ts";
import { readParents, readTable, type TableReading } from "./table-query.ts";
import type { Row } from "./window.ts";

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
  readonly rows: readonly Row[];
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

  /** Connects, and makes sure that it is the server that the stream reads from. */
  static async open(settings: SourceSettings, server: ReadServer, parts: ReaderParts): Promise<ChunkReader> {
    const control = await openControl(settings);
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
      return new ChunkReader(control, settings, new Marks(control, facts.flavour, parts.naiveLowMark), parts);
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
    const mark = await this.#marks.begin(place);
    if (mark === null) {
      await this.#marks.end();
      return null;
    }
    const startedMs = this.#clock.monotonicMs();
    const count = await this.#fitting(reading, after, limit);
    const rows: Row[] = [];
    const keyParts = reading.order.length;
    let last: SelectedRow = [];
    let bytes = 0;
    await this.#control.select(reading.select(count, after), (row) => {
      for (const value of row) bytes += value === null ? 0 : value.length;
      rows.push(valuesOf(row, reading, this.#notes));
      last = row;
    });
    const selectMs = this.#clock.monotonicMs() - startedMs;
    const readAtMs = this.#clock.wallMs();
    const high = await this.#marks.endHigh();
    return {
      rows,
      after:
        rows.length === 0
          ? null
          : last.slice(0, keyParts).map((part) => Buffer.from(part ?? "", "latin1").toString("base64")),
      isLast: rows.length < count,
      high,
      mustEnd: mark.mustEnd,
      bytes,
      selectMs,
      readAtMs,
    };
  }

  /** How many of the next rows fit into a chunk; 1 for a row that alone does not. */
  async #fitting(reading: TableReading, after: readonly string[] | null, limit: number): Promise<number> {
    const sql = reading.selectSizes(limit, after);
    if (sql === null) return limit;
    let bytes = 0;
    let count = 0;
    let isFull = false;
    await this.#control.select(sql, ([size]) => {
      bytes += Number(size ?? 0);
      isFull ||= bytes > LARGE_BYTES_MAX && count > 0;
      if (!isFull) count += 1;
    });
    return isFull ? count : limit;
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

function valuesOf(row: SelectedRow, reading: TableReading, notes: OddityNotes): Row {
  const { readers, places } = reading;
  const values: (Value | undefined)[] = [];
  for (let index = 0; index < readers.length; index += 1) {
    const read = readers[index];
    if (read === null || read === undefined) {
      values.push(undefined);
      continue;
    }
    const bytes = row[places[index] ?? -1];
    values.push(bytes === null || bytes === undefined ? null : read(bytes, notes));
  }
  return values;
}
