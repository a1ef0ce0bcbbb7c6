/**
 * Memory for the payloads of one batch, used again for a later batch.
 *
 * Payloads live for milliseconds, from their encoding until their append is durable, and a busy agent
 * makes tens of megabytes a second of them. Left to the collector they pile up outside the heap, where
 * it hardly sees them. The caller of `reset` vouches that nobody reads the batch's payloads any more.
 */
import type { PayloadWriter } from "./ports.ts";

const SLAB_BYTES = 256 * 1024;
/** Slabs that are kept between batches; a larger batch gives the rest back. */
const KEPT_SLABS = 16;
/** What would waste much of a slab has memory of its own. */
const OWN_BYTES = SLAB_BYTES / 4;
/** A UTF-16 unit takes at most three bytes in UTF-8. */
const BYTES_PER_UNIT_MAX = 3;

export class PayloadArena implements PayloadWriter {
  readonly #slabs: Buffer[] = [];
  #slab = 0;
  #used = 0;

  write(text: string): Buffer {
    const bytesMax = text.length * BYTES_PER_UNIT_MAX;
    if (bytesMax > OWN_BYTES) return Buffer.from(text, "utf8");
    const slab = this.#slabFor(bytesMax);
    const start = this.#used;
    this.#used += slab.write(text, start, "utf8");
    return slab.subarray(start, this.#used);
  }

  compose(bytesMax: number, fill: (target: Buffer, start: number) => number): Buffer {
    if (bytesMax > OWN_BYTES) return composeApart(bytesMax, fill);
    const slab = this.#slabFor(bytesMax);
    const start = this.#used;
    this.#used = fill(slab, start);
    return slab.subarray(start, this.#used);
  }

  #slabFor(bytes: number): Buffer {
    if (this.#used + bytes > SLAB_BYTES) {
      this.#slab += 1;
      this.#used = 0;
    }
    return (this.#slabs[this.#slab] ??= Buffer.allocUnsafeSlow(SLAB_BYTES));
  }

  /** Every payload written so far becomes invalid. */
  reset(): void {
    this.#slab = 0;
    this.#used = 0;
    if (this.#slabs.length > KEPT_SLABS) this.#slabs.length = KEPT_SLABS;
  }
}

/** In memory of its own, as much as it takes. */
export function composeApart(bytesMax: number, fill: (target: Buffer, start: number) => number): Buffer {
  const scratch = Buffer.allocUnsafeSlow(bytesMax);
  return Buffer.from(scratch.subarray(0, fill(scratch, 0)));
}
