/**
 * Body of one event, format version 1 (numbers are big-endian):
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
import type { Op, OutboundEvent, QueueLane, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { DamagedRecord } from "./damaged-record.ts";

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

/** An event from its body. `payload` is a view. Throws DamagedRecord. */
export function readEventBody(body: Buffer, { queue, lane, seq }: EventPlace): SpooledEvent {
  if (body.length < EVENT_HEADER_BYTES) throw new DamagedRecord("unreadable header");
  const flags = body.readUInt8(0);
  const waits = (flags & FLAG_WAITS) !== 0;
  const topicAt = EVENT_HEADER_BYTES + (waits ? WAITS_BYTES : 0);
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
    lane,
    otherLaneThrough: waits ? body.readDoubleBE(EVENT_HEADER_BYTES) : 0,
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
