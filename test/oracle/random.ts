/**
 * Seeded random numbers for tests: the same seed gives the same stream on every machine. Not for
 * secrets.
 */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = seed >>> 0;
  }

  /** A generator of its own, whose stream depends on this seed and the label alone. */
  fork(label: number): Random {
    return new Random(
      (Math.imul(this.seed ^ 0x9e3779b9, 0x85ebca6b) + Math.imul(label + 1, 0xc2b2ae35)) >>> 0,
    );
  }

  /** At least 0, under 1. */
  next(): number {
    // mulberry32: 32 bits of state are plenty for test data.
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }

  /** A whole number from `least` to `most`, both included. */
  int(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.int(0, items.length - 1)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  /** A weighted choice: `[[weight, item], ...]`. */
  weighted<T>(choices: readonly (readonly [number, T])[]): T {
    const total = choices.reduce((sum, [weight]) => sum + weight, 0);
    let left = this.next() * total;
    for (const [weight, item] of choices) {
      left -= weight;
      if (left < 0) return item;
    }
    return this.pick(choices)[1];
  }

  /** A new array in random order. */
  shuffled<T>(items: readonly T[]): T[] {
    const drawn = items.map((item) => ({ item, place: this.next() }));
    return drawn.sort((one, other) => one.place - other.place).map(({ item }) => item);
  }
}

/** The seed of a run: EDGE_TEST_SEED where set, else a fresh one; printed so that it can be repeated. */
export function runSeed(): number {
  const given = process.env["EDGE_TEST_SEED"];
  const seed = given === undefined ? (Date.now() ^ (process.pid << 16)) >>> 0 : Number(given) >>> 0;
  console.log(`seed ${seed} (EDGE_TEST_SEED=${seed} repeats it)`);
  return seed;
}
