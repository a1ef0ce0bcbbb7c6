/**
 * The way from where the server could be asked to start to where the checkpoint stands: everything
 * on it was done before and is read over. On it lies the proof of position: the last transaction
 * that the checkpoint knows must stand there as it did.
 */
import type { Position, TransactionIdentity } from "../change.ts";
import { positionLost } from "./position-loss.ts";
import { comparePositions } from "./stream-position.ts";

export class Approach {
  readonly #target: Position | null;
  readonly #expected: TransactionIdentity | null;
  #arrived: boolean;
  #proven: boolean;

  /** `target` null: everything that comes is new. */
  constructor(target: Position | null, expected: TransactionIdentity | null) {
    this.#target = target;
    this.#expected = expected;
    this.#arrived = target === null;
    this.#proven = expected === null;
  }

  get arrived(): boolean {
    return this.#arrived;
  }

  /** A boundary between groups lies here. */
  reach(place: Position): void {
    if (this.#arrived || this.#target === null || place.file === "") return;
    const order = comparePositions(place, this.#target);
    if (order < 0) return;
    if (order > 0) {
      throw positionLost(
        "other_history",
        `no transaction ends at ${this.#target.file}:${this.#target.position}; the next boundary is ${place.file}:${place.position}`,
      );
    }
    if (!this.#proven) {
      throw positionLost(
        "other_history",
        `the last transaction before ${place.file}:${place.position} is not the one that was read there`,
      );
    }
    this.#arrived = true;
  }

  /** A group on the way. */
  pass(found: TransactionIdentity): void {
    const expected = this.#expected;
    if (this.#proven || expected === null) return;
    if (found.file !== expected.file || found.endPosition !== expected.endPosition) return;
    const differing = (["startPosition", "gtid", "xid", "timestampSeconds", "rowsCrc32"] as const).filter(
      (field) => found[field] !== expected[field],
    );
    if (differing.length > 0) {
      throw positionLost(
        "other_history",
        `the transaction that ends at ${found.file}:${found.endPosition} is another one (it differs in ${differing.join(", ")})`,
      );
    }
    this.#proven = true;
  }
}
