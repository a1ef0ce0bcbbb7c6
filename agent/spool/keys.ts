/**
 * Keys of the spool's database. The first byte is the room; within a room keys sort by what is
 * read in order:
 *
 *   01 name...                         meta: name in UTF-8
 *   02 tag(u16) lane(u8) seq(u64)      queue record
 *   03 bytes...                        index room: the caller's key
 *   04 tag(u16) lane(u8) seq(u64)      quarantined record, under the key it had in its queue
 *
 * Numbers are big-endian, so that the order of bytes is the order of numbers.
 */
import type { Lane, Seq } from "../change.ts";

const META_ROOM = 1;
const QUEUE_ROOM = 2;
const INDEX_ROOM = 3;
const QUARANTINE_ROOM = 4;

/** Bytes of a queue or quarantine key. */
export const RECORD_KEY_BYTES = 12;
export const MAX_SEQ: Seq = Number.MAX_SAFE_INTEGER;
/** Greatest tag of a queue. */
export const MAX_TAG = 0xffff;

const TWO_TO_32 = 2 ** 32;

/** A queue as its keys name it. */
export interface QueueTag {
  readonly tag: number;
  readonly lane: Lane;
}

export function laneByte(lane: Lane): number {
  return lane === "live" ? 0 : 1;
}

export function metaKey(name: string): Buffer {
  return roomKey(META_ROOM, Buffer.from(name));
}

export function metaName(key: Buffer): string {
  return key.toString("utf8", 1);
}

/** All meta records whose names begin so, in ASCII. */
export function metaPrefix(prefix: string): KeyBounds {
  return { gte: metaKey(prefix), lte: metaKey(`${prefix}\u{10ffff}`) };
}

export function indexKey(key: Buffer): Buffer {
  return roomKey(INDEX_ROOM, key);
}

/** The caller's part of an index key. */
export function indexKeyBody(key: Buffer): Buffer {
  return key.subarray(1);
}

export function queueKey(queue: QueueTag, seq: Seq): Buffer {
  return writeRecordKey(Buffer.allocUnsafe(RECORD_KEY_BYTES), QUEUE_ROOM, queue, seq);
}

export function quarantineKey(queue: QueueTag, seq: Seq): Buffer {
  return writeRecordKey(Buffer.allocUnsafe(RECORD_KEY_BYTES), QUARANTINE_ROOM, queue, seq);
}

/** Queue keys made one after another in one reused buffer: good until the next call. */
export class QueueKeyWriter {
  readonly #key = Buffer.alloc(RECORD_KEY_BYTES);

  key(queue: QueueTag, seq: Seq): Buffer {
    return writeRecordKey(this.#key, QUEUE_ROOM, queue, seq);
  }
}

function writeRecordKey(key: Buffer, room: number, queue: QueueTag, seq: Seq): Buffer {
  key[0] = room;
  key[1] = queue.tag >>> 8;
  key[2] = queue.tag & 0xff;
  key[3] = laneByte(queue.lane);
  key.writeUInt32BE(Math.floor(seq / TWO_TO_32), 4);
  key.writeUInt32BE(seq % TWO_TO_32, 8);
  return key;
}

/** What a queue or quarantine key says, or null when it is none. */
export function parseRecordKey(
  key: Buffer,
): { readonly tag: number; readonly lane: Lane; readonly seq: Seq } | null {
  if (key.length !== RECORD_KEY_BYTES) return null;
  const lane = key[3];
  if (lane !== 0 && lane !== 1) return null;
  const seq = key.readUInt32BE(4) * TWO_TO_32 + key.readUInt32BE(8);
  if (!Number.isSafeInteger(seq)) return null;
  return { tag: key.readUInt16BE(1), lane: lane === 0 ? "live" : "bulk", seq };
}

/** First and last possible key of a room. */
export interface KeyBounds {
  readonly gte: Buffer;
  readonly lte: Buffer;
}

export const queueRoom: KeyBounds = roomBounds(QUEUE_ROOM);
export const indexRoom: KeyBounds = roomBounds(INDEX_ROOM);
export const quarantineRoom: KeyBounds = roomBounds(QUARANTINE_ROOM);

/** All keys of the index room that start with the prefix. */
export function indexPrefix(prefix: Buffer): KeyBounds {
  const gte = indexKey(prefix);
  // No index key has so many of the greatest byte in a row, so nothing with the prefix sorts after it.
  return { gte, lte: Buffer.concat([gte, Buffer.alloc(64, 0xff)]) };
}

/** Longest key of the index room: more than two keys of InnoDB can have (3,072 bytes, then UTF-8). */
export const MAX_INDEX_KEY_BYTES = 16 * 1024;

function roomBounds(room: number): KeyBounds {
  return { gte: Buffer.from([room]), lte: Buffer.from([room + 1]) };
}

function roomKey(room: number, body: Buffer): Buffer {
  const key = Buffer.allocUnsafe(1 + body.length);
  key[0] = room;
  body.copy(key, 1);
  return key;
}
