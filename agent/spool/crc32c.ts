/** CRC-32C (Castagnoli), the checksum of LevelDB's files, eight bytes a step. */

const STEP = 8;
const tables = makeTables();

function makeTables(): Int32Array {
  const table = new Int32Array(STEP * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    table[byte] = crc;
  }
  for (let at = 256; at < table.length; at++) {
    const before = table[at - 256] ?? 0;
    table[at] = (before >>> 8) ^ (table[before & 0xff] ?? 0);
  }
  return table;
}

/** Of the bytes [from, to). */
export function crc32c(bytes: Uint8Array, from: number, to: number): number {
  let crc = -1;
  let at = from;
  for (const end = to - STEP; at <= end; at += STEP) {
    crc ^=
      byteAt(bytes, at) |
      (byteAt(bytes, at + 1) << 8) |
      (byteAt(bytes, at + 2) << 16) |
      (byteAt(bytes, at + 3) << 24);
    crc =
      part(7, crc & 0xff) ^
      part(6, (crc >>> 8) & 0xff) ^
      part(5, (crc >>> 16) & 0xff) ^
      part(4, crc >>> 24) ^
      part(3, byteAt(bytes, at + 4)) ^
      part(2, byteAt(bytes, at + 5)) ^
      part(1, byteAt(bytes, at + 6)) ^
      part(0, byteAt(bytes, at + 7));
  }
  for (; at < to; at++) crc = (crc >>> 8) ^ part(0, (crc ^ byteAt(bytes, at)) & 0xff);
  return ~crc >>> 0;
}

function part(step: number, byte: number): number {
  return tables[step * 256 + byte] ?? 0;
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
