/** FORWARD_RATE_MAX: a token bucket over all topics, so that draining days does not flatten the
 * consumers. It never holds more than a tenth of a second's worth, at least one event. */
export class RateLimit {
  readonly #perMs: number;
  readonly #most: number;
  #tokens: number;
  #atMs: number;

  /** `eventsPerSecond` is above 0; null = no limit. */
  constructor(eventsPerSecond: number | null, nowMs: number) {
    this.#perMs = eventsPerSecond === null ? Number.POSITIVE_INFINITY : eventsPerSecond / 1000;
    this.#most = Math.max(1, this.#perMs * 100);
    this.#tokens = this.#most;
    this.#atMs = nowMs;
  }

  /** How many of `wanted` events may go now. */
  allowed(wanted: number, nowMs: number): number {
    if (this.#perMs === Number.POSITIVE_INFINITY) return wanted;
    this.#tokens = Math.min(this.#most, this.#tokens + (nowMs - this.#atMs) * this.#perMs);
    this.#atMs = nowMs;
    return Math.min(wanted, Math.floor(this.#tokens));
  }

  spend(events: number): void {
    if (this.#perMs !== Number.POSITIVE_INFINITY) this.#tokens -= events;
  }

  /** When `events` may go at the latest, once `allowed` said that none may. */
  readyAtMs(events: number): number {
    if (this.#perMs === Number.POSITIVE_INFINITY) return this.#atMs;
    return this.#atMs + Math.max(0, Math.min(events, this.#most) - this.#tokens) / this.#perMs;
  }
}
