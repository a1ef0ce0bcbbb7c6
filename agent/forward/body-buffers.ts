/**
 * Memory of request bodies, used again: a body of a tenth of a megabyte that is allocated for every
 * request costs fresh pages and collections of the heap.
 */

/** Larger bodies are rare, and would be kept for nothing. */
const KEPT_BYTES_MAX = 512 * 1024;
/** No more are under way at once while draining. */
const KEPT_MAX = 4;
/** Sizes are rounded up to this, so that one buffer serves bodies of about its size. */
const STEP_BYTES = 64 * 1024;

export class BodyBuffers {
  readonly #free: Buffer[] = [];

  /** Bytes of exactly that length; what they hold is undefined. */
  take(bytes: number): Buffer {
    const at = this.#free.findIndex((buffer) => buffer.length >= bytes);
    const [found] = at === -1 ? [] : this.#free.splice(at, 1);
    if (found !== undefined) return found.subarray(0, bytes);
    // Not from the shared pool of small buffers: the whole of it comes back by its ArrayBuffer.
    return Buffer.allocUnsafeSlow(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES).subarray(0, bytes);
  }

  /**
   * Gives back what `take` gave. The caller owes that nobody reads it any more: the whole request
   * was sent and answered. A buffer that is not given back is collected as any other.
   */
  giveBack(body: Buffer): void {
    if (this.#free.length >= KEPT_MAX || body.buffer.byteLength > KEPT_BYTES_MAX) return;
    this.#free.push(Buffer.from(body.buffer));
  }
}
