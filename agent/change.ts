/**
 * The shared nouns: what the rooms hand to each other. Types and tiny pure functions only; this
 * file imports nothing, so that no room pulls in another through it.
 *
 * Two coordinates, two words, never mixed: a `Position` is a place in the binlog, a `Seq` a place
 * in a spool queue.
 */

/** Version of everything that the agent keeps on disk. A newer one is refused at open, an older one that is known is raised. */
export const STATE_FORMAT_VERSION = 3;

// ---------------------------------------------------------------------------------------------
// Column values

/** A JSON column's text: emitted as it is, not as a string. */
export interface JsonText {
  readonly json: string;
}

/** A text column whose bytes are not valid in its character set; nothing of it is lost. */
export interface InvalidText {
  /** Decoded with U+FFFD in place of what could not be decoded. */
  readonly text: string;
  /** The bytes as the column holds them, base64. */
  readonly base64: string;
}

/**
 * A decoded column value in its final, lossless form (spec.md section 3): DECIMAL and BIGINT as
 * strings, other integers and FLOAT/DOUBLE as numbers, DATETIME/TIMESTAMP as RFC 3339 UTC, DATE as
 * YYYY-MM-DD, zero or partial dates as null, binary as base64.
 */
export type Value = string | number | null | JsonText | InvalidText;

/** Values of a table's followed columns, in their order; `undefined` where it has no such column. */
export type Row = readonly (Value | undefined)[];
/** Rows as bytes, for loops that have no time to make values of them. Of packed-rows.ts, as are the kinds. */
export interface PackedRows extends Iterable<Row> {
  readonly length: number;
  readonly width: number;
  readonly bytes: Buffer;
  kindOf(row: number, column: number): number;
  startOf(row: number, column: number): number;
  endOf(row: number, column: number): number;
  valueOf(row: number, column: number): Value | undefined;
  rowOf(row: number, columns?: readonly number[]): Row;
}

// ---------------------------------------------------------------------------------------------
// What to follow

/** One table to follow, as the mapping wants it. Names are without the shop's table prefix. */
export interface FollowedTable {
  readonly table: string;
  /** Columns to decode; all others are skipped by their length. The order is that of row values. */
  readonly columns: readonly string[];
  /** Indices into `columns` of the entity's key. A change of one of them makes `old` complete. */
  readonly keyColumns: readonly number[];
  /** Indices of the columns that the index keeps beside the key; absent: nothing is kept of it. */
  readonly indexColumns?: readonly number[];
}

// ---------------------------------------------------------------------------------------------
// Changes and transactions

export type RowKind = "insert" | "update" | "delete";

/** One row image of a followed table, inside a committed transaction. */
export interface RowChange {
  /** Index into the list of followed tables. */
  readonly table: number;
  readonly kind: RowKind;
  /**
   * The whole followed row: after image of insert and update, before image of delete, in the order
   * of `FollowedTable.columns`. `undefined` where the shop's table has no such column.
   */
  readonly row: readonly (Value | undefined)[];
  /**
   * Update only: old values of the columns whose stored bytes differ, `undefined` = unchanged.
   * Complete (every present column) when a key column differs. `null` for insert and delete.
   */
  readonly old: readonly (Value | undefined)[] | null;
  /** Which row image of this table in the transaction, from 0; counts rolled-back images too. */
  readonly imageIndex: number;
  /** Which row image of all followed tables in the transaction, from 0; counts like imageIndex. */
  readonly ordinal: number;
}

/** A place in one server's binlog. `position` is exact above 32 bits. */
export interface Position {
  readonly file: string;
  readonly position: number;
}

/**
 * A committed transaction, or one part of a committed transaction that is larger than a part.
 * Part boundaries are functions of the transaction's bytes alone, so a re-read cuts the same way.
 */
export interface TransactionPart {
  readonly kind: "transaction";
  /** Where the group starts (its Gtid event) and ends (after its Xid or COMMIT). */
  readonly start: Position;
  readonly end: Position;
  /** MariaDB `domain-server-seq`, MySQL `uuid:number`, null where the server has none. */
  readonly gtid: string | null;
  readonly serverId: number;
  /** Commit time in milliseconds since 1970 (whole seconds where the server has no better). */
  readonly commitTimeMs: number;
  readonly changes: readonly RowChange[];
  /** Row images before this part; 0 in the first or only one. */
  readonly firstOrdinal: number;
  readonly isLast: boolean;
  /** Where to go on once this part is durable. */
  readonly checkpoint: Checkpoint;
}

/** Something about a followed table that no row says. */
export interface TableEvent {
  readonly kind: "table";
  readonly table: number;
  /** reset: its rows are gone; replaced: they are, and others can stand there; altered: its columns changed. */
  readonly what: "reset" | "replaced" | "altered";
  /** altered: a followed column is named; "twice": so that how the columns are afterwards says nothing of the values. */
  readonly redefines?: "once" | "twice";
  /** First words of the statement, never its literals. */
  readonly statement: string;
  readonly end: Position;
  readonly gtid: string | null;
  readonly serverId: number;
  readonly commitTimeMs: number;
  readonly checkpoint: Checkpoint;
}

/** Nothing of ours happened up to here: only the checkpoint moves. */
export interface Progress {
  readonly kind: "progress";
  /** Commit time of the newest transaction seen, or null for a heartbeat. */
  readonly commitTimeMs: number | null;
  readonly checkpoint: Checkpoint;
}

/**
 * Rows that a snapshot or resync has read, as they are at `position`: every change up to there is in
 * them, and none after it.
 */
export interface SnapshotChunk {
  readonly kind: "chunk";
  readonly table: number;
  readonly job: BegunJob;
  readonly isFirst: boolean;
  /** Nothing is left to read after it. */
  readonly isLast: boolean;
  /** The table's columns are other ones than when it was last read. */
  readonly isReshaped: boolean;
  /** Good until the next items are pulled: then their memory is used again. */
  readonly rows: PackedRows;
  /** Of rows that the stream has changed since `position`, before this chunk: what they are now; null: gone. */
  readonly overtaken: ReadonlyMap<number, Row | null>;
  readonly position: Position;
  /** Set where the rows are all that there are in a range of keys at `position` (digests). */
  readonly keyRange?: KeyRange;
  readonly serverId: number;
  readonly readAtMs: number;
  /** Rows that were read say nothing about when they were committed. */
  readonly commitTimeMs: null;
  readonly checkpoint: Checkpoint;
}

export type SourceItem = TransactionPart | TableEvent | Progress | SnapshotChunk;

// ---------------------------------------------------------------------------------------------
// Snapshots and resyncs

/** Which rows of an entity are read. */
export type SnapshotScope =
  | { readonly kind: "all" }
  /** Both ends are part of it; only of entities whose key is a single integer. */
  | { readonly kind: "range"; readonly from: string; readonly to: string }
  /** Their `magento_id`s, as text. */
  | { readonly kind: "keys"; readonly keys: readonly string[] };

/** Why rows are read. */
export type SnapshotReason = "initial" | "always" | "resync" | "position-lost" | "verify" | "index";

/** What is made of the rows: events, digests for consumers to compare, or entries of the index. */
export type SnapshotPurpose = "rows" | "digests" | "index";

/** Keys of a single integer column, of which a chunk holds every row: behind `after`, up to `through`. */
export interface KeyRange {
  /** Not part of it; null: from the first key on. */
  readonly after: string | null;
  /** Part of it; null: to the last key. */
  readonly through: string | null;
}

/** One entity to read, whole or in part; the table is named without prefix. */
export interface SnapshotJob {
  /** Its number among all of this state, from 1; a part of its events' sequence. */
  readonly generation: number;
  readonly table: string;
  readonly reason: SnapshotReason;
  readonly scope: SnapshotScope;
  /** Absent in what an earlier build wrote: rows. */
  readonly purpose?: SnapshotPurpose;
  /** Where its events go instead of the entity's topic. */
  readonly topic: string | null;
  /** It only looks whether the table's columns still have this shape, behind an ALTER TABLE; "": none is known. */
  readonly unlessShape?: string;
  readonly begun: SnapshotBeginning | null;
  /** Primary key of the last row that was read, each part as its bytes in base64. */
  readonly after: readonly string[] | null;
  readonly rows: number;
}

export type BegunJob = SnapshotJob & { readonly begun: SnapshotBeginning };

/** How a job stood at its first row; the number of rows is the server's own estimate. */
export interface SnapshotBeginning {
  /**
   * Every change up to here was visible to the first read. So each row that exists gets an event
   * behind this place, from the job or from the stream, and what has none is gone.
   */
  readonly epoch: number;
  readonly position: Position;
  readonly atMs: number;
  readonly rowsEstimated: number;
}

/** What is to be read, in its order; the first is under way. */
export interface SnapshotProgress {
  /** The newest generation that was given. */
  readonly generation: number;
  readonly paused: boolean;
  readonly jobs: readonly SnapshotJob[];
  /** By table: a fingerprint of what its columns were when it was last read. */
  readonly shapes?: Readonly<Record<string, string>>;
  /** Tables of which a job has read all rows to the end, and no part of whose history was lost since. */
  readonly complete?: readonly string[];
  /** Tables of which a part was lost, and not all rows read since: the newest generation that had begun then. */
  readonly lost?: Readonly<Record<string, number>>;
}

/** A job to add; its generation is given by `withJobs`. */
export type WantedJob = Pick<SnapshotJob, "table" | "reason" | "scope" | "purpose" | "topic" | "unlessShape">;

// ---------------------------------------------------------------------------------------------
// Checkpoint

/** Identity of the last whole transaction, re-read and compared at start (proof of position). */
export interface TransactionIdentity {
  readonly file: string;
  readonly startPosition: number;
  readonly endPosition: number;
  readonly gtid: string | null;
  readonly xid: string | null;
  readonly timestampSeconds: number;
  /**
   * Fingerprint of all row events of the group, 8 hexadecimal digits: CRC-32 over their checksums as
   * they stand in the binlog, or over their bytes where the server writes no checksums.
   */
  readonly rowsCrc32: string;
}

/** Progress inside a transaction that was proven to be committed (invariant 2). */
export interface PartialTransaction {
  readonly start: Position;
  readonly end: Position;
  /** Its GTID; absent or null where the server has none. */
  readonly gtid?: string | null;
  /** Row images of followed tables that are done, and how many events they made. */
  readonly ordinal: number;
  readonly events: number;
  /** Ranges of ordinals that a ROLLBACK TO SAVEPOINT took back: [from, to). */
  readonly rolledBack: readonly (readonly [number, number])[];
}

/** Where capture goes on. Made by the source, stored by the spool, opaque to all others. */
export interface Checkpoint {
  readonly formatVersion: number;
  /** Timeline of the source's history (spec.md section 4). */
  readonly epoch: number;
  readonly file: string;
  /** Exact 64-bit end of the last whole transaction. */
  readonly position: number;
  /** Last boundary that the 32-bit dump command can name, at or before `position`. */
  readonly resumePosition: number;
  /** MariaDB GTID position or MySQL GTID set of everything done; null where there is none. */
  readonly gtidSet: string | null;
  readonly serverId: number;
  readonly serverUuid: string | null;
  readonly lastTransaction: TransactionIdentity | null;
  readonly partial: PartialTransaction | null;
  /** Newest commit time seen, milliseconds since 1970; feeds the next epoch. */
  readonly newestCommitMs: number;
  /** What is being read beside the stream; absent in a state that never read anything. */
  readonly snapshot?: SnapshotProgress;
}

/**
 * The epoch of a new history: above the last one, and not behind the clock nor any commit that was
 * seen, so that a wrong clock cannot make newer events look older. `last` null: there was none.
 */
export function nextEpoch(last: Pick<Checkpoint, "epoch" | "newestCommitMs"> | null, nowMs: number): number {
  const nowSeconds = Math.floor(nowMs / 1000);
  if (last === null) return nowSeconds;
  return Math.max(last.epoch + 1, nowSeconds, Math.floor(last.newestCommitMs / 1000));
}

/** The number in a binlog's file name: `mariadb-bin.000123` is 123. */
export function binlogFileNumber(file: string): number {
  const dot = file.lastIndexOf(".");
  const number = Number(file.slice(dot + 1));
  if (dot < 0 || !Number.isSafeInteger(number)) {
    throw new Error(`binlog file name "${file}" does not end with a number`);
  }
  return number;
}

// ---------------------------------------------------------------------------------------------
// Events

export type Op = "c" | "u" | "d" | "r";

/** What a spooled record is to the forwarder. */
export type EventKind = "entity" | "control";

/** One event, encoded, on its way to the spool. The bytes are those of the wire (encode once). */
export interface OutboundEvent {
  readonly kind: EventKind;
  /** Queue that orders it: the topic of its entity. A control event about an entity stands in that
   * entity's queue as a barrier, and goes to `topic`. */
  readonly queue: string;
  /** Which of the queue's two lanes it goes by. */
  readonly lane: Lane;
  readonly topic: string;
  /** Source table without prefix; "" for control events. Label of metrics. */
  readonly table: string;
  readonly op: Op | "";
  /** Deterministic CloudEvent id, also the entryId of the bulk request. */
  readonly id: string;
  /** Entity key inside the agent (table tag and length-prefixed parts); "" for control events. */
  readonly entityKey: string;
  readonly commitTimeMs: number;
  readonly capturedAtMs: number;
  /** Waits until everything that stood in both lanes of its queue when it was appended was accepted,
   * and holds what is later: a barrier of the live lane in both lanes, one of the bulk lane in its own. */
  readonly barrier: boolean;
  /** Over Dapr's limit: goes to the dead letters without being tried. */
  readonly oversize: boolean;
  /**
   * The CloudEvent as a JSON string literal in UTF-8, quotes included: ready to stand as `event`
   * in a bulk entry. `JSON.parse(JSON.parse(text))` is the CloudEvent.
   */
  readonly payload: Buffer;
}

/** Which snapshot or resync an event belongs to, and whether it completes it; null of any other (transform/sequence.ts). */
export function readingOf(
  sequence: string,
): { readonly generation: number; readonly completes: boolean } | null {
  const [, , , kind, generation, ordinal] = sequence.split(".");
  return kind === "9" ? { generation: Number(generation), completes: ordinal === "9999999999" } : null;
}

/** Place in a queue: 1, 2, 3, ... without gaps. */
export type Seq = number;

/** An event read back from the spool, verified. */
export interface SpooledEvent extends OutboundEvent {
  readonly seq: Seq;
  /** The other lane of its queue has to be accepted up to here before this one goes; 0: it waits for
   * nothing there. A barrier names the other lane's end when it was appended, an event of the bulk
   * lane the newest barrier of the live lane. */
  readonly otherLaneThrough: Seq;
  /** Where its id and payload lie in the bytes that it was read in: to be copied, without objects of them. */
  readonly bytes?: EventBytes;
}

/** Id (one byte a character) and payload of an event, each from one offset to another. */
export interface EventBytes {
  readonly of: Buffer;
  readonly idAt: number;
  readonly idEnd: number;
  readonly payloadAt: number;
  readonly payloadEnd: number;
  /** Takes a copy of its part, so that it no longer keeps all that was read with it in memory. */
  detach(): void;
  /** It is done: nobody reads it any more. */
  release(): void;
}

/** Two lanes a queue: live changes, and bulk work (snapshot, resync). Each has its own numbers and
 * cursor; between them there is no order but that of barriers, and a sequence says which is newer. */
export type Lane = "live" | "bulk";

/** One lane of one queue. */
export interface QueueLane {
  readonly queue: string;
  readonly lane: Lane;
}
