/**
 * Tells poison from a storm. One event that is refused for its own content is poison and goes to
 * the dead letters; when many are, a setting is wrong, and dead letters would empty the stream into
 * quarantine while somebody mends it.
 *
 * Two rules, and both hold the topic: this one, of the share that is refused, and QUARANTINE_MAX,
 * which bounds the quarantine whatever its events are there for. An event over Dapr's limit is no
 * refusal (the mapping chose dead letters for it), so it counts for the second rule only.
 */

export interface StormRule {
  /** Over this share of the last `lastEvents`, but at least `atLeast` of them. */
  readonly share: number;
  readonly lastEvents: number;
  readonly atLeast: number;
}

export const stormRule: StormRule = { share: 0.01, lastEvents: 1000, atLeast: 10 };

/** Remembers whether its refusal was counted. */
export interface Counted {
  /** 0 before the first. */
  countedRound: number;
}

/** Counts one topic's answers. Bounded by what the rule looks back on. */
export class Refusals {
  readonly #rule: StormRule;
  #seen = 0;
  #round = 1;
  #released = 0;
  /** Running numbers of the answers that were refusals, oldest first. */
  readonly #refusedAt: number[] = [];

  constructor(rule: StormRule = stormRule) {
    this.#rule = rule;
  }

  accepted(events: number): void {
    this.#seen += events;
  }

  /** An event was refused; later refusals of the same one do not count until `clear`. */
  refused(slot: Counted): void {
    if (slot.countedRound === this.#round) return;
    slot.countedRound = this.#round;
    this.#refusedAt.push(this.#seen);
    this.#seen++;
    this.#forgetOld();
  }

  /** So many events may be given up whatever the rule says; an operator has looked at them. */
  release(events: number): void {
    this.#released = events;
    this.clear();
  }

  /** One was given up. After the last of those that were released the rule counts anew. */
  gaveUp(): void {
    if (this.#released === 0) return;
    this.#released--;
    if (this.#released === 0) this.clear();
  }

  /** Events that may still be given up without asking the rule. */
  get released(): number {
    return this.#released;
  }

  /** Whether refusals have become a storm. */
  get isStorm(): boolean {
    if (this.#released > 0) return false;
    this.#forgetOld();
    const refused = this.#refusedAt.length;
    const among = Math.min(this.#seen, this.#rule.lastEvents);
    return refused >= this.#rule.atLeast && refused > among * this.#rule.share;
  }

  /** The storm is over: what was refused then says nothing about what comes. */
  clear(): void {
    this.#round++;
    this.#refusedAt.length = 0;
  }

  #forgetOld(): void {
    const from = this.#seen - this.#rule.lastEvents;
    while ((this.#refusedAt[0] ?? from) < from) this.#refusedAt.shift();
  }
}
