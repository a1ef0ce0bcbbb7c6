/**
 * How large the next chunk is, and when it may be read: short statements, so that the server's
 * history of old row versions stays short, and never faster than allowed.
 */

const ROWS_FIRST = 200;
/** Most rows of one chunk. */
export const CHUNK_ROWS_MAX = 4_000;
/** A SELECT that takes longer makes the next one smaller. */
const SELECT_MS = 40;
const BYTES_MAX = 256 * 1024;
/** After a slow SELECT the database rests for as long as that took, and some more. */
const SLOW_MS = 4 * SELECT_MS;

export class Pace {
  readonly #rateMax: number | null;
  readonly #rowsMax: number;
  #limit: number;
  #nextMs = 0;

  /** @param rateMax rows a second; null: as fast as the database answers quickly */
  constructor(rateMax: number | null, rowsMax: number) {
    this.#rateMax = rateMax;
    this.#rowsMax = rowsMax;
    this.#limit = Math.min(ROWS_FIRST, rowsMax);
  }

  /** Most rows of the next chunk. */
  get limit(): number {
    return this.#rateMax === null
      ? this.#limit
      : Math.max(1, Math.min(this.#limit, Math.ceil(this.#rateMax / 4)));
  }

  /** Monotonic time before which no chunk may be read. */
  get nextMs(): number {
    return this.#nextMs;
  }

  /** A chunk was read. */
  read(
    chunk: { readonly rows: number; readonly bytes: number; readonly selectMs: number },
    nowMs: number,
  ): void {
    const { rows, bytes, selectMs } = chunk;
    if (rows > 0) {
      const byTime = rows * Math.min(2, SELECT_MS / Math.max(1, selectMs));
      const byBytes = (rows * BYTES_MAX) / Math.max(1, bytes);
      this.#limit = Math.max(1, Math.min(this.#rowsMax, Math.floor(Math.min(byTime, byBytes))));
    }
    const rest = selectMs > SLOW_MS ? selectMs * 1.5 : 0;
    const spread = this.#rateMax === null ? 0 : (rows * 1000) / this.#rateMax;
    this.#nextMs = nowMs + Math.max(rest, spread);
  }

  /** A chunk was of no use: a smaller one has a shorter window. */
  wasted(nowMs: number): void {
    this.#limit = Math.max(1, this.#limit >> 1);
    this.waitUntil(nowMs + 10);
  }

  waitUntil(timeMs: number): void {
    this.#nextMs = Math.max(this.#nextMs, timeMs);
  }
}
