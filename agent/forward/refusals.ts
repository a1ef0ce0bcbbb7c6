/**
 * Tells poison from a storm. One event that is refused for its own content is poison and goes to
 * the dead letters; when many are, a setting is wrong, and dead letters would empty the stream into
 * quarantine while somebody mends it.
 */

export interface StormRule {
  /** More than this many events in quarantine. */
  readonly quarantineMax: number;
  /** Over this share of the last `lastEvents`, but at least `atLeast` of them. */
  readonly share: number;
  readonly lastEvents: number;
  readonly atLeast: number;
}

export function stormRule(quarantineMax: number): StormRule {
  return { quarantineMax, share: 0.01, lastEvents: 1000, atLeast: 10 };
}

/** Counts one topic's answers. Bounded by what the rule looks back on. */
export class Refusals {
  readonly #rule: StormRule;
  #seen = 0;
  /** Running numbers of the answers that were refusals, oldest first. */
  readonly #refusedAt: number[] = [];

  constructor(rule: StormRule) {
    this.#rule = rule;
  }

  accepted(events: number): void {
    this.#seen += events;
  }

  /** An event was refused for the first time; later refusals of the same one do not count. */
  refused(): void {
    this.#refusedAt.push(this.#seen);
    this.#seen++;
    this.#forgetOld();
  }

  /** Whether refusals have become a storm, given how many events are in quarantine by now. */
  isStorm(quarantined: number): boolean {
    if (quarantined > this.#rule.quarantineMax) return true;
    this.#forgetOld();
    const refused = this.#refusedAt.length;
    const among = Math.min(this.#seen, this.#rule.lastEvents);
    return refused >= this.#rule.atLeast && refused > among * this.#rule.share;
  }

  /** The storm is over: what was refused then says nothing about what comes. */
  clear(): void {
    this.#refusedAt.length = 0;
  }

  #forgetOld(): void {
    const from = this.#seen - this.#rule.lastEvents;
    while ((this.#refusedAt[0] ?? from) < from) this.#refusedAt.shift();
  }
}
