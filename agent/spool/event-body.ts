/**
 * Body of one event, format version 2 (numbers are big-endian):
 *
 *   offset  size  what
 *        0     1  flags: 1 = control event, 2 = barrier, 4 = oversize, 8 = waits for the other lane
 *        1     1  operation: 0 = none, or the letter c, u, d, r in ASCII
 *        2     8  commitTimeMs, IEEE 754 double
 *       10     8  capturedAtMs, IEEE 754 double
 *       18     2  bytes of topic; 0 = the same as the queue's name
 *       20     2  bytes of table
 *       22     2  bytes of event id
 *       24     4  bytes of entity key
 *       28     8  only with flag 8: otherLaneThrough, IEEE 754 double
 *                 topic, table, event id, entity key in UTF-8, without separators
 *              m  payload: what is left, as it was given
 */
import type { EventBytes, EventKind, Op, OutboundEvent, QueueLane, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { DamagedRecord } from "./damaged-record.ts";
import type { RunMemory } from "./run-memory.ts";

/** Bytes of a body beside its texts and its payload. */
export const EVENT_HEADER_BYTES = 28;

const FLAG_CONTROL = 1;
const FLAG_BARRIER = 2;
const FLAG_OVERSIZE = 4;
const FLAG_WAITS = 8;
const KNOWN_FLAGS = FLAG_CONTROL | FLAG_BARRIER | FLAG_OVERSIZE | FLAG_WAITS;
/** Bytes of `otherLaneThrough`, where there is one. */
const WAITS_BYTES = 8;
const MAX_SHORT_TEXT_BYTES = 0xffff;

/** Where an event stands, as its record's key says. */
export interface EventPlace extends QueueLane {
  readonly seq: Seq;
  /** What its bytes lie in, where that is to be given back when all in it are done. */
  readonly memory?: RunMemory | null;
}

/** More than the body can take: a UTF-16 unit is at most three bytes of UTF-8. */
export function eventBodyBound(event: OutboundEvent): number {
  const texts = event.topic.length + event.table.length + event.id.length + event.entityKey.length;
  return EVENT_HEADER_BYTES + WAITS_BYTES + texts * 3 + event.payload.length;
}

/** Writes the body at `start` and says where it ends. The slab has room for `eventBodyBound`. */
export function writeEventBody(
  slab: Buffer,
  start: number,
  event: OutboundEvent,
  otherLaneThrough: Seq,
): number {
  slab[start] =
    (event.kind === "control" ? FLAG_CONTROL : 0) |
    (event.barrier ? FLAG_BARRIER : 0) |
    (event.oversize ? FLAG_OVERSIZE : 0) |
    (otherLaneThrough > 0 ? FLAG_WAITS : 0);
  slab[start + 1] = event.op === "" ? 0 : event.op.charCodeAt(0);
  slab.writeDoubleBE(event.commitTimeMs, start + 2);
  slab.writeDoubleBE(event.capturedAtMs, start + 10);
  let at = start + EVENT_HEADER_BYTES;
  if (otherLaneThrough > 0) at = slab.writeDoubleBE(otherLaneThrough, at);
  const topic = event.topic === event.queue ? 0 : slab.write(event.topic, at);
  at += topic;
  const table = slab.write(event.table, at);
  at += table;
  const id = slab.write(event.id, at);
  at += id;
  const entityKey = slab.write(event.entityKey, at);
  at += entityKey;
  assert(
    topic <= MAX_SHORT_TEXT_BYTES && table <= MAX_SHORT_TEXT_BYTES && id <= MAX_SHORT_TEXT_BYTES,
    "topic, table and event id are shorter than 64 KiB",
  );
  slab.writeUInt16BE(topic, start + 18);
  slab.writeUInt16BE(table, start + 20);
  slab.writeUInt16BE(id, start + 22);
  slab.writeUInt32BE(entityKey, start + 24);
  return at + event.payload.copy(slab, at);
}

/**
 * An event in the bytes that it was read in. What is asked of it is read from there: nearly all events
 * are only passed on, and objects of their texts by the hundred thousand would cost more than that.
 */
class StoredEvent implements SpooledEvent, EventBytes {
  readonly seq: Seq;
  readonly queue: string;
  readonly lane: QueueLane["lane"];
  readonly table: string;
  of: Buffer;
  idAt: number;
  idEnd: number;
  payloadAt: number;
  payloadEnd: number;
  #start: number;
  #memory: RunMemory | null;
  readonly #flags: number;

  constructor(bytes: Buffer, start: number, end: number, place: EventPlace) {
    if (end - start < EVENT_HEADER_BYTES) throw new DamagedRecord("unreadable header");
    const flags = bytes.readUInt8(start);
    const waitsBytes = (flags & FLAG_WAITS) === 0 ? 0 : WAITS_BYTES;
    const tableAt = start + EVENT_HEADER_BYTES + waitsBytes + bytes.readUInt16BE(start + 18);
    this.idAt = tableAt + bytes.readUInt16BE(start + 20);
    this.idEnd = this.idAt + bytes.readUInt16BE(start + 22);
    this.payloadAt = this.idEnd + bytes.readUInt32BE(start + 24);
    this.payloadEnd = end;
    // Unknown flags under a sound checksum would be an agent's fault; guessing could deliver wrongly.
    if (this.payloadAt > end || (flags & ~KNOWN_FLAGS) !== 0) throw new DamagedRecord("unreadable header");
    this.of = bytes;
    this.#start = start;
    this.#memory = place.memory ?? null;
    this.#flags = flags;
    this.seq = place.seq;
    this.queue = place.queue;
    this.lane = place.lane;
    this.table = tables.text(bytes, tableAt, this.idAt);
    checkOp(bytes.readUInt8(start + 1));
  }

  get bytes(): EventBytes {
    return this;
  }

  detach(): void {
    const start = this.#start;
    const length = this.payloadEnd - start;
    if (length === this.of.length) return;
    const own = Buffer.allocUnsafeSlow(length);
    this.of.copy(own, 0, start, this.payloadEnd);
    this.of = own;
    this.idAt -= start;
    this.idEnd -= start;
    this.payloadAt -= start;
    this.payloadEnd = length;
    this.#start = 0;
    this.release();
  }

  release(): void {
    const memory = this.#memory;
    this.#memory = null;
    memory?.release();
  }

  get kind(): EventKind {
    return (this.#flags & FLAG_CONTROL) === 0 ? "entity" : "control";
  }

  get barrier(): boolean {
    return (this.#flags & FLAG_BARRIER) !== 0;
  }

  get oversize(): boolean {
    return (this.#flags & FLAG_OVERSIZE) !== 0;
  }

  get otherLaneThrough(): Seq {
    return (this.#flags & FLAG_WAITS) === 0 ? 0 : this.of.readDoubleBE(this.#start + EVENT_HEADER_BYTES);
  }

  get topic(): string {
    const length = this.of.readUInt16BE(this.#start + 18);
    if (length === 0) return this.queue;
    const at = this.#start + EVENT_HEADER_BYTES + ((this.#flags & FLAG_WAITS) === 0 ? 0 : WAITS_BYTES);
    return this.of.toString("utf8", at, at + length);
  }

  get op(): Op | "" {
    return opOf(this.of.readUInt8(this.#start + 1)) ?? "";
  }

  get id(): string {
    return this.of.toString("utf8", this.idAt, this.idEnd);
  }

  get entityKey(): string {
    return this.of.toString("utf8", this.idEnd, this.payloadAt);
  }

  get commitTimeMs(): number {
    return this.of.readDoubleBE(this.#start + 2);
  }

  get capturedAtMs(): number {
    return this.of.readDoubleBE(this.#start + 10);
  }

  get payload(): Buffer {
    return this.of.subarray(this.payloadAt, this.payloadEnd);
  }
}

/** A text that is mostly the same as the last time is made once. */
class RepeatedText {
  #bytes: Buffer = Buffer.alloc(0);
  #text = "";

  text(bytes: Buffer, start: number, end: number): string {
    if (
      end - start !== this.#bytes.length ||
      bytes.compare(this.#bytes, 0, this.#bytes.length, start, end) !== 0
    ) {
      this.#bytes = Buffer.from(bytes.subarray(start, end));
      this.#text = this.#bytes.toString("utf8");
    }
    return this.#text;
  }
}

/** Runs of a queue follow one another, and a queue is mostly of one table. */
const tables = new RepeatedText();

/** The event whose body is bytes[start, end), which it keeps. Throws DamagedRecord. */
export function readEventBody(bytes: Buffer, start: number, end: number, place: EventPlace): SpooledEvent {
  return new StoredEvent(bytes, start, end, place);
}

function checkOp(byte: number): void {
  if (opOf(byte) === null) throw new DamagedRecord("unreadable header");
}

function opOf(byte: number): Op | "" | null {
  switch (byte) {
    case 0:
      return "";
    case 0x63:
      return "c";
    case 0x75:
      return "u";
    case 0x64:
      return "d";
    case 0x72:
      return "r";
    default:
      return null;
  }
}
