/**
 * Keys of the spool's database. The first byte is the room; within a room keys sort by what is
 * read in order:
 *
 *   02 segment(u32) tag(u16) lane(u8) seq(u64)    queue record (segments.ts)
 *   03 name...                                    meta: name in UTF-8
 *   04 tag(u16) lane(u8) seq(u64)                 quarantined record, by its place in its queue
 *   05 bytes...                                   index room: the caller's key
 *
 * Meta records are written with new queue records, so they stand behind them: before them, every new
 * table would reach over all segments, and LevelDB would merge it with all others.
 * Numbers are big-endian, so that the order of bytes is the order of numbers.
 */
import type { Lane, Seq } from "../change.ts";

const QUEUE_ROOM = 2;
const META_ROOM = 3;
const QUARANTINE_ROOM = 4;
const INDEX_ROOM = 5;

/** Bytes of a queue's key, and of the part that names lane and number. */
export const QUEUE_KEY_BYTES = 16;
const PLACE_BYTES = 11;
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

export function queueKey(segment: number, queue: QueueTag, seq: Seq): Buffer {
  return writeQueueKey(Buffer.allocUnsafe(QUEUE_KEY_BYTES), segment, queue, seq);
}

export function quarantineKey(queue: QueueTag, seq: Seq): Buffer {
  const key = Buffer.allocUnsafe(1 + PLACE_BYTES);
  key[0] = QUARANTINE_ROOM;
  writePlace(key, 1, queue, seq);
  return key;
}

/** Queue keys made one after another in one reused buffer: good until the next call. */
export class QueueKeyWriter {
  readonly #key = Buffer.alloc(QUEUE_KEY_BYTES);

  key(segment: number, queue: QueueTag, seq: Seq): Buffer {
    return writeQueueKey(this.#key, segment, queue, seq);
  }
}

function writeQueueKey(key: Buffer, segment: number, queue: QueueTag, seq: Seq): Buffer {
  key[0] = QUEUE_ROOM;
  key.writeUInt32BE(segment, 1);
  writePlace(key, 5, queue, seq);
  return key;
}

function writePlace(key: Buffer, at: number, queue: QueueTag, seq: Seq): void {
  key.writeUInt16BE(queue.tag, at);
  key[at + 2] = laneByte(queue.lane);
  key.writeUInt32BE(Math.floor(seq / TWO_TO_32), at + 3);
  key.writeUInt32BE(seq % TWO_TO_32, at + 7);
}

/** A lane of a queue and a number in it, as a key names them. */
export interface KeyPlace {
  readonly tag: number;
  readonly lane: Lane;
  readonly seq: Seq;
}

/** What a queue key says, or null when it is none. */
export function parseQueueKey(key: Buffer): (KeyPlace & { readonly segment: number }) | null {
  const place = key.length === QUEUE_KEY_BYTES ? parsePlace(key, 5) : null;
  return place === null ? null : { ...place, segment: key.readUInt32BE(1) };
}

/** What a quarantine key says, or null when it is none. */
export function parseQuarantineKey(key: Buffer): KeyPlace | null {
  return key.length === 1 + PLACE_BYTES ? parsePlace(key, 1) : null;
}

function parsePlace(key: Buffer, at: number): KeyPlace | null {
  const lane = key[at + 2];
  if (lane !== 0 && lane !== 1) return null;
  const seq = key.readUInt32BE(at + 3) * TWO_TO_32 + key.readUInt32BE(at + 7);
  if (!Number.isSafeInteger(seq)) return null;
  return { tag: key.readUInt16BE(at), lane: lane === 0 ? "live" : "bulk", seq };
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
