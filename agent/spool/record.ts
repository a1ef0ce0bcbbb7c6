/**
 * Frames of the spool's records, format versions 2 and 3. Final: a later version reads them too.
 *
 * Every value in the database stands in one frame (numbers are big-endian):
 *
 *   offset  size  what
 *        0     1  format version that the frame needs: 2 = the body as it is, 3 = compressed
 *        1     4  CRC-32 (zlib's) over the key, then everything from offset 5 on
 *        5     4  length of what follows; the value ends with it
 *        9     n  the body; of a compressed one its length (4), then one zstd frame
 *
 * Body of a queue record (a run of consecutive events of one queue, under the key of its first):
 *
 *        9     4  number of events, at least 1
 *       13        each event: bytes of its body (4), then the body (event-body.ts); without a body
 *                 it was lost and given up (damages.ts): its number is passed over
 *
 * Body of a meta record: JSON in UTF-8. Body of an index record: the caller's bytes. Body of a
 * quarantine record: length of the verdict (4), the verdict as JSON, then the body of one event.
 *
 * The key is part of the checksum, so a sound value under a wrong key is damage too. Events name
 * their table and topic in full: a record can be read without any other being sound.
 */
import { constants, crc32, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import type { Lane, OutboundEvent, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { type EventPlace, eventBodyBound, readEventBody, writeEventBody } from "./event-body.ts";
import { areAlone, RunMemory } from "./run-memory.ts";

/** Bytes before the body. */
export const FRAME_BYTES = 9;
const RUN_HEADER_BYTES = 4;
const LENGTH_BYTES = 4;
const CRC_FROM = 5;
/** Slabs above this are made for one record and dropped. */
const KEPT_SLAB_BYTES = 1024 * 1024;

const PLAIN = 2;
const COMPRESSED = 3;
/**
 * Bodies of runs within these bounds are compressed. A smaller one is a live change or a few, which
 * would wait for it; of a larger one there would be two in memory. A reader takes any other length for
 * damage, so they are part of the format: wider ones need a new version.
 */
const COMPRESS_BYTES_MIN = 8 * 1024;
const COMPRESS_BYTES_MAX = 1024 * 1024;
/** Most of what a run becomes fits into one chunk of the library's. */
const CHUNK_BYTES = 16 * 1024;
const fastest = { [constants.ZSTD_c_compressionLevel]: 1 };

/** Most lost events in one record: 64 KiB. */
export const VOID_RUN_MAX = 16_384;

/** Which of the events given to the encoder make one record. */
export interface RunBounds {
  readonly from: number;
  readonly to: number;
  /** What each of the given events waits for in the other lane; without an entry nothing. */
  readonly otherLaneThrough?: readonly Seq[];
}

/** Where the event with this number stands. */
export function placeIn(queue: { readonly name: string; readonly lane: Lane }, seq: Seq): EventPlace {
  return { queue: queue.name, lane: queue.lane, seq };
}

/** At least the bytes that the event takes in a run. */
export function eventBound(event: OutboundEvent | undefined): number {
  return event === undefined ? 0 : LENGTH_BYTES + eventBodyBound(event);
}

/**
 * Writes records into one reused slab. What a call returns is good until the next call; the
 * database copies it at once.
 */
export class RecordEncoder {
  #slab: Buffer = Buffer.allocUnsafeSlow(64 * 1024);

  /** The value of the run events[from, to) under the key of its first. */
  run(key: Buffer, events: readonly OutboundEvent[], { from, to, otherLaneThrough }: RunBounds): Buffer {
    assert(from < to, "a run has an event");
    let bound = FRAME_BYTES + RUN_HEADER_BYTES;
    for (let at = from; at < to; at++) bound += eventBound(events[at]);
    const slab = this.#slabOf(bound);
    slab.writeUInt32BE(to - from, FRAME_BYTES);
    let end = FRAME_BYTES + RUN_HEADER_BYTES;
    for (let at = from; at < to; at++) {
      const event = events[at];
      if (event === undefined) continue;
      const start = end + LENGTH_BYTES;
      end = writeEventBody(slab, start, event, otherLaneThrough?.[at] ?? 0);
      slab.writeUInt32BE(end - start, start - LENGTH_BYTES);
    }
    return sealCompressed(slab, key, end);
  }

  /** The value of so many lost events under the key of the first. */
  voids(key: Buffer, count: number): Buffer {
    const end = FRAME_BYTES + RUN_HEADER_BYTES + count * LENGTH_BYTES;
    const slab = this.#slabOf(end);
    slab.fill(0, FRAME_BYTES, end);
    slab.writeUInt32BE(count, FRAME_BYTES);
    return seal(slab, key, end);
  }

  /** The value of a quarantined event under its key. */
  quarantined(key: Buffer, event: OutboundEvent, verdict: Buffer): Buffer {
    const slab = this.#slabOf(FRAME_BYTES + 4 + verdict.length + eventBodyBound(event));
    slab.writeUInt32BE(verdict.length, FRAME_BYTES);
    verdict.copy(slab, FRAME_BYTES + 4);
    return seal(slab, key, writeEventBody(slab, FRAME_BYTES + 4 + verdict.length, event, 0));
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

/**
 * Compressed where that makes it clearly smaller. The events of a run have most of their text in
 * common: 128 KiB of orders become 14. All that the disk and the database's threads do with them is
 * less by that.
 */
function sealCompressed(slab: Buffer, key: Buffer, end: number): Buffer {
  const length = end - FRAME_BYTES;
  if (length < COMPRESS_BYTES_MIN || length > COMPRESS_BYTES_MAX) return seal(slab, key, end);
  // Told how much comes, the library takes a third of the memory and of the time.
  const options = { params: fastest, chunkSize: CHUNK_BYTES, pledgedSrcSize: length };
  const compressed = zstdCompressSync(slab.subarray(FRAME_BYTES, end), options);
  if (LENGTH_BYTES + compressed.length > length / 2) return seal(slab, key, end);
  const start = slab.writeUInt32BE(length, FRAME_BYTES);
  return seal(slab, key, start + compressed.copy(slab, start), COMPRESSED);
}

function seal(slab: Buffer, key: Buffer, end: number, version = PLAIN): Buffer {
  slab[0] = version;
  slab.writeUInt32BE(end - FRAME_BYTES, CRC_FROM);
  slab.writeUInt32BE(crc32(slab.subarray(CRC_FROM, end), crc32(key)), 1);
  return slab.subarray(0, end);
}

/** The body of a value that was proven sound: length, version and checksum. Throws DamagedRecord. */
export function openFrame(key: Buffer, value: Buffer): Buffer {
  if (value.length < FRAME_BYTES || value.readUInt32BE(CRC_FROM) !== value.length - FRAME_BYTES) {
    throw new DamagedRecord("wrong length");
  }
  const [version] = value;
  if (version !== PLAIN && version !== COMPRESSED) throw new DamagedRecord("unknown format version");
  if (crc32(value.subarray(CRC_FROM), crc32(key)) !== value.readUInt32BE(1)) {
    throw new DamagedRecord("wrong checksum");
  }
  const body = value.subarray(FRAME_BYTES);
  return version === PLAIN ? body : decompressed(body);
}

/** The checksum does not cover the version: what comes here may be a plain body whose version is damaged. */
function decompressed(body: Buffer): Buffer {
  const length = body.length < LENGTH_BYTES ? 0 : body.readUInt32BE(0);
  if (length < COMPRESS_BYTES_MIN || length > COMPRESS_BYTES_MAX)
    throw new DamagedRecord("unreadable header");
  // One byte of room is left: a chunk that becomes full makes the library ask for another one.
  const options = { chunkSize: length + 1, maxOutputLength: length };
  let whole: Buffer | null = null;
  try {
    whole = zstdDecompressSync(body.subarray(LENGTH_BYTES), options);
  } catch {
    // Whatever it says: these bytes are not of its making.
  }
  if (whole?.length !== length) throw new DamagedRecord("unreadable header");
  return whole;
}

/**
 * The JSON text of a meta record, proven sound. Throws DamagedRecord. The checksum proves that this
 * is what an agent of this format wrote under this key, so its shape is not checked again.
 */
export function decodeJson(key: Buffer, value: Buffer): string {
  return openFrame(key, value).toString("utf8");
}

/**
 * The events of one queue record, given out one after another. The record was proven sound when it
 * was opened; events are views into its bytes.
 */
export class RunReader implements EventPlace {
  readonly queue: string;
  readonly lane: Lane;
  readonly first: Seq;
  readonly last: Seq;
  readonly memory: RunMemory | null;
  readonly #body: Buffer;
  #at = RUN_HEADER_BYTES;
  #next: Seq;

  /** Throws DamagedRecord. */
  constructor(key: Buffer, value: Buffer, { queue, lane, seq }: EventPlace) {
    this.#body = openFrame(key, value);
    const count = this.#body.length < RUN_HEADER_BYTES ? 0 : this.#body.readUInt32BE(0);
    if (count === 0) throw new DamagedRecord("unreadable header");
    this.queue = queue;
    this.lane = lane;
    this.first = seq;
    this.last = seq + count - 1;
    this.#next = seq;
    this.memory = areAlone(this.#body) ? new RunMemory(this.#body, count) : null;
  }

  /** Number of the event that `read` gives next; last + 1 at the end. */
  get next(): Seq {
    return this.#next;
  }

  /** Bytes of the record before that event. */
  get at(): number {
    return this.#at;
  }

  /** The same: where that event stands. */
  get seq(): Seq {
    return this.#next;
  }

  /** Leaves out events before `seq`. */
  skipTo(seq: Seq): void {
    while (this.#next < seq) {
      this.#at += LENGTH_BYTES + this.#length();
      this.#next += 1;
      this.memory?.release();
    }
  }

  /** The next event; null for a lost one. The caller knows that there is one. Throws DamagedRecord. */
  read(): SpooledEvent | null {
    assert(this.#next <= this.last, "a run is not read beyond its end");
    const start = this.#at + LENGTH_BYTES;
    const end = start + this.#length();
    const event = start === end ? null : readEventBody(this.#body, start, end, this);
    if (event === null) this.memory?.release();
    this.#at = end;
    this.#next += 1;
    return event;
  }

  #length(): number {
    const { length } = this.#body;
    const bytes = this.#at + LENGTH_BYTES > length ? Infinity : this.#body.readUInt32BE(this.#at);
    if (this.#at + LENGTH_BYTES + bytes > length) throw new DamagedRecord("unreadable header");
    return bytes;
  }
}

/** A quarantined event and its verdict as JSON text, proven sound. Throws DamagedRecord. */
export function decodeQuarantined(
  key: Buffer,
  value: Buffer,
  place: EventPlace,
): { readonly verdict: string; readonly event: SpooledEvent } {
  const body = openFrame(key, value);
  const end = body.length < 4 ? Infinity : 4 + body.readUInt32BE(0);
  if (end > body.length) throw new DamagedRecord("unreadable header");
  return {
    verdict: body.toString("utf8", 4, end),
    event: readEventBody(body, end, body.length, place),
  };
}
