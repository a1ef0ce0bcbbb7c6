/**
 * Binlog events to committed groups: a pure reducer. Nothing of a group is told before its end was
 * read, rows of other tables cost no more than a look at their header, and whatever cannot be
 * understood throws before the position moves past it (invariant 8).
 */
import type { Checkpoint, PartialTransaction, Position, TransactionIdentity } from "../change.ts";
import { Approach } from "./approach.ts";
import { eventServerId, eventTimestamp, HEADER_BYTES, unreadableEvent } from "./binlog-event.ts";
import { GroupGtid } from "./group-gtid.ts";
import { BufferedRows, type CutPart, ReplayedRows, Slab } from "./group-rows.ts";
import { positionLost } from "./position-loss.ts";
import { RowsDigest } from "./rows-digest.ts";
import type { Statement } from "./statement.ts";
import type { TextChange } from "./statement-change.ts";
import type { AssemblerOptions } from "./group-sink.ts";
import { StreamPosition } from "./stream-position.ts";
import { StreamProgress } from "./stream-progress.ts";
import type { SchemaWanted, TableShape } from "./table-shapes.ts";

type TableStatement = Extract<Statement, { kind: "tables" }>;

/** none: between groups. announced: a Gtid event was read, its BEGIN or statement comes next. */
const phase = { none: 0, announced: 1, open: 2 } as const;

export class GroupAssembler {
  readonly place = new StreamPosition();
  readonly progress: StreamProgress;
  readonly #options: AssemblerOptions;
  readonly #approach: Approach;
  readonly #slab = new Slab();
  readonly #gtid: GroupGtid = new GroupGtid();
  readonly #digest = new RowsDigest();
  #partial: PartialTransaction | null;
  #isLocated: boolean;
  #closed = false;

  #phase: number = phase.none;
  /** Serial number of the group: table maps hold within one. */
  #group = 0;
  #start: Position = { file: "", position: 0 };
  #startSeconds = 0;
  #serverId = 0;
  #isXa = false;
  #shape: TableShape | null = null;
  #rows: BufferedRows | null = null;
  #replay: ReplayedRows | null = null;
  #statements: TableStatement[] = [];

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.progress = new StreamProgress(options.from, options.flavour);
    const { file, position, partial } = options.from;
    this.#approach = new Approach(options.byPosition ? { file, position } : null, options.expected);
    this.#partial = partial;
    this.#isLocated = options.byPosition;
    this.place.mayJump = !options.byPosition;
  }

  /** A large group was told; the rest is for the second reading. */
  get closed(): boolean {
    return this.#closed;
  }

  get isOpen(): boolean {
    return this.#phase === phase.open;
  }

  /** Whether a group is read the second time, part by part. */
  get isReplaying(): boolean {
    return this.#partial !== null;
  }

  /** Whether everything of before the checkpoint is behind. */
  get hasArrived(): boolean {
    return this.#approach.arrived;
  }

  /**
   * The file ends here. Asked for GTIDs the server begins somewhere before them and says nothing of
   * what it skips: only the first thing that it does send, or a file's end, is a known place. Until
   * then a checkpoint must name no place, or a start from it would give again what was skipped.
   */
  endFile(): void {
    this.#isLocated = true;
  }

  /** After each event that is not inside a group: what was read is done. */
  boundary(): void {
    if (this.#phase !== phase.none || this.#closed) return;
    this.place.markBoundary();
    if (!this.#approach.arrived) this.#approach.reach(this.place);
    // A group that is half done is done when its last part is.
    if (this.#approach.arrived && this.#partial === null && this.#isLocated) this.progress.reach(this.place);
  }

  /** A Gtid event. */
  announce(buffer: Buffer, start: number, end: number): void {
    if (this.#phase !== phase.none)
      throw unreadableEvent("a transaction begins before the last one has ended");
    this.#open(buffer, start);
    this.#gtid.take(buffer, start, end);
    this.#isXa = this.#gtid.preparesXa;
    this.#phase = this.#gtid.impliesBegin ? phase.open : phase.announced;
  }

  begin(buffer: Buffer, start: number): void {
    if (this.#phase === phase.none) this.#open(buffer, start);
    this.#phase = phase.open;
  }

  /** Whether these rows are ones to keep; also takes their fingerprint. */
  wantsRows(buffer: Buffer, start: number, end: number, hasChecksum: boolean): boolean {
    this.#digest.add(buffer, start, end, hasChecksum);
    if (!this.#approach.arrived) return false;
    this.#shape = this.#options.shapes.find(buffer, start + HEADER_BYTES, this.#group);
    return this.#shape !== null;
  }

  rows(buffer: Buffer, start: number, end: number): void {
    const shape = this.#shape;
    if (shape === null) return;
    if (this.#phase === phase.none)
      throw unreadableEvent("rows of a followed table stand outside of any transaction");
    if (this.#isXa) throw xaFault();
    this.#phase = phase.open;
    if (this.#replay !== null) {
      this.#replay.add(shape, buffer, start, end);
      return;
    }
    this.#rows ??= new BufferedRows(this.#options.limits, this.#slab);
    const wasLarge = this.#rows.isLarge;
    this.#rows.add(shape, buffer, start, end);
    if (!wasLarge && this.#rows.isLarge) this.#options.sink.oddity("large_transaction", shape.plan.tableName);
  }

  knowsTableMap(buffer: Buffer, start: number, end: number): boolean {
    return !this.#approach.arrived || this.#options.shapes.takeKnown(buffer, start, end, this.#group);
  }

  tableMap(buffer: Buffer, start: number, end: number): SchemaWanted | null {
    return this.#options.shapes.takeNew(buffer, start, end, this.#group);
  }

  statement(statement: Statement, buffer: Buffer, start: number): void {
    const quiet = !this.#approach.arrived;
    switch (statement.kind) {
      case "begin":
      case "xaStart":
        this.begin(buffer, start);
        this.#isXa ||= statement.kind === "xaStart";
        return;
      case "xaEnd":
        return;
      case "savepoint":
        if (!quiet && this.#replay === null) this.#savepoint(statement.name);
        return;
      case "rollbackTo":
        if (!quiet && this.#replay === null) this.#rollbackTo(statement.name);
        return;
      case "rollback":
        this.end(false, null, 0);
        return;
      case "change":
        if (statement.touches && !quiet) throw statementFault(statement);
        break;
      case "tables":
        if (!quiet && this.#replay === null) this.#tables(statement);
        break;
      case "commit":
      case "xaDecision":
      case "other":
        break;
    }
    this.#endStandalone(statement.kind, buffer, start);
  }

  /** XA PREPARE: the decision comes in a later group, which does not name the rows. */
  prepared(): void {
    if (this.#rows?.hasLiveRows() === true) throw xaFault();
    this.end(false, null, 0);
  }

  /** A new file: the server stopped while it wrote the group, which it has then rolled back. */
  dropUnfinished(): void {
    if (this.#phase === phase.none) return;
    this.#phase = phase.none;
    this.#options.sink.oddity("unfinished_group", "");
  }

  /** The group's last event; `seconds` is its time. */
  end(committed: boolean, xid: string | null, seconds: number): void {
    if (this.#phase === phase.none) throw unreadableEvent("a transaction ends that has not begun");
    this.#phase = phase.none;
    this.#isLocated = true;
    const end = { file: this.place.file, position: this.place.position };
    const identity = this.#identity(end, xid);
    if (!this.#approach.arrived) {
      this.#approach.pass(identity);
      // Where the checkpoint knows no GTIDs, those on the way from the file's start make it known.
      if (this.#options.from.gtidSet === null && this.progress.gtidsKnown) this.#gtid.addTo(this.progress);
      return;
    }
    const rows = this.#rows;
    const commitTimeMs = this.#gtid.commitTimeMs ?? (seconds === 0 ? this.#startSeconds : seconds) * 1000;
    if (this.#replay !== null) {
      this.#endReplay(this.#replay, identity, committed);
    } else if (committed && rows?.hasLiveRows() === true) {
      this.#endRows(rows, identity, commitTimeMs);
    } else {
      if (rows !== null && !rows.isEmpty) this.#options.sink.oddity("rolled_back_group", "");
      const before = this.#statements.length === 0 || !committed ? null : this.progress.checkpoint(null);
      this.#finish(identity, commitTimeMs);
      if (before !== null) this.#tellTables({ end, commitTimeMs, before }, this.progress.checkpoint(null));
    }
  }

  #open(buffer: Buffer, start: number): void {
    this.#group += 1;
    this.place.mayJump = false;
    this.#start = { file: this.place.file, position: this.place.eventStart };
    this.#startSeconds = eventTimestamp(buffer, start);
    this.#serverId = eventServerId(buffer, start);
    this.#isXa = false;
    this.#rows = null;
    this.#replay = null;
    this.#statements = [];
    this.#digest.clear();
    this.#gtid.clear();
    if (this.#partial !== null && this.#approach.arrived) this.#replay = this.#openReplay(this.#partial);
  }

  /** The group that a checkpoint stands inside of is read again, part by part. */
  #openReplay(partial: PartialTransaction): ReplayedRows {
    const { file, position } = partial.start;
    if (file !== this.#start.file || position !== this.#start.position) {
      throw positionLost(
        "other_history",
        `the transaction at ${file}:${position} was half done, but one starts at ${this.#start.file}:${this.#start.position}`,
      );
    }
    return new ReplayedRows(partial, this.#options.limits, this.#slab, (part) => {
      const done = { ...partial, ordinal: part.nextOrdinal, events: 0 };
      this.#tellPart(part, { end: partial.end, isLast: false, checkpoint: this.progress.checkpoint(done) });
    });
  }

  #savepoint(name: string): void {
    this.#rows ??= new BufferedRows(this.#options.limits, this.#slab);
    this.#rows.savepoint(name);
  }

  #rollbackTo(name: string): void {
    if (this.#rows !== null && !this.#rows.rollbackTo(name) && this.#rows.hasLiveRows()) {
      throw unreadableEvent("a transaction rolls back to a savepoint that it has not set");
    }
  }

  #tables(statement: TableStatement): void {
    if (this.#phase === phase.none) this.#statements = [];
    this.#statements.push(statement);
    for (const { table } of statement.effects) this.#options.shapes.drop(table);
  }

  /** A statement that stands alone is a group of its own, and has committed. */
  #endStandalone(kind: Statement["kind"], buffer: Buffer, start: number): void {
    if (this.#phase === phase.open && kind !== "commit" && kind !== "xaDecision") return;
    if (this.#phase === phase.none) {
      const statements = kind === "tables" ? this.#statements : [];
      this.#open(buffer, start);
      this.#statements = statements;
      this.#phase = phase.announced;
    }
    this.end(true, null, eventTimestamp(buffer, start));
  }

  #endRows(rows: BufferedRows, identity: TransactionIdentity, commitTimeMs: number): void {
    const end = { file: identity.file, position: identity.endPosition };
    const before = this.progress.checkpoint(null);
    this.#tellTables({ end, commitTimeMs, before }, before);
    if (rows.isLarge) {
      this.#closed = true;
      const place = { ...before, file: this.#start.file, position: this.#start.position };
      const { rolledBack } = rows;
      const partial = { start: this.#start, end, gtid: this.#gtid.text(), ordinal: 0, events: 0, rolledBack };
      this.#options.sink.large({ ...place, partial });
      return;
    }
    this.#finish(identity, commitTimeMs);
    const { events, bytes, rowsAtMost } = rows;
    const part = { events, bytes, rows: rowsAtMost, firstOrdinal: 0, nextOrdinal: rowsAtMost };
    this.#tellPart(part, { end, isLast: true, checkpoint: this.progress.checkpoint(null) }, commitTimeMs);
  }

  #endReplay(replay: ReplayedRows, identity: TransactionIdentity, committed: boolean): void {
    const partial = this.#partial;
    if (!committed || partial === null || partial.end.position !== identity.endPosition) {
      throw positionLost(
        "other_history",
        `the transaction at ${this.#start.file}:${this.#start.position} was half done and is another one now`,
      );
    }
    this.#partial = null;
    this.#finish(identity, this.#gtid.commitTimeMs ?? this.#startSeconds * 1000);
    this.#tellPart(replay.takePart(), {
      end: partial.end,
      isLast: true,
      checkpoint: this.progress.checkpoint(null),
    });
  }

  /** Moves what is done behind the group. */
  #finish(identity: TransactionIdentity, commitTimeMs: number): void {
    const { progress } = this;
    this.#gtid.addTo(progress);
    if (commitTimeMs > progress.newestCommitMs) progress.newestCommitMs = commitTimeMs;
    this.place.markBoundary();
    progress.finish(this.place, identity);
  }

  #tellPart(
    part: CutPart,
    where: { readonly end: Position; readonly isLast: boolean; readonly checkpoint: Checkpoint },
    commitTimeMs = this.#gtid.commitTimeMs ?? this.#startSeconds * 1000,
  ): void {
    this.#options.sink.part({
      start: this.#start,
      end: where.end,
      gtid: this.#gtid.text(),
      serverId: this.#serverId,
      commitTimeMs,
      events: part.events,
      firstOrdinal: part.firstOrdinal,
      isLast: where.isLast,
      bytes: part.bytes,
      rowsAtMost: part.rows,
      checkpoint: where.checkpoint,
    });
  }

  /** One event for each table; only the last one of a group's items may say that it is done. */
  #tellTables(
    facts: { readonly end: Position; readonly commitTimeMs: number; readonly before: Checkpoint },
    done: Checkpoint,
  ): void {
    const effects = this.#statements.flatMap(({ effects: some, text }) =>
      some.map((effect) => ({ ...effect, text })),
    );
    for (const [index, { table, what, redefines, text }] of effects.entries()) {
      this.#options.sink.tableEvent({
        kind: "table",
        table,
        what,
        ...(redefines === undefined ? {} : { redefines }),
        statement: text,
        end: facts.end,
        gtid: this.#gtid.text(),
        serverId: this.#serverId,
        commitTimeMs: facts.commitTimeMs,
        checkpoint: index === effects.length - 1 ? done : facts.before,
      });
    }
  }

  #identity(end: Position, xid: string | null): TransactionIdentity {
    return {
      file: end.file,
      startPosition: this.#start.position,
      endPosition: end.position,
      gtid: this.#gtid.text(),
      xid,
      timestampSeconds: this.#startSeconds,
      rowsCrc32: this.#digest.text(),
    };
  }
}

function xaFault(): Error {
  return unreadableEvent(
    "a followed table was changed in an XA transaction, whose decision does not name its rows",
    "Let nothing change the shop's tables in XA transactions.",
  );
}

function statementFault({ verb, target }: TextChange): Error {
  const where = target === "" ? "" : ` (${target})`;
  return unreadableEvent(
    `a followed table can have been changed by ${verb} in statement format${where}, itself or by a view or trigger: it does not name the rows`,
    "Set binlog_format=ROW for all connections.",
  );
}
