/**
 * Batches in memory of ours. The chained batch of `level` holds its bytes outside the heap until its
 * object is collected: a busy agent writes megabytes a batch and makes so little garbage otherwise
 * that dozens of written batches would wait for that.
 */
export type BatchOperation =
  | { readonly type: "put"; readonly key: Buffer; readonly value: Buffer }
  | { readonly type: "del"; readonly key: Buffer };

export type WriteOperations = (
  operations: BatchOperation[],
  options: { readonly sync: boolean },
) => Promise<void>;

const SLAB_BYTES = 256 * 1024;
/** Slabs that are kept for later batches. */
const KEPT_SLABS = 16;

/** Makes batches, and keeps the memory of those that are written for the next. */
export class BatchMemory {
  readonly #spare: Buffer[] = [];
  readonly #write: WriteOperations;

  /** @param write is done with the bytes when it resolves or rejects */
  constructor(write: WriteOperations) {
    this.#write = write;
  }

  batch(): CollectedBatch {
    return new CollectedBatch(this.#write, this.#spare);
  }
}

/** One batch. It is written once, and then no more used. */
class CollectedBatch {
  readonly #write: WriteOperations;
  readonly #spare: Buffer[];
  readonly #operations: BatchOperation[] = [];
  readonly #slabs: Buffer[] = [];
  #used = SLAB_BYTES;

  constructor(write: WriteOperations, spare: Buffer[]) {
    this.#write = write;
    this.#spare = spare;
  }

  put(key: Buffer, value: Buffer): void {
    this.#operations.push({ type: "put", key: this.#kept(key), value: this.#kept(value) });
  }

  del(key: Buffer): void {
    this.#operations.push({ type: "del", key: this.#kept(key) });
  }

  async write(options: { readonly sync: boolean }): Promise<void> {
    try {
      await this.#write(this.#operations, options);
    } finally {
      this.#operations.length = 0;
      this.#spare.push(...this.#slabs.splice(0));
      if (this.#spare.length > KEPT_SLABS) this.#spare.length = KEPT_SLABS;
    }
  }

  #kept(bytes: Buffer): Buffer {
    if (bytes.length > SLAB_BYTES / 2) return Buffer.from(bytes);
    if (this.#used + bytes.length > SLAB_BYTES) {
      this.#slabs.push(this.#spare.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES));
      this.#used = 0;
    }
    const slab = this.#slabs.at(-1) ?? bytes;
    const start = this.#used;
    this.#used += bytes.copy(slab, start);
    return slab.subarray(start, this.#used);
  }
}
