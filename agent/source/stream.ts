/**
 * The stream between the server and whoever pulls: a queue of committed, not decoded parts, bounded
 * in bytes, behind one dump connection at a time. It outlives its connections: what is queued stays,
 * and the next connection goes on behind it.
 */
import type { Checkpoint, Position, SourceItem, TableEvent } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { actionOf, action, eventTypeAt } from "./binlog-event.ts";
import { BinlogReader } from "./binlog-reader.ts";
import { DumpConnection } from "./dump-connection.ts";
import type { RawPart } from "./group-sink.ts";
import { PartDecoder } from "./part-decoder.ts";
import { locatedError, translateError } from "./source-errors.ts";
import { FollowedNames } from "./followed-names.ts";
import type { StreamOpening, StreamParts } from "./stream-parts.ts";
import type { StreamPosition } from "./stream-position.ts";
import { type SchemaWanted, TableShapes } from "./table-shapes.ts";

/** What a dump begins with, before it looks at the position it was asked for. */
const announcements = new Set<number>([action.rotate, action.previousGtids, action.mariadbGtidList]);

export class Stream {
  /** Whether the last connection ended before it had come to where the checkpoint stands. */
  failedOnTheWay = false;
  /** Ends a `wait` after each event: somebody waits for a place that may give nothing to take. */
  wakesOnEvent = false;
  readonly #parts: StreamParts;
  readonly #shapes: TableShapes;
  readonly #decoder: PartDecoder;
  readonly #namedMissing = new Set<string>();
  /** What was taken is null until the array is cut: it must not keep a taken part's bytes alive. */
  #queue: (RawPart | TableEvent | null)[] = [];
  #queueAt = 0;
  #queuedBytes = 0;
  #reader: BinlogReader | null = null;
  #dump: DumpConnection | null = null;
  #watching = new AbortController();
  #from: Checkpoint | null;
  #failure: AgentError | null = null;
  #broken: AgentError | null = null;
  #wake: (() => void) | null = null;
  /** Checkpoint of the last item that was taken from the queue. */
  #taken: Checkpoint | null = null;
  #readingColumns = false;
  #pausedAtMs = 0;
  #lastPacketMs: number | null = null;
  #lastStepMs = 0;
  #silentTicks = 0;
  #streams = false;
  #formatAtMs: number | null = null;
  #heartbeatSeen = false;
  #progressAtMs = 0;
  #progressBytes = 0;
  #told: { file: string; position: number } = { file: "", position: -1 };

  constructor(parts: StreamParts, from: Checkpoint | null) {
    this.#parts = parts;
    this.#from = from;
    this.#decoder = new PartDecoder(parts.tables.length, parts.observer);
    this.#shapes = new TableShapes(parts, parts.tables, ({ tableName, missingColumns }) => {
      for (const column of missingColumns) this.#nameMissing(tableName, column);
    });
  }

  /** Where the next connection goes on: behind everything that is queued or was pulled. */
  get from(): Checkpoint | null {
    return this.#from;
  }

  get isConnected(): boolean {
    return this.#dump !== null;
  }

  get isPaused(): boolean {
    return this.#dump?.isPaused ?? false;
  }

  /** Where the connection reads; null while there is none, or it is paused. */
  get readsAt(): StreamPosition | null {
    const place = this.#reader?.groups.place;
    return place === undefined || place.file === "" || this.isPaused ? null : place;
  }

  /** Everything up to here was taken; null inside a transaction, or while nothing is known. */
  get delivered(): Position | null {
    if (this.#queueAt < this.#queue.length) return this.#taken?.partial === null ? this.#taken : null;
    const groups = this.#reader?.groups;
    if (groups === undefined || !groups.hasArrived || groups.isReplaying || groups.closed) return null;
    return groups.progress;
  }

  /** The same as a checkpoint. */
  deliveredCheckpoint(): Checkpoint | null {
    if (this.delivered === null) return null;
    if (this.#queueAt < this.#queue.length) return this.#taken;
    return this.#reader?.groups.progress.checkpoint(null) ?? null;
  }

  /** Whether a transaction ends there, of those that this connection has read lately. */
  endsAt(position: Position): boolean {
    return this.#reader?.groups.progress.endsAt(position) ?? false;
  }

  /** Ends a `wait`. */
  wakeUp(): void {
    this.#wake?.();
  }

  /**
   * Whether the server really streams: it may name file and format before it refuses a position,
   * so only something behind them counts, or that it stays silent for a while.
   */
  get isConfirmed(): boolean {
    if (this.#dump === null) return false;
    return (
      this.#streams || (this.#formatAtMs !== null && this.#parts.clock.monotonicMs() - this.#formatAtMs > 500)
    );
  }

  get silentMs(): number | null {
    return this.#lastPacketMs === null ? null : this.#parts.clock.monotonicMs() - this.#lastPacketMs;
  }

  /** Monotonic time of the last event that gave nothing to pull: of an open transaction, or repeated. */
  get lastStepMs(): number {
    return this.#lastStepMs;
  }

  /** Connects; what goes wrong from here on is `takeFailure`'s to say. */
  open({ flavour, from, expected, dump, memoryTables }: StreamOpening): void {
    const { database, tablePrefix, tables } = this.#parts;
    this.#from = from;
    this.#shapes.clear();
    this.#readingColumns = false;
    const reader = new BinlogReader({
      flavour,
      names: new FollowedNames(
        database,
        tables.map(({ table }) => `${tablePrefix}${table}`),
        memoryTables,
        tables.map(({ columns }) => columns),
      ),
      shapes: this.#shapes,
      limits: this.#parts.limits.parts,
      from,
      byPosition: dump.start.kind === "position",
      expected,
      sink: {
        part: (part) => this.#enqueue(part, part.bytes),
        tableEvent: (event) => this.#enqueue(event, 0),
        large: (checkpoint) => this.#readAgain(checkpoint),
        oddity: (what, table) => this.#parts.observer.oddity(what, table),
      },
    });
    if (dump.start.kind === "position") reader.groups.place.start(dump.start.file, dump.start.position);
    reader.groups.boundary();
    this.#reader = reader;
    this.#lastPacketMs = this.#parts.clock.monotonicMs();
    this.#silentTicks = 0;
    this.#streams = false;
    this.#formatAtMs = null;
    this.#dump = new DumpConnection(dump, {
      event: (buffer, start, end) => this.#takeEvent(reader, buffer, start, end),
      failed: (error) => this.#end(locatedError(error, placeOf(reader))),
    });
    this.#watching = new AbortController();
    void this.#watch(this.#watching.signal);
    this.#dump.open();
  }

  /** Ends the connection, with a failure as a lost one; the queue stays. */
  close(failure: AgentError | null = null): void {
    this.#end(failure);
  }

  /** What is at hand, decoded; null when nothing is. Throws what makes a part unreadable. */
  take(): SourceItem[] | null {
    if (this.#broken !== null) throw this.#broken;
    const items: SourceItem[] = [];
    let rows = 0;
    let bytes = 0;
    const { limits } = this.#parts;
    while (this.#queueAt < this.#queue.length && rows < limits.pullRows && bytes < limits.pullBytes) {
      const next = this.#queue[this.#queueAt];
      if (next === undefined || next === null) break;
      const item = this.#decoded(next);
      if (item === null) break;
      this.#queue[this.#queueAt] = null;
      this.#queueAt += 1;
      if ("bytes" in next) bytes += next.bytes;
      if (item.kind === "transaction") rows += item.changes.length;
      items.push(item);
    }
    this.#queuedBytes -= bytes;
    if (this.#queueAt === this.#queue.length || this.#queueAt > 4_096) {
      this.#queue = this.#queue.slice(this.#queueAt);
      this.#queueAt = 0;
    }
    const last = items.at(-1);
    if (last !== undefined) {
      this.#taken = last.checkpoint;
      this.#noteTold(last.checkpoint);
    }
    if (this.#broken === null) this.#goOn();
    if (items.length > 0) return items;
    if (this.#broken !== null) throw this.#broken;
    return this.#takeProgress();
  }

  /** Why the connection ended, once. */
  takeFailure(): AgentError | null {
    const failure = this.#failure;
    this.#failure = null;
    return failure;
  }

  /** Resolves when there may be something to take, or the connection has ended. */
  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener("abort", done);
        this.#wake = null;
        resolve();
      };
      this.#wake = done;
      signal.addEventListener("abort", done, { once: true });
      if (signal.aborted || this.#queueAt < this.#queue.length || this.#dump === null) done();
    });
  }

  #decoded(next: RawPart | TableEvent): SourceItem | null {
    if ("kind" in next) return next;
    try {
      return this.#decoder.decode(next);
    } catch (thrown) {
      if (!(thrown instanceof AgentError)) throw thrown;
      const { file, position } = next.start;
      this.#broken = locatedError(thrown, `transaction at ${file}:${position}`);
      this.close();
      return null;
    }
  }

  #takeProgress(): SourceItem[] | null {
    const groups = this.#reader?.groups;
    if (groups === undefined || !groups.hasArrived || groups.isReplaying || groups.closed) return null;
    const { file, position } = groups.progress;
    const moved = file !== this.#told.file || position !== this.#told.position;
    const nowMs = this.#parts.clock.monotonicMs();
    const due =
      nowMs - this.#progressAtMs >= this.#parts.limits.progressMs ||
      this.#progressBytes >= this.#parts.limits.progressBytes;
    if (!this.#heartbeatSeen && !(moved && due)) return null;
    this.#heartbeatSeen = false;
    const checkpoint = groups.progress.checkpoint(null);
    const commitTimeMs = moved && checkpoint.newestCommitMs > 0 ? checkpoint.newestCommitMs : null;
    this.#noteTold(checkpoint);
    return [{ kind: "progress", commitTimeMs, checkpoint }];
  }

  #noteTold(checkpoint: Checkpoint): void {
    this.#told = { file: checkpoint.file, position: checkpoint.position };
    this.#progressAtMs = this.#parts.clock.monotonicMs();
    this.#progressBytes = 0;
  }

  #enqueue(item: RawPart | TableEvent, bytes: number): void {
    this.#queue.push(item);
    this.#queuedBytes += bytes;
    this.#from = item.checkpoint;
    if (this.#queuedBytes > this.#parts.limits.queueBytes) this.#pause();
    this.#wake?.();
  }

  #takeEvent(reader: BinlogReader, buffer: Buffer, start: number, end: number): void {
    this.#lastPacketMs = this.#parts.clock.monotonicMs();
    this.#silentTicks = 0;
    this.#parts.observer.bytesRead(end - start);
    this.#progressBytes += end - start;
    const what = actionOf(eventTypeAt(buffer, start));
    if (what === action.format) this.#formatAtMs ??= this.#lastPacketMs;
    else if (!announcements.has(what)) this.#streams = true;
    if (what === action.heartbeat) {
      this.#heartbeatSeen = true;
      this.#wake?.();
      return;
    }
    const wanted = reader.push(buffer, start, end);
    if (reader.groups.isOpen || !reader.groups.hasArrived) this.#lastStepMs = this.#lastPacketMs;
    if (wanted !== null) {
      // The packet's memory is used again before the columns are known.
      void this.#provideColumns(reader, wanted, Buffer.from(buffer.subarray(start, end)));
    } else if (this.wakesOnEvent || this.#progressBytes >= this.#parts.limits.progressBytes) this.#wake?.();
  }

  async #provideColumns(reader: BinlogReader, wanted: SchemaWanted, event: Buffer): Promise<void> {
    this.#readingColumns = true;
    this.#pause();
    let failure: AgentError | null = null;
    try {
      const columns = await this.#parts.readColumns(wanted.table);
      if (reader !== this.#reader) return;
      if (columns === null) {
        throw new AgentError(
          "SCHEMA_UNKNOWN",
          `table ${wanted.table} is not there any more, and the binlog does not name its columns`,
        );
      }
      this.#shapes.provide(wanted.tableIndex, columns);
      reader.push(event, 0, event.length);
    } catch (thrown) {
      failure = translateError(thrown);
    }
    if (reader !== this.#reader) return;
    this.#readingColumns = false;
    if (failure === null) this.#goOn();
    else this.#end(locatedError(failure, placeOf(reader)));
  }

  /** The assembler's verdict comes in the middle of its work: the connection ends behind it. */
  #readAgain(checkpoint: Checkpoint): void {
    queueMicrotask(() => {
      if (this.#reader?.groups.closed !== true) return;
      this.#end(null);
      this.#from = checkpoint;
      this.#wake?.();
    });
  }

  #pause(): void {
    if (this.#dump === null || this.#dump.isPaused) return;
    this.#pausedAtMs = this.#parts.clock.monotonicMs();
    this.#dump.pause();
  }

  #goOn(): void {
    if (this.#dump === null || !this.#dump.isPaused || this.#readingColumns) return;
    if (this.#queuedBytes > this.#parts.limits.queueBytes / 2) return;
    this.#lastPacketMs = this.#parts.clock.monotonicMs();
    this.#dump.resume();
  }

  #end(failure: AgentError | null): void {
    const groups = this.#reader?.groups;
    this.failedOnTheWay = groups?.hasArrived === false;
    if (groups?.hasArrived === true && !groups.isReplaying && !groups.closed) {
      this.#from = groups.progress.checkpoint(null);
    }
    this.#watching.abort();
    this.#dump?.close();
    this.#dump = null;
    this.#reader = null;
    this.#failure = failure;
    this.#wake?.();
  }

  /** Looks at the clock for everything that no packet tells. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { clock, limits } = this.#parts;
    const tickMs = Math.min(limits.progressMs, limits.pauseMs / 4, limits.heartbeatMs);
    for (;;) {
      await clock.sleep(tickMs, signal);
      if (signal.aborted) return;
      const nowMs = clock.monotonicMs();
      if (this.#dump?.isPaused === true) {
        if (nowMs - this.#pausedAtMs < limits.pauseMs) continue;
        this.#parts.log.info("nothing is pulled: the dump connection is closed, and resumed by position");
        this.#end(null);
        return;
      }
      const silentMs = nowMs - (this.#lastPacketMs ?? nowMs);
      this.#silentTicks = silentMs > 3 * limits.heartbeatMs ? this.#silentTicks + 1 : 0;
      // A second look: this process may itself have been too busy to read.
      if (this.#silentTicks >= 2) {
        this.#end(
          new AgentError(
            "SOURCE_UNREACHABLE",
            `no packet for ${Math.round(silentMs / 1000)} s, not even a heartbeat`,
          ),
        );
        return;
      }
      this.#wake?.();
    }
  }

  #nameMissing(table: string, column: string): void {
    const name = `${table}.${column}`;
    if (this.#namedMissing.has(name)) return;
    this.#namedMissing.add(name);
    this.#parts.log.notice("the shop's table has no such column; its field is left out", { table, column });
  }
}

/** Of the event in hand. */
function placeOf({ groups: { place } }: BinlogReader): string {
  return `${place.file}:${place.eventStart}`;
}
