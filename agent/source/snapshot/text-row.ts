/** A cursor over a row of the text protocol: each value a length and its bytes, NULL a byte of its own. */
import { unreadable } from "../decode/wire.ts";

const NULL = 0xfb;
const TWO_BYTES = 0xfc;
const THREE_BYTES = 0xfd;
const EIGHT_BYTES = 0xfe;

export class TextRow {
  bytes: Buffer = Buffer.alloc(0);
  /** Where the value under the cursor begins and ends. */
  start = 0;
  end = 0;
  isNull = false;
  #next = 0;
  #limit = 0;

  /** Begins with a row; the cursor stands before its first value. */
  open(bytes: Buffer, start: number, end: number): void {
    this.bytes = bytes;
    this.#next = start;
    this.#limit = end;
  }

  /** Moves to the next value. Throws SOURCE_UNREADABLE where the row has none. */
  next(): void {
    const { bytes } = this;
    const at = this.#next;
    const first = bytes[at] ?? 0;
    this.isNull = first === NULL;
    let length = first;
    let start = at + 1;
    if (first >= NULL) {
      length = this.isNull ? 0 : this.#longLength(first, start);
      start += first === TWO_BYTES ? 2 : first === THREE_BYTES ? 3 : first === EIGHT_BYTES ? 8 : 0;
    }
    this.start = start;
    this.end = start + length;
    this.#next = this.end;
    if (this.end > this.#limit) throw unreadable("a row has fewer values than columns were asked for");
  }

  #longLength(first: number, at: number): number {
    const { bytes } = this;
    switch (first) {
      case TWO_BYTES:
        return bytes.readUInt16LE(at);
      case THREE_BYTES:
        return bytes.readUIntLE(at, 3);
      default:
        return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
    }
  }
}
