/** How long the last synced writes took. */
export class FsyncTimes {
  readonly #seconds = new Float64Array(512);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get lastSeconds(): number {
    return this.#count === 0 ? 0 : (this.#seconds[(this.#count - 1) % this.#seconds.length] ?? 0);
  }

  add(seconds: number): void {
    this.#seconds[this.#count % this.#seconds.length] = seconds;
    this.#count += 1;
  }

  /** 99 of 100 of the last 512 were not slower. */
  p99Seconds(): number {
    const sorted = this.#seconds.slice(0, Math.min(this.#count, this.#seconds.length)).sort();
    return sorted[Math.ceil(sorted.length * 0.99) - 1] ?? 0;
  }
}
