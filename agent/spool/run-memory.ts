/**
 * The memory that a run was decompressed into. A drain makes tens of megabytes of it a second, and
 * the collector, which does not see how much hangs on the few bytes of a buffer's object, lets it pile
 * up. So it is given back at once, when the last of the run's events needs it no more; a run whose
 * events are dropped in silence is left to the collector.
 */
import { assert } from "../kernel/assert.ts";

export class RunMemory {
  readonly #bytes: Buffer;
  #users: number;

  /**
   * @param bytes alone in their memory
   * @param users events that need them, at least one
   */
  constructor(bytes: Buffer, users: number) {
    assert(users > 0, "a run has an event");
    this.#bytes = bytes;
    this.#users = users;
  }

  /** One more of the events needs it no more. After the last one the bytes have length 0. */
  release(): void {
    assert(this.#users > 0, "an event is released once");
    this.#users -= 1;
    const { buffer } = this.#bytes;
    // The transfer takes the memory out of the buffer; nobody takes it over.
    if (this.#users === 0 && buffer instanceof ArrayBuffer) buffer.transfer(0);
  }
}

/**
 * Whether nothing else can lie in the memory of these bytes: not a part of more, nor what Node took out
 * of its pool, as it does below 32 KiB. That is left to the collector.
 */
export function areAlone({ buffer, byteOffset, byteLength }: Buffer): boolean {
  return byteOffset === 0 && buffer.byteLength <= byteLength + 1;
}
