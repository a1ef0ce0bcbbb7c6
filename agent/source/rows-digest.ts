import { crc32 } from "node:zlib";
import { CHECKSUM_BYTES } from "./binlog-event.ts";

/**
 * Fingerprint of all row events of a group, followed or not: a CRC-32 over their own checksums, or
 * over their bytes where the server writes no checksums. It depends on the binlog alone, so a
 * changed mapping does not change it.
 */
export class RowsDigest {
  readonly #words = Buffer.alloc(4_096);
  #used = 0;
  #crc = 0;

  clear(): void {
    this.#used = 0;
    this.#crc = 0;
  }

  /** The event from header to end, checksum included where there is one. */
  add(buffer: Buffer, start: number, end: number, hasChecksum: boolean): void {
    if (!hasChecksum) {
      this.#crc = crc32(buffer.subarray(start, end), this.#crc);
      return;
    }
    if (this.#used === this.#words.length) this.#fold();
    for (let at = end - CHECKSUM_BYTES; at < end; at += 1) {
      this.#words[this.#used] = buffer[at] ?? 0;
      this.#used += 1;
    }
  }

  /** Eight hexadecimal digits. */
  text(): string {
    this.#fold();
    return this.#crc.toString(16).padStart(8, "0");
  }

  #fold(): void {
    if (this.#used > 0) this.#crc = crc32(this.#words.subarray(0, this.#used), this.#crc);
    this.#used = 0;
  }
}
