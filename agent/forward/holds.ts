/**
 * What is on hold, why, and when it is tried again. A hold covers one topic, or everything. It is
 * tried again by one request at a time, for ever, with growing, jittered pauses that stay short
 * enough to find the end of a fault within seconds.
 */
import type { ForwardObserver } from "../ports.ts";
import { backoffDelayMs, type Clock } from "../kernel/service.ts";
import type { HoldScope } from "./classify.ts";

/** Stands for "all topics" where a hold is reported. */
export const ALL_TOPICS = "*";

/** Code of the hold that a storm of refusals brings about. */
export const STORM = "STORM";
/** Code of the hold of a topic whose next dead letter would be one more than QUARANTINE_MAX. */
export const QUARANTINE_FULL = "QUARANTINE_FULL";

/** Holds of these codes are about the events: that other events pass says nothing. */
function isAboutEvents({ code }: { readonly code: string }): boolean {
  return code === STORM || code === QUARANTINE_FULL;
}

/** Code of the hold while requests wait and the API does not answer on a fresh connection either. */
export const NO_ANSWER = "NO_ANSWER";

const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 2000;
const REPORT_EVERY_MS = 30_000;
const PAST_HOLDS_MAX = 32;

interface Hold {
  readonly sinceMs: number;
  code: string;
  message: string;
  attempts: number;
  notBeforeMs: number;
  probing: boolean;
  reportedAtMs: number;
  /** Only some events are affected: it is told, and requests go on. */
  partial: boolean;
}

/** What the status and the heartbeat say of a hold. */
export interface HoldFacts {
  readonly code: string;
  readonly message: string;
  /** Milliseconds since 1970. */
  readonly sinceMs: number;
  readonly attempts: number;
}

export interface HoldReason {
  readonly scope: HoldScope;
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs: number;
  /** No answer came at all: what holds everything may well go on. */
  readonly silent?: boolean;
}

export type Gate = "open" | "probe" | "closed";

export class Holds {
  readonly #clock: Clock;
  readonly #observer: ForwardObserver;
  readonly #random: () => number;
  /** Keyed by topic, and by ALL_TOPICS. */
  readonly #holds = new Map<string, Hold>();
  readonly #past = new Map<string, [number, number][]>();
  #attempts = 0;

  constructor(clock: Clock, observer: ForwardObserver, random: () => number = Math.random) {
    this.#clock = clock;
    this.#observer = observer;
    this.#random = random;
  }

  /** Failed attempts since the start. */
  get attempts(): number {
    return this.#attempts;
  }

  get allHeld(): HoldFacts | null {
    return this.#holds.get(ALL_TOPICS) ?? null;
  }

  of(topic: string): HoldFacts | null {
    return this.#holds.get(topic) ?? null;
  }

  /** Held topics by name, without the hold on all. */
  heldTopics(): string[] {
    const names: string[] = [];
    for (const name of this.#holds.keys()) if (name !== ALL_TOPICS) names.push(name);
    return names;
  }

  /** Whether a request may go to the topic now; "probe" is the one that finds out. */
  gate(topic: string, nowMs: number): Gate {
    if (this.#holds.size === 0) return "open";
    const all = this.#holds.get(ALL_TOPICS);
    const hold = this.#holds.get(topic);
    const own = hold?.partial === true ? undefined : hold;
    if (all === undefined && own === undefined) return "open";
    return isDue(all, nowMs) && isDue(own, nowMs) ? "probe" : "closed";
  }

  /** When the gate may open, where only time closes it; Infinity while a probe is under way. */
  dueAtMs(topic: string): number {
    const all = this.#holds.get(ALL_TOPICS);
    const own = this.#holds.get(topic);
    if (all?.probing === true || own?.probing === true) return Number.POSITIVE_INFINITY;
    return Math.max(all?.notBeforeMs ?? 0, own?.notBeforeMs ?? 0);
  }

  /** The caller sends the probe that the gate allowed, and owes `probeEnded`. */
  probeStarted(topic: string): void {
    for (const name of [ALL_TOPICS, topic]) {
      const hold = this.#holds.get(name);
      if (hold !== undefined) hold.probing = true;
    }
  }

  probeEnded(topic: string): void {
    for (const name of [ALL_TOPICS, topic]) {
      const hold = this.#holds.get(name);
      if (hold !== undefined) hold.probing = false;
    }
  }

  /**
   * The topic took something. A hold that is about refused events ends only when one of them is
   * accepted: that others pass says nothing about the wrong setting.
   */
  accepted(topic: string, wasRefusedBefore: boolean): void {
    if (this.#holds.size === 0) return;
    this.#release(ALL_TOPICS);
    const own = this.#holds.get(topic);
    if (own === undefined || own.partial) return;
    if (!isAboutEvents(own) || wasRefusedBefore) this.#release(topic);
  }

  /** The API answered, so what held everything is over; the topic's own hold stays. */
  reached(): void {
    if (this.#holds.size > 0) this.#release(ALL_TOPICS);
  }

  /** The refused events of the topic may be given up after all. */
  refusalsSettled(topic: string): void {
    const own = this.#holds.get(topic);
    if (own !== undefined && isAboutEvents(own)) this.#release(topic);
  }

  /** What held the topic was given up: the next request tells whether anything else does. */
  letGo(topic: string): void {
    this.#release(topic);
  }

  /** Holds the topic, or everything, and sets when it is tried again. */
  hold(topic: string, reason: HoldReason): void {
    const name = reason.scope === "all" ? ALL_TOPICS : topic;
    if (reason.scope === "topic" && reason.silent !== true) this.reached();
    const nowMs = this.#clock.monotonicMs();
    this.#attempts++;
    const known = this.#holds.get(name);
    // The failures of requests that were under way together count as one attempt.
    if (known !== undefined && !known.partial && nowMs < known.notBeforeMs) return;
    const attempts = (known?.attempts ?? 0) + 1;
    const delayMs = backoffDelayMs(attempts, { firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS }, this.#random);
    const notBeforeMs = nowMs + Math.max(delayMs, reason.retryAfterMs);
    if (known === undefined) {
      this.#add(name, reason, { attempts, notBeforeMs, reportedAtMs: nowMs, partial: false });
      return;
    }
    const { code: said, message: saidWhy } = known;
    known.partial = false;
    known.attempts = attempts;
    known.notBeforeMs = notBeforeMs;
    // An outage during such a hold does not hide it; one of its kind takes the other's place.
    if (!isAboutEvents(known) || isAboutEvents(reason)) {
      known.code = reason.code;
      known.message = reason.message;
    }
    if (known.code !== said || known.message !== saidWhy)
      this.#observer.held(name, known.code, known.message);
    else if (nowMs - known.reportedAtMs >= REPORT_EVERY_MS) {
      known.reportedAtMs = nowMs;
      this.#observer.held(name, known.code, `${known.message} (still, after ${attempts} attempts)`);
    }
  }

  /** Requests wait in vain, and the API is out of reach; over with the next answer. */
  unreachable(): void {
    if (this.#holds.has(ALL_TOPICS)) return;
    const message = "requests get no answer, and neither does a fresh connection";
    this.hold(ALL_TOPICS, { scope: "all", code: NO_ANSWER, message, retryAfterMs: 0 });
  }

  /**
   * Some of the topic's events are not taken, again and again, while others pass: that is said, and
   * nothing is held back but those. Over with `partlyOver`.
   */
  holdPartly(topic: string, code: string, message: string): void {
    const known = this.#holds.get(topic);
    if (known !== undefined) {
      if (!known.partial || known.message === message) return;
      known.message = message;
      this.#observer.held(topic, known.code, message);
      return;
    }
    const nowMs = this.#clock.monotonicMs();
    const reason: HoldReason = { scope: "topic", code, message, retryAfterMs: 0 };
    this.#add(topic, reason, { attempts: 1, notBeforeMs: 0, reportedAtMs: nowMs, partial: true });
  }

  /** Every event of the topic that was not taken before was taken now. */
  partlyOver(topic: string): void {
    if (this.#holds.get(topic)?.partial === true) this.#release(topic);
  }

  #add(
    name: string,
    { code, message }: HoldReason,
    state: Pick<Hold, "attempts" | "notBeforeMs" | "reportedAtMs" | "partial">,
  ): void {
    this.#holds.set(name, { sinceMs: this.#clock.wallMs(), code, message, probing: false, ...state });
    this.#observer.held(name, code, message);
  }

  /** Wall milliseconds that the topic stood on hold since the given time. */
  heldMsSince(topic: string, sinceMs: number): number {
    if (this.#past.size === 0) return 0;
    return withinMs(this.#past.get(ALL_TOPICS), sinceMs) + withinMs(this.#past.get(topic), sinceMs);
  }

  #release(name: string): void {
    const hold = this.#holds.get(name);
    if (hold === undefined) return;
    this.#holds.delete(name);
    let past = this.#past.get(name);
    if (past === undefined) this.#past.set(name, (past = []));
    past.push([hold.sinceMs, this.#clock.wallMs()]);
    if (past.length > PAST_HOLDS_MAX) past.shift();
    this.#observer.released(name);
  }
}

function isDue(hold: Hold | undefined, nowMs: number): boolean {
  return hold === undefined || (!hold.probing && nowMs >= hold.notBeforeMs);
}

/** Milliseconds of the periods after the given time. */
function withinMs(periods: readonly [number, number][] | undefined, sinceMs: number): number {
  let ms = 0;
  if (periods === undefined) return ms;
  for (let index = periods.length - 1; index >= 0; index--) {
    const period = periods[index];
    if (period === undefined || period[1] <= sinceMs) break;
    ms += period[1] - Math.max(period[0], sinceMs);
  }
  return ms;
}
