/**
 * Bytes of a record, format version 1. Final: a later version reads it too.
 *
 * Every value in the database stands in one frame (numbers are big-endian):
 *
 *   offset  size  what
 *        0     1  format version (1)
 *        1     4  CRC-32 (zlib's) over the key, then everything from offset 5 on
 *        5     4  length of the body
 *        9     n  body; the value ends with it
 *
 * Body of a queue record (offsets from the start of the value):
 *
 *        9     1  flags: 1 = control event, 2 = barrier, 4 = oversize
 *       10     1  operation: 0 = none, or the letter c, u, d, r in ASCII
 *       11     8  commitTimeMs, IEEE 754 double
 *       19     8  capturedAtMs, IEEE 754 double
 *       27     2  bytes of topic; 0 = the same as the queue's name
 *       29     2  bytes of table
 *       31     2  bytes of event id
 *       33     4  bytes of entity key
 *       37        topic, table, event id, entity key in UTF-8, without separators
 *              m  payload: what is left, as it was given
 *
 * Body of a meta record: JSON in UTF-8. Body of an index record: the caller's bytes. Body of a
 * quarantine record: length of the verdict (4), the verdict as JSON, then the body of the queue
 * record as above.
 *
 * The key is part of the checksum, so a sound value under a wrong key is damage too. Records name
 * their table and topic in full: one can be read without any other record being sound.
 */
import { crc32 } from "node:zlib";
import { STATE_FORMAT_VERSION } from "../change.ts";
import type { Op, OutboundEvent, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";

/** Bytes before the body. */
export const FRAME_BYTES = 9;
const HEADER_BYTES = 28;
/** Bytes that a record takes beside its payload and texts; for estimates. */
export const RECORD_OVERHEAD_BYTES = FRAME_BYTES + HEADER_BYTES;

const CRC_FROM = 5;
const FLAG_CONTROL = 1;
const FLAG_BARRIER = 2;
const FLAG_OVERSIZE = 4;
const KNOWN_FLAGS = FLAG_CONTROL | FLAG_BARRIER | FLAG_OVERSIZE;
const MAX_SHORT_TEXT_BYTES = 0xffff;
/** Slabs above this are made for one record and dropped. */
const KEPT_SLAB_BYTES = 1024 * 1024;

/** Why a value is not what was written; null means that it is. */
export type Damage = "unknown format version" | "wrong length" | "wrong checksum" | "unreadable header";

/** A value that is not what was written. The spool's edge turns it into SPOOL_CORRUPT. */
export class DamagedRecord extends Error {
  override readonly name = "DamagedRecord";
  readonly damage: Damage;

  constructor(damage: Damage) {
    super(damage);
    this.damage = damage;
  }
}

/**
 * Writes records into one reused slab. What a call returns is good until the next call; the
 * database copies it at once.
 */
export class RecordEncoder {
  #slab: Buffer = Buffer.allocUnsafeSlow(64 * 1024);

  /** The value of an event under its key. */
  event(key: Buffer, event: OutboundEvent): Buffer {
    const slab = this.#slabOf(FRAME_BYTES + eventBodyBound(event));
    return seal(slab, key, writeEventBody(slab, FRAME_BYTES, event));
  }

  /** The value of a quarantined event under its key. */
  quarantined(key: Buffer, event: OutboundEvent, verdict: Buffer): Buffer {
    const slab = this.#slabOf(FRAME_BYTES + 4 + verdict.length + eventBodyBound(event));
    slab.writeUInt32BE(verdict.length, FRAME_BYTES);
    verdict.copy(slab, FRAME_BYTES + 4);
    return seal(slab, key, writeEventBody(slab, FRAME_BYTES + 4 + verdict.length, event));
  }

  /** Any body under its key. */
  bytes(key: Buffer, body: Buffer): Buffer {
    const slab = this.#slabOf(FRAME_BYTES + body.length);
    body.copy(slab, FRAME_BYTES);
    return seal(slab, key, FRAME_BYTES + body.length);
  }

  /** A JSON value under its key. */
  json(key: Buffer, value: unknown): Buffer {
    return this.bytes(key, Buffer.from(JSON.stringify(value)));
  }

  #slabOf(bytes: number): Buffer {
    if (bytes <= this.#slab.length) return this.#slab;
    const slab = Buffer.allocUnsafeSlow(2 ** Math.ceil(Math.log2(bytes)));
    if (slab.length <= KEPT_SLAB_BYTES) this.#slab = slab;
    return slab;
  }
}

/** More than the body can take: a UTF-16 unit is at most three bytes of UTF-8. */
function eventBodyBound(event: OutboundEvent): number {
  const texts = event.topic.length + event.table.length + event.id.length + event.entityKey.length;
  return HEADER_BYTES + texts * 3 + event.payload.length;
}

function writeEventBody(slab: Buffer, start: number, event: OutboundEvent): number {
  slab[start] =
    (event.kind === "control" ? FLAG_CONTROL : 0) |
    (event.barrier ? FLAG_BARRIER : 0) |
    (event.oversize ? FLAG_OVERSIZE : 0);
  slab[start + 1] = event.op === "" ? 0 : event.op.charCodeAt(0);
  slab.writeDoubleBE(event.commitTimeMs, start + 2);
  slab.writeDoubleBE(event.capturedAtMs, start + 10);
  let at = start + HEADER_BYTES;
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

function seal(slab: Buffer, key: Buffer, end: number): Buffer {
  slab[0] = STATE_FORMAT_VERSION;
  slab.writeUInt32BE(end - FRAME_BYTES, CRC_FROM);
  slab.writeUInt32BE(crc32(slab.subarray(CRC_FROM, end), crc32(key)), 1);
  return slab.subarray(0, end);
}

/** The body of a value that was proven sound: version, length and checksum. Throws DamagedRecord. */
export function openFrame(key: Buffer, value: Buffer): Buffer {
  if (value.length < FRAME_BYTES || value.readUInt32BE(CRC_FROM) !== value.length - FRAME_BYTES) {
    throw new DamagedRecord("wrong length");
  }
  if (value[0] !== STATE_FORMAT_VERSION) throw new DamagedRecord("unknown format version");
  if (crc32(value.subarray(CRC_FROM), crc32(key)) !== value.readUInt32BE(1)) {
    throw new DamagedRecord("wrong checksum");
  }
  return value.subarray(FRAME_BYTES);
}

/**
 * The JSON text of a meta record, proven sound. Throws DamagedRecord. The checksum proves that this
 * is what an agent of this format wrote under this key, so its shape is not checked again.
 */
export function decodeJson(key: Buffer, value: Buffer): string {
  return openFrame(key, value).toString("utf8");
}

/** Where a record stands, as its key says. */
export interface RecordPlace {
  readonly queue: string;
  readonly seq: Seq;
}

/** An event, proven sound. `payload` is a view into `value`. Throws DamagedRecord. */
export function decodeEvent(key: Buffer, value: Buffer, place: RecordPlace): SpooledEvent {
  return readEventBody(openFrame(key, value), place);
}

/** A quarantined event and its verdict as JSON text, proven sound. Throws DamagedRecord. */
export function decodeQuarantined(
  key: Buffer,
  value: Buffer,
  place: RecordPlace,
): { readonly verdict: string; readonly event: SpooledEvent } {
  const body = openFrame(key, value);
  const end = body.length < 4 ? Infinity : 4 + body.readUInt32BE(0);
  if (end > body.length) throw new DamagedRecord("unreadable header");
  return {
    verdict: body.toString("utf8", 4, end),
    event: readEventBody(body.subarray(end), place),
  };
}

function readEventBody(body: Buffer, { queue, seq }: RecordPlace): SpooledEvent {
  if (body.length < HEADER_BYTES) throw new DamagedRecord("unreadable header");
  const flags = body.readUInt8(0);
  const topicAt = HEADER_BYTES;
  const tableAt = topicAt + body.readUInt16BE(18);
  const idAt = tableAt + body.readUInt16BE(20);
  const entityKeyAt = idAt + body.readUInt16BE(22);
  const payloadAt = entityKeyAt + body.readUInt32BE(24);
  // Unknown flags under a sound checksum would be an agent's fault; guessing could deliver wrongly.
  if (payloadAt > body.length || (flags & ~KNOWN_FLAGS) !== 0) throw new DamagedRecord("unreadable header");
  return {
    seq,
    kind: (flags & FLAG_CONTROL) === 0 ? "entity" : "control",
    queue,
    topic: tableAt === topicAt ? queue : body.toString("utf8", topicAt, tableAt),
    table: body.toString("utf8", tableAt, idAt),
    op: opOf(body.readUInt8(1)),
    id: body.toString("utf8", idAt, entityKeyAt),
    entityKey: body.toString("utf8", entityKeyAt, payloadAt),
    commitTimeMs: body.readDoubleBE(2),
    capturedAtMs: body.readDoubleBE(10),
    barrier: (flags & FLAG_BARRIER) !== 0,
    oversize: (flags & FLAG_OVERSIZE) !== 0,
    payload: body.subarray(payloadAt),
  };
}

function opOf(byte: number): Op | "" {
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
      throw new DamagedRecord("unreadable header");
  }
}
