/**
 * Which table files a LevelDB has, by its MANIFEST. A process that is killed while it writes a table
 * leaves a piece of one that no MANIFEST names: that is no damage, LevelDB deletes it at the next
 * open. Only what is named has to be whole.
 */
import { readFile } from "node:fs/promises";

/** The MANIFEST is a log: blocks of this size, records of them cut into fragments with a header. */
const BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7;
const fragment = { full: 1, first: 2, middle: 3, last: 4 } as const;
/** The parts of a record that say what changed. */
const tag = {
  comparator: 1,
  logNumber: 2,
  nextFile: 3,
  lastSequence: 4,
  compactPointer: 5,
  deletedFile: 6,
  newFile: 7,
  previousLog: 9,
} as const;

/** Sizes of the tables that belong to the database, by number; null when the MANIFEST cannot be read. */
export async function liveTables(manifest: string): Promise<ReadonlyMap<number, number> | null> {
  const live = new Map<number, number>();
  try {
    for (const record of recordsOf(await readFile(manifest))) applyEdit(new EditReader(record), live);
    return live;
  } catch (error) {
    // A damaged MANIFEST is for LevelDB to report: it has the checksums.
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function* recordsOf(log: Buffer): Generator<Buffer> {
  let begun: Buffer[] = [];
  for (let at = 0; at + HEADER_BYTES <= log.length;) {
    const leftInBlock = BLOCK_BYTES - (at % BLOCK_BYTES);
    if (leftInBlock < HEADER_BYTES) {
      at += leftInBlock;
      continue;
    }
    const length = log.readUInt16LE(at + 4);
    const kind = log.readUInt8(at + 6);
    const end = at + HEADER_BYTES + length;
    // The last record was under way when the process ended: nothing in it is valid.
    if (end > log.length) return;
    if (kind < fragment.full || kind > fragment.last) throw new RangeError("no fragment of a record");
    const bytes = log.subarray(at + HEADER_BYTES, end);
    if (kind === fragment.full || kind === fragment.first) begun = [];
    begun.push(bytes);
    if (kind === fragment.full || kind === fragment.last) yield Buffer.concat(begun);
    at = end;
  }
}

function applyEdit(edit: EditReader, live: Map<number, number>): void {
  while (!edit.atEnd) {
    const what = edit.number();
    switch (what) {
      case tag.comparator:
        edit.skipBytes();
        break;
      case tag.logNumber:
      case tag.nextFile:
      case tag.lastSequence:
      case tag.previousLog:
        edit.number();
        break;
      case tag.compactPointer:
        edit.number();
        edit.skipBytes();
        break;
      case tag.deletedFile:
        edit.number();
        live.delete(edit.number());
        break;
      case tag.newFile: {
        edit.number();
        const number = edit.number();
        live.set(number, edit.number());
        edit.skipBytes();
        edit.skipBytes();
        break;
      }
      default:
        throw new RangeError(`no part of an edit: ${what}`);
    }
  }
}

class EditReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** Seven bits a byte, lowest first. Reading beyond the end throws a RangeError. */
  number(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.#bytes.readUInt8(this.#at++);
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  }

  skipBytes(): void {
    const length = this.number();
    this.#at += length;
    if (this.#at > this.#bytes.length) throw new RangeError("beyond the end of an edit");
  }
}
