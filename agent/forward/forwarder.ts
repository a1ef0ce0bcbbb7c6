/**
 * Loop 2: spool -> Dapr. It remembers nothing beyond what is under way: what was accepted is
 * acknowledged to the spool, and everything else is read and sent again after a restart.
 *
 * One function, `#pump`, decides what to send; it runs whenever something changed: events were
 * appended, a read or a request ended, a pause is over. Within a queue events go in bulk requests
 * of different entities (invariant 5), live changes before bulk work (lanes.ts), queues do not wait for each other (invariant 4), and an event
 * leaves only when it was accepted or stands in quarantine (invariant 3).
 */
import type { SpooledEvent } from "../change.ts";
import type { ControlEncoder, ForwardObserver, QueueReader } from "../ports.ts";
import { assert } from "../kernel/assert.ts";
import { asError } from "../kernel/errors.ts";
import type { Clock, Service } from "../kernel/service.ts";
import { Alarm } from "./alarm.ts";
import type { PublishOutcome } from "./classify.ts";
import type { Publisher } from "./dapr-client.ts";
import { DeadLetters } from "./dead-letters.ts";
import { completeOptions, type ForwarderOptions, type Limits } from "./forwarder-options.ts";
import { runHeartbeat } from "./heartbeat.ts";
import { Holds } from "./holds.ts";
import type { Lane } from "./lane.ts";
import { Lanes } from "./lanes.ts";
import { eventsOf, type Slot } from "./queue-window.ts";
import { RateLimit } from "./rate-limit.ts";
import { release, type Released, type ReleaseRequest } from "./release.ts";
import { Retries, type RetryOutcome } from "./retries.ts";
import { Settlement } from "./settlement.ts";
import { runStallWatch } from "./stall-watch.ts";
import { forwarderStatus, type ForwarderStatus } from "./status.ts";
import { BODY_OVERHEAD, entryBytes } from "./wire.ts";

export interface ForwarderParts {
  readonly reader: QueueReader;
  readonly publisher: Publisher;
  readonly encoder: ControlEncoder;
  readonly observer: ForwardObserver;
  readonly clock: Clock;
}

/** Every read, request and write has an end, and a pause has one: a loop that passes both is stuck. */
export interface ForwardPulse {
  /** Monotonic time since when the oldest work is under way, null when none is. */
  readonly oldestWorkSinceMs: number | null;
  /** Monotonic time at which it looks again by itself, null when only something new wakes it. */
  readonly wakesAtMs: number | null;
}

/** Why nothing more goes from a lane now; a number is the monotonic time that may change it. */
type Pause = number;
const UNTIL_SOMETHING_HAPPENS: Pause = Number.POSITIVE_INFINITY;
const SENT = -1;

export class Forwarder implements Service {
  readonly name = "forward";
  readonly #parts: ForwarderParts;
  readonly #options: ForwarderOptions;
  readonly #limits: Limits;
  readonly #holds: Holds;
  readonly #rate: RateLimit;
  readonly #alarm: Alarm;
  readonly #deadLetters: DeadLetters;
  readonly #settlement: Settlement;
  readonly #retries: Retries;
  readonly #lanes = new Lanes();
  /** Start times of the requests under way, oldest first. */
  readonly #startedAtMs = new Set<{ readonly atMs: number }>();
  readonly #ending = new AbortController();
  /** Requests under way that count against the bound over all topics. */
  #inFlight = 0;
  /** Reads, requests and quarantine writes that have not ended, oldest first. */
  readonly #work = new Set<{ readonly sinceMs: number }>();
  #whenIdle: (() => void)[] = [];
  #takesWork = false;
  #failure: Error | null = null;
  #ended: Promise<void> | null = null;
  #end: () => void = () => undefined;

  constructor(parts: ForwarderParts, options: ForwarderOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#limits = completeOptions(options);
    this.#holds = new Holds(parts.clock, parts.observer);
    this.#rate = new RateLimit(options.rateMax, parts.clock.monotonicMs());
    this.#alarm = new Alarm(parts.clock, () => this.#pump());
    this.#settlement = new Settlement({
      ...parts,
      holds: this.#holds,
      maxRetries: options.maxRetries,
      quarantineMax: options.quarantineMax,
      deadLettersWaiting: () => this.#deadLetters.waiting,
      giveUp: (lane, slot, verdict) => this.#deadLetters.add(lane, slot, verdict),
    });
    this.#deadLetters = new DeadLetters({
      ...parts,
      holds: this.#holds,
      batchSize: options.batchSize,
      bodyBytesMax: this.#limits.bodyBytesMax,
      onQuarantined: (lane, slot) => this.#settlement.quarantined(lane, slot),
    });
    this.#retries = new Retries({
      ...parts,
      laneOf: (event) => this.#lanes.find(event),
      isOversize: (event) => this.#isOversize(event),
      pump: () => this.#pump(),
    });
  }

  /** Resolves when stopped; rejects when the spool cannot be read or written, or on a bug. */
  run(): Promise<void> {
    assert(this.#ended === null, "a forwarder runs once");
    this.#ended = this.#run();
    return this.#ended;
  }

  /** Takes no new work and finishes what is under way, for at most `deadlineMs` from now. */
  async drain(deadlineMs: number): Promise<void> {
    this.#takesWork = false;
    this.#alarm.cancel();
    if (this.#work.size === 0) return;
    const idle = new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    const over = new AbortController();
    await Promise.race([idle, this.#parts.clock.sleep(deadlineMs, over.signal)]);
    over.abort();
  }

  /** Ends at once: what is under way is cut off, and will be sent again after the next start. */
  async stop(): Promise<void> {
    this.#takesWork = false;
    this.#alarm.cancel();
    this.#ending.abort();
    while (this.#work.size > 0) {
      const idle = new Promise<void>((resolve) => this.#whenIdle.push(resolve));
      await this.#parts.publisher.resetConnections();
      await idle;
    }
    this.#end();
    // The loop's own failure belongs to whoever awaits run().
    await this.#ended?.catch(() => undefined);
  }

  /** Sends a quarantined event once more; resolves when it was answered, or cannot be sent. */
  retry(id: string): Promise<RetryOutcome> {
    return this.#retries.retry(id);
  }

  /** Lets refused events of a topic be given up after all. Throws COMMAND_REFUSED. */
  release(request: ReleaseRequest): Released {
    const room = this.#options.quarantineMax - this.#settlement.quarantinedCount - this.#deadLetters.waiting;
    const released = release(request, {
      lanes: this.#lanes.all,
      holds: this.#holds,
      room: Math.max(0, room),
    });
    this.#pump();
    return released;
  }

  status(): ForwarderStatus {
    return forwarderStatus({
      lanes: this.#lanes.all,
      holds: this.#holds,
      settlement: this.#settlement,
      deadLettersWaiting: this.#deadLetters.waiting,
    });
  }

  /** What the loop is at, for whoever judges whether it still comes round. */
  pulse(): ForwardPulse {
    return {
      oldestWorkSinceMs: this.#work.values().next().value?.sinceMs ?? null,
      wakesAtMs: this.#alarm.atMs === UNTIL_SOMETHING_HAPPENS ? null : this.#alarm.atMs,
    };
  }

  async #run(): Promise<void> {
    const { reader, publisher, encoder, clock } = this.#parts;
    const ended = new Promise<void>((resolve) => (this.#end = resolve));
    if (this.#ending.signal.aborted) return;
    this.#takesWork = true;
    const unsubscribe = reader.onAppended(() => this.#look());
    this.#look();
    const { signal } = this.#ending;
    const oldest = (): number | null => this.#startedAtMs.values().next().value?.atMs ?? null;
    const watch = { publisher, clock, oldestStartMs: oldest, unreachable: () => this.#holds.unreachable() };
    void runStallWatch(watch, signal).catch((thrown: unknown) => this.#fail(thrown));
    if (this.#options.heartbeat !== null) {
      const parts = { publisher, encoder, clock, holds: this.#holds, ...this.#options.heartbeat };
      const quarantined = (): number => this.#settlement.quarantinedCount;
      void runHeartbeat({ ...parts, quarantined }, signal).catch((thrown: unknown) => this.#fail(thrown));
    }
    try {
      await ended;
    } finally {
      unsubscribe();
      this.#takesWork = false;
      this.#alarm.cancel();
      this.#ending.abort();
    }
    if (this.#failure !== null) throw this.#failure;
  }

  #fail(thrown: unknown): void {
    this.#failure ??= asError(thrown);
    this.#takesWork = false;
    this.#end();
  }

  /** Sees which queues there are and how far they reach. */
  #look(): void {
    this.#lanes.update(this.#parts.reader.queues());
    this.#pump();
  }

  #pump(): void {
    if (!this.#takesWork) return;
    try {
      const nowMs = this.#parts.clock.monotonicMs();
      let wakeAtMs = this.#pumpDeadLetters(nowMs);
      if (this.#lanes.bulkIsDue) this.#sendOneOf(this.#lanes.bulk(), nowMs);
      wakeAtMs = Math.min(wakeAtMs, this.#sendAllOf(this.#lanes.live(), nowMs));
      wakeAtMs = Math.min(wakeAtMs, this.#sendAllOf(this.#lanes.bulk(), nowMs));
      // A dead letter may have come up while the lanes were looked at.
      wakeAtMs = Math.min(wakeAtMs, this.#pumpDeadLetters(nowMs));
      if (wakeAtMs !== UNTIL_SOMETHING_HAPPENS) this.#alarm.ringAt(wakeAtMs);
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  #pumpDeadLetters(nowMs: number): Pause {
    const dueAtMs = this.#deadLetters.dueAtMs(nowMs);
    if (dueAtMs > nowMs) return dueAtMs;
    this.#track(this.#deadLetters.send());
    return UNTIL_SOMETHING_HAPPENS;
  }

  #sendOneOf(lanes: Iterable<Lane>, nowMs: number): void {
    for (const lane of lanes) if (this.#send(lane, nowMs) === SENT) return;
  }

  #sendAllOf(lanes: Iterable<Lane>, nowMs: number): Pause {
    let wakeAtMs = UNTIL_SOMETHING_HAPPENS;
    for (const lane of lanes) {
      wakeAtMs = Math.min(wakeAtMs, lane.releaseDelayed(nowMs));
      this.#fill(lane);
      let pause = this.#send(lane, nowMs);
      while (pause === SENT) pause = this.#send(lane, nowMs);
      wakeAtMs = Math.min(wakeAtMs, pause);
    }
    return wakeAtMs;
  }

  /** Sends one request of the lane, or says what stands against it. */
  #send(lane: Lane, nowMs: number): Pause {
    const topic = lane.nextTopic();
    if (topic === null || !this.#lanes.mayStart(lane, this.#limits)) return UNTIL_SOMETHING_HAPPENS;
    const gate = this.#holds.gate(topic, nowMs);
    if (gate === "closed") return this.#holds.dueAtMs(topic);
    const isProbe = gate === "probe";
    // Probes do not count, so that topics which hang cannot use up the requests of those that work.
    if (!isProbe && this.#inFlight >= this.#limits.requestsAtOnce) return UNTIL_SOMETHING_HAPPENS;
    const wanted = isProbe
      ? Math.min(this.#options.batchSize, this.#limits.probeEvents)
      : this.#options.batchSize;
    if (!isProbe && !lane.hasSuspects) {
      const waitUntilMs = this.#waitForCompany(lane, wanted, nowMs);
      if (waitUntilMs > nowMs) return waitUntilMs;
    }
    const allowed = this.#rate.allowed(wanted, nowMs);
    if (allowed < 1) return this.#rate.readyAtMs(Math.min(wanted, this.#limits.probeEvents));
    const bytes = this.#limits.bodyBytesMax - BODY_OVERHEAD;
    const taken = lane.takeSuspects() ?? lane.window.take({ events: allowed, bytes });
    const slots = this.#withoutOversize(lane, taken);
    if (slots.length === 0) return SENT;
    this.#rate.spend(slots.length);
    lane.partialSinceMs = null;
    this.#track(this.#publish({ lane, topic, slots, isProbe }));
    this.#fill(lane);
    return SENT;
  }

  /**
   * A partly filled batch waits for company only while a request of its topic is under way: an idle
   * topic sends at once, and a busy one does not spend requests on single events.
   */
  #waitForCompany(lane: Lane, wanted: number, nowMs: number): number {
    if (lane.inFlight === 0 || lane.window.readyEvents >= wanted) return nowMs;
    lane.partialSinceMs ??= nowMs;
    return lane.partialSinceMs + this.#options.syncIntervalMs;
  }

  /** What cannot be sent at all goes straight to the dead letters. */
  #withoutOversize(lane: Lane, slots: Slot[]): Slot[] {
    if (!slots.some((slot) => this.#isOversize(slot.event))) return slots;
    const fitting: Slot[] = [];
    for (const slot of slots) {
      if (this.#isOversize(slot.event)) this.#settlement.tooLarge(lane, slot);
      else fitting.push(slot);
    }
    return fitting;
  }

  #isOversize(event: SpooledEvent): boolean {
    return event.oversize || entryBytes(event) + BODY_OVERHEAD > this.#limits.bodyBytesMax;
  }

  async #publish(request: Request): Promise<void> {
    const { lane, topic, slots, isProbe } = request;
    const started = { atMs: this.#parts.clock.monotonicMs() };
    this.#startedAtMs.add(started);
    this.#lanes.started(lane);
    if (isProbe) this.#holds.probeStarted(topic);
    else this.#inFlight++;
    this.#parts.observer.batchSent(slots.length);
    let outcome: PublishOutcome;
    try {
      outcome = await this.#parts.publisher.publishBulk(topic, eventsOf(slots));
    } finally {
      this.#startedAtMs.delete(started);
      this.#lanes.ended(lane);
      if (isProbe) this.#holds.probeEnded(topic);
      else this.#inFlight--;
    }
    this.#settlement.settle(lane, slots, outcome);
    // A retry goes alone.
    const [first] = slots;
    if (first?.isRetry === true) await this.#retries.settled(lane, first, outcome);
  }

  /** Reads ahead while there is room; the next events are at hand before the request is answered. */
  #fill(lane: Lane): void {
    const { window } = lane;
    if (lane.reading || window.readThrough >= lane.last) return;
    if (window.readThrough - window.doneThrough >= this.#limits.spanEvents) return;
    const room = this.#limits.windowEvents - window.heldEvents;
    const roomBytes = this.#limits.windowBytes - window.heldBytes;
    // What lies in memory until its turn only grows old there, and the collector's work with it.
    if (window.readyEvents >= this.#options.batchSize) return;
    // Small reads cost more than they bring while enough is at hand.
    if (room < this.#limits.readEvents / 2 || roomBytes <= 0) return;
    lane.reading = true;
    this.#track(this.#read(lane, Math.min(room, this.#limits.readEvents), roomBytes));
  }

  async #read(lane: Lane, maxEvents: number, maxBytes: number): Promise<void> {
    try {
      const after = lane.window.readThrough;
      const events = await this.#parts.reader.read(lane.queue, after, { maxEvents, maxBytes }, lane.lane);
      lane.window.add(events);
      // It met damage: what follows is told of when it is healed.
      if (events.length === 0) lane.last = after;
    } finally {
      lane.reading = false;
    }
  }

  /** Waits for the work's end in the background, then looks for more; a failure ends the run. */
  #track(work: Promise<void>): void {
    const started = { sinceMs: this.#parts.clock.monotonicMs() };
    this.#work.add(started);
    void this.#finish(work, started);
  }

  async #finish(work: Promise<void>, started: { readonly sinceMs: number }): Promise<void> {
    try {
      await work;
    } catch (thrown) {
      this.#fail(thrown);
    }
    this.#work.delete(started);
    this.#pump();
    if (this.#work.size > 0) return;
    const waiting = this.#whenIdle;
    this.#whenIdle = [];
    for (const resolve of waiting) resolve();
  }
}

interface Request {
  readonly lane: Lane;
  readonly topic: string;
  readonly slots: Slot[];
  readonly isProbe: boolean;
}
