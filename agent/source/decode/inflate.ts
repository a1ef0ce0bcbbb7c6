/** MariaDB's two zlib envelopes: around the rows of an event, and around a COMPRESSED column. */
import { inflateRawSync, inflateSync } from "node:zlib";

import { unreadable } from "./wire.ts";

/** No event and no column value is larger than the server's largest packet. */
const INFLATED_MAX = 0x40000000;

/**
 * Inflates the rows part of a compressed rows event: a byte 80 + length of the length (1 to 4),
 * the big-endian length, a zlib stream.
 */
export function inflateRows(buffer: Buffer, start: number): Buffer {
  const header = buffer[start] ?? 0;
  const lengthBytes = header & 7;
  if (
    (header & 0xf8) !== 0x80 ||
    lengthBytes < 1 ||
    lengthBytes > 4 ||
    start + 1 + lengthBytes > buffer.length
  ) {
    throw unreadable("a compressed rows event has a header that is not known");
  }
  const length = buffer.readUIntBE(start + 1, lengthBytes);
  return inflated(buffer.subarray(start + 1 + lengthBytes), length, false);
}

/**
 * The value of a COMPRESSED column: empty, or a header byte (method in the upper half: 0 stored,
 * 8 zlib; bit 3 raw stream; lower bits length of the length), the big-endian length, the stream.
 */
export function inflateColumn(buffer: Buffer, start: number, end: number): Buffer {
  if (start === end) {
    return buffer.subarray(start, end);
  }
  const header = buffer[start] ?? 0;
  if (header === 0) {
    return buffer.subarray(start + 1, end);
  }
  const lengthBytes = header & 7;
  if (header >> 4 !== 8 || lengthBytes < 1 || lengthBytes > 4 || start + 1 + lengthBytes > end) {
    throw unreadable("a COMPRESSED column uses a method that is not known");
  }
  const length = buffer.readUIntBE(start + 1, lengthBytes);
  return inflated(buffer.subarray(start + 1 + lengthBytes, end), length, (header & 8) !== 0);
}

function inflated(bytes: Buffer, length: number, isRaw: boolean): Buffer {
  if (length > INFLATED_MAX) {
    throw unreadable("a compressed value claims an impossible length");
  }
  // Bytes after the stream's end would otherwise be passed over in silence.
  const options = { rejectGarbageAfterEnd: true, maxOutputLength: Math.max(length, 1) };
  let result: Buffer;
  try {
    result = isRaw ? inflateRawSync(bytes, options) : inflateSync(bytes, options);
  } catch {
    throw unreadable("a compressed value is damaged");
  }
  if (result.length !== length) {
    throw unreadable("a compressed value has not the length that it claims");
  }
  return result;
}
