/**
 * The blocks of a table file of LevelDB, each with a checksum that LevelDB writes and, as it is set
 * up by its binding, never reads: a flipped bit in a block can make it read beyond the block or ask
 * for memory without end, which ends the process. So blocks are proven here, before it opens them.
 *
 *   block (index entries, filter and data alike): contents, kind (1 byte), masked CRC-32C (4)
 *   footer, the last 48 bytes: place of the metaindex, place of the index, padding, magic
 */
import { crc32c } from "./crc32c.ts";

const TRAILER_BYTES = 5;
const FOOTER_BYTES = 48;
/** The last bytes of every table. */
const TABLE_MAGIC = Buffer.from("57fb808b247547db", "hex");
const CRC_MASK_DELTA = 0xa282ead8;
const kindOf = { raw: 0, snappy: 1 } as const;

/** A place that is damaged: a block, or null for the footer, which says where all blocks are. */
export interface TableFault {
  readonly block: { readonly offset: number; readonly size: number } | null;
}

type Place = NonNullable<TableFault["block"]>;

/** Every damaged block of a table; what a damaged index would have named is not looked at. */
export function* faultsOf(table: Buffer): Generator<TableFault> {
  const roots = rootsOf(table);
  if (roots === null) {
    yield { block: null };
    return;
  }
  for (const root of roots) {
    const entries = isSound(table, root) ? placesIn(table, root) : null;
    if (entries === null) {
      yield { block: root };
      continue;
    }
    for (const place of entries) {
      if (!fits(table, place)) yield { block: root };
      else if (!isSound(table, place)) yield { block: place };
    }
  }
}

/**
 * Changes a damaged table so that LevelDB sees the damage too: a block of an unknown kind it reports
 * and passes over, a file without the magic it does not open.
 */
export function disarm(table: Buffer, { block }: TableFault): void {
  if (block === null) table.fill(0, Math.max(0, table.length - TABLE_MAGIC.length));
  else table[block.offset + block.size] = 0xff;
}

/** Places of metaindex and index; null where the footer names none. */
function rootsOf(table: Buffer): Place[] | null {
  const footer = table.subarray(Math.max(0, table.length - FOOTER_BYTES));
  if (!footer.subarray(-TABLE_MAGIC.length).equals(TABLE_MAGIC)) return null;
  try {
    const reader = new Varints(footer);
    const roots = [reader.place(), reader.place()];
    return roots.every((root) => fits(table, root)) ? roots : null;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function fits(table: Buffer, { offset, size }: Place): boolean {
  return offset + size + TRAILER_BYTES <= table.length - FOOTER_BYTES;
}

function isSound(table: Buffer, { offset, size }: Place): boolean {
  const end = offset + size;
  const masked = (table.readUInt32LE(end + 1) - CRC_MASK_DELTA) >>> 0;
  const written = ((masked >>> 17) | (masked << 15)) >>> 0;
  return crc32c(table, offset, end + 1) === written;
}

/** The places that an index names. It was proven; null: it is nothing that LevelDB wrote. */
function placesIn(table: Buffer, { offset, size }: Place): Place[] | null {
  const kind = table[offset + size];
  const stored = table.subarray(offset, offset + size);
  try {
    const bytes = kind === kindOf.snappy ? uncompressed(stored) : stored;
    const restarts = bytes.readUInt32LE(bytes.length - 4);
    const reader = new Varints(bytes.subarray(0, bytes.length - 4 - restarts * 4));
    const places: Place[] = [];
    while (!reader.atEnd) {
      reader.number();
      const keyBytes = reader.number();
      const value = reader.number();
      reader.skip(keyBytes);
      const end = reader.at + value;
      places.push(reader.place());
      reader.at = end;
    }
    return places;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** Numbers of seven bits a byte, lowest first. Reading beyond the end throws a RangeError. */
class Varints {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.at >= this.#bytes.length;
  }

  number(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.#bytes.readUInt8(this.at++);
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  }

  place(): Place {
    return { offset: this.number(), size: this.number() };
  }

  skip(bytes: number): void {
    this.at += bytes;
  }
}

/** Snappy's raw format. Throws a RangeError for what is none. */
function uncompressed(bytes: Buffer): Buffer {
  const reader = new Varints(bytes);
  const out = Buffer.alloc(reader.number());
  let from = reader.at;
  let to = 0;
  while (from < bytes.length) {
    const tag = bytes.readUInt8(from++);
    const kind = tag & 3;
    let length = (tag >> 2) + 1;
    if (kind === 0) {
      const more = length > 60 ? length - 60 : 0;
      if (more > 0) length = bytes.readUIntLE(from, more) + 1;
      from += more;
      if (from + length > bytes.length || to + length > out.length) throw new RangeError("beyond the end");
      bytes.copy(out, to, from, from + length);
      from += length;
      to += length;
      continue;
    }
    let back: number;
    if (kind === 1) {
      length = ((tag >> 2) & 7) + 4;
      back = ((tag >> 5) << 8) | bytes.readUInt8(from++);
    } else {
      const width = kind === 2 ? 2 : 4;
      back = bytes.readUIntLE(from, width);
      from += width;
    }
    if (back === 0 || back > to || to + length > out.length) throw new RangeError("beyond the end");
    // Byte by byte: a copy may read what it writes.
    for (let end = to + length; to < end; to++) out[to] = out[to - back] ?? 0;
  }
  if (to !== out.length) throw new RangeError("beyond the end");
  return out;
}
