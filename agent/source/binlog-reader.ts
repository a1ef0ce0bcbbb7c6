/**
 * Reads the events of one dump connection in their order: lengths, positions, checksums, and which
 * event means what. What a group becomes is the assembler's business. Pure: it knows no server.
 */
import { AgentError } from "../kernel/errors.ts";
import {
  action,
  actionOf,
  CHECKSUM_BYTES,
  checksumFits,
  eventEndLow,
  eventLength,
  eventServerId,
  eventTimestamp,
  eventTypeAt,
  FILE_START,
  formatHasChecksum,
  HEADER_BYTES,
  isArtificial,
  isIgnorable,
  parseQuery,
  queryIs,
  rotateTarget,
  unreadableEvent,
  xidText,
} from "./binlog-event.ts";
import { GroupAssembler } from "./group-assembler.ts";
import { seedGtids } from "./group-gtid.ts";
import type { AssemblerOptions } from "./group-sink.ts";
import { readStatement } from "./statement.ts";
import type { SchemaWanted } from "./table-shapes.ts";

const BEGIN = Buffer.from("BEGIN");
const COMMIT = Buffer.from("COMMIT");

export class BinlogReader {
  readonly groups: GroupAssembler;
  readonly #options: AssemblerOptions;
  #hasChecksum = false;

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.groups = new GroupAssembler(options);
  }

  /**
   * Takes the event that stands in the buffer from `start` to `end`. Null when it is taken; else
   * nothing changed, and the same event is to be given again when the columns are provided. After
   * an error the reader is of no more use.
   */
  push(buffer: Buffer, start: number, end: number): SchemaWanted | null {
    if (this.groups.closed) return null;
    const what = actionOf(eventTypeAt(buffer, start));
    if (end - start < HEADER_BYTES || eventLength(buffer, start) !== end - start) {
      throw unreadableEvent("an event's length does not fit its packet");
    }
    if (what === action.heartbeat) return null;
    const { place } = this.groups;
    if (isArtificial(buffer, start)) {
      this.#takeArtificial(what, buffer, start, end);
      return null;
    }
    if (this.#isRepeated(what, buffer, start)) {
      if (what === action.format) this.#hasChecksum = formatHasChecksum(buffer, start, end);
      return null;
    }
    place.measure(end - start, eventEndLow(buffer, start));
    const bodyEnd = this.#hasChecksum ? end - CHECKSUM_BYTES : end;
    if (what === action.rows) {
      if (this.groups.wantsRows(buffer, start, end, this.#hasChecksum)) {
        this.#verify(buffer, start, end);
        this.groups.rows(buffer, start, bodyEnd);
      }
      place.take();
      return null;
    }
    if (what === action.tableMap) {
      if (!this.groups.knowsTableMap(buffer, start, bodyEnd)) {
        this.#verify(buffer, start, end);
        const wanted = this.groups.tableMap(buffer, start, bodyEnd);
        if (wanted !== null) return wanted;
      }
      place.take();
      return null;
    }
    this.#takeOther(what, buffer, start, end);
    return null;
  }

  /** Events that the dump repeats when it starts inside a file: they stand elsewhere. */
  #isRepeated(what: number, buffer: Buffer, start: number): boolean {
    const { position } = this.groups.place;
    if (what === action.format) return position !== FILE_START;
    if (what !== action.previousGtids && what !== action.mariadbGtidList) return false;
    const endLow = eventEndLow(buffer, start);
    return endLow === 0 || endLow !== (position + eventLength(buffer, start)) % 0x1_0000_0000;
  }

  #takeArtificial(what: number, buffer: Buffer, start: number, end: number): void {
    if (what === action.rotate) {
      this.#requireServer(eventServerId(buffer, start));
      // The first event of a connection comes before anything says whether there are checksums.
      const bodyEnd = checksumFits(buffer, start, end) ? end - CHECKSUM_BYTES : end;
      this.groups.place.rotate(rotateTarget(buffer, start, bodyEnd));
      this.groups.boundary();
    } else if (what === action.format) {
      this.#hasChecksum = formatHasChecksum(buffer, start, end);
    }
  }

  /** The questions before the dump went over another connection, which may have led elsewhere. */
  #requireServer(serverId: number): void {
    const expected = this.#options.from.serverId;
    if (serverId === expected) return;
    throw new AgentError(
      "SOURCE_UNREACHABLE",
      `server ${serverId} answered, and server ${expected} a moment before: the address changes its server`,
    );
  }

  #verify(buffer: Buffer, start: number, end: number): void {
    if (this.#hasChecksum && !checksumFits(buffer, start, end)) {
      throw unreadableEvent("an event's checksum does not fit its bytes");
    }
  }

  #takeOther(what: number, buffer: Buffer, start: number, end: number): void {
    const { groups } = this;
    if (what !== action.pass && what !== action.format) this.#verify(buffer, start, end);
    const bodyEnd = this.#hasChecksum ? end - CHECKSUM_BYTES : end;
    groups.place.take();
    switch (what) {
      case action.mariadbGtid:
      case action.mysqlGtid:
        groups.announce(buffer, start, bodyEnd);
        return;
      case action.query:
      case action.loadQuery:
        this.#takeQuery(buffer, start, bodyEnd);
        break;
      case action.xid:
        groups.end(true, xidText(buffer, start), eventTimestamp(buffer, start));
        break;
      case action.xaPrepare:
        groups.prepared();
        break;
      case action.format:
        this.#hasChecksum = formatHasChecksum(buffer, start, end);
        groups.dropUnfinished();
        break;
      case action.mariadbGtidList:
      case action.previousGtids:
        seedGtids(buffer, start, bodyEnd, groups.progress);
        break;
      case action.rotate:
        groups.place.rotate(rotateTarget(buffer, start, bodyEnd));
        groups.endFile();
        break;
      case action.unreadable:
      case action.unknown:
        // What lies before the checkpoint is not delivered; only its places and GTIDs count.
        if (!groups.hasArrived) this.#passOver(buffer, start);
        else if (!isIgnorable(buffer, start)) refuse(eventTypeAt(buffer, start));
        break;
      default:
    }
    groups.boundary();
  }

  /** A compressed transaction holds its own end. */
  #passOver(buffer: Buffer, start: number): void {
    if (eventTypeAt(buffer, start) === TRANSACTION_PAYLOAD) {
      this.groups.end(true, null, eventTimestamp(buffer, start));
    }
  }

  #takeQuery(buffer: Buffer, start: number, end: number): void {
    if (queryIs(buffer, start, end, BEGIN)) this.groups.begin(buffer, start);
    else if (queryIs(buffer, start, end, COMMIT) && this.groups.isOpen) {
      this.groups.end(true, null, eventTimestamp(buffer, start));
    } else
      this.groups.statement(
        readStatement(parseQuery(buffer, start, end), this.#options.names),
        buffer,
        start,
      );
  }
}

const TRANSACTION_PAYLOAD = 40;

function refuse(type: number): never {
  if (type === TRANSACTION_PAYLOAD) {
    throw unreadableEvent(
      "a transaction is compressed",
      "Set binlog_transaction_compression=OFF on the server.",
    );
  }
  if (type === 26) throw unreadableEvent("the server recorded an incident: changes were lost to the binlog");
  throw unreadableEvent(`events of type ${type} are not read, and may carry rows`);
}
