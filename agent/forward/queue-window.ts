/**
 * The part of one lane of a queue that the forwarder looks at: events read ahead, in order, of which
 * it may send any that is its entity's oldest. This is where invariant 5 lives (for one entity at most
 * one event is under way), and from where invariant 4 is answered: the contiguous prefix ends before
 * the oldest event that is not done.
 *
 * Where the queue has a second lane, the two windows know each other. An entity that one of them has
 * given out is nobody else's until it is done; then the other has its turn, if it asked meanwhile, so
 * that neither starves. And an event that waits for the other lane (barriers, and what is behind one)
 * is not looked at before that lane is done so far.
 *
 * Every step costs the same however many events wait: an event is looked at when it enters, when it
 * is taken and when it is done, never in between.
 */
import type { OutboundEvent, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { Fifo } from "./fifo.ts";
import type { Counted } from "./refusals.ts";
import { entryBytes, payloadBytes } from "./wire.ts";

/** One event in the window. Made by the window; the forwarder keeps its attempts here. */
export interface Slot extends Counted {
  readonly event: SpooledEvent;
  /** The event's; made once. */
  readonly entityKey: string;
  /** Neighbours in queue order. */
  previous: Slot | null;
  next: Slot | null;
  /** The next event of the same entity, which waits for this one. */
  follower: Slot | null;
  /** Of the newest event of an entity: the oldest, which is the only one that may go; null is itself. */
  oldest: Slot | null;
  /** It was given out, or is the next to be: the other lane leaves its entity alone until it is done. */
  taken: boolean;
  /** The other lane's event of the same entity, which waits for this one. */
  parked: Slot | null;
  /** How often it was refused for its own content. */
  refusals: number;
  /** How often a request failed for it while others of the same request were accepted. */
  failures: number;
  /** An operator said that it may be given up: the next time it is not taken it is. */
  released: boolean;
  /** Comes from quarantine: its number lies in what is acknowledged already. */
  readonly isRetry: boolean;
}

export interface TakeLimits {
  readonly events: number;
  readonly bytes: number;
}

export class QueueWindow {
  /** Events that may go now: `#urgent` first. Each is the only one of its entity in both. */
  readonly #ready = new Fifo<Slot>();
  /** Those that were given back, and those whose predecessor is done: the oldest, mostly. Served
   * first, because the acknowledged prefix waits for them. */
  readonly #urgent = new Fifo<Slot>();
  readonly #newestOfEntity = new Map<string, Slot>();
  #oldest: Slot | null = null;
  #newest: Slot | null = null;
  #pending = 0;
  #pendingBytes = 0;
  /** Read, but behind a barrier. */
  readonly #staged = new Fifo<SpooledEvent>();
  #stagedBytes = 0;
  #barrierUnderWay = false;
  #admittedThrough: Seq;
  #readThrough: Seq;
  /** The window of the queue's other lane. */
  #other: QueueWindow | null = null;
  #unboundThrough: Seq = 0;

  constructor(acked: Seq) {
    this.#admittedThrough = acked;
    this.#readThrough = acked;
  }

  /** The other lane's window from now on. Nothing may be in that yet. */
  pairWith(other: QueueWindow): void {
    this.#other = other;
    other.#other = this;
  }

  /** Events up to here wait for nothing of the other lane (`QueueState.unboundThrough`). */
  unbind(through: Seq): void {
    if (through <= this.#unboundThrough) return;
    this.#unboundThrough = through;
    this.#admit();
    this.#otherMoved();
  }

  /** The newest event that was read; the next read starts after it. */
  get readThrough(): Seq {
    return this.#readThrough;
  }

  /** Everything up to here is done. */
  get doneThrough(): Seq {
    return this.#oldest === null ? this.#admittedThrough : this.#oldest.event.seq - 1;
  }

  /** Events held in memory: waiting, under way, or behind a barrier. */
  get heldEvents(): number {
    return this.#pending + this.#staged.length;
  }

  get heldBytes(): number {
    return this.#pendingBytes + this.#stagedBytes;
  }

  /** Events that could go now. */
  get readyEvents(): number {
    return this.#ready.length + this.#urgent.length;
  }

  /** The event that `take` would take first, or null. */
  peek(): Slot | null {
    for (;;) {
      const slot = this.#urgent.peek() ?? this.#ready.peek() ?? null;
      if (slot === null || this.#other === null || slot.taken) return slot;
      const rival = this.#other.#takenOf(slot.entityKey);
      if (rival === null) return slot;
      assert(rival.parked === null, "of one entity a lane has one event that may go");
      rival.parked = slot;
      this.#shift();
    }
  }

  /** Adds what was read after `readThrough`, in order; that nothing is missing is the reader's promise. */
  add(events: readonly SpooledEvent[]): void {
    for (const event of events) {
      assert(event.seq > this.#readThrough, "a queue is read in order");
      this.#readThrough = event.seq;
      this.#staged.push(event);
      this.#stagedBytes += payloadBytes(event);
    }
    this.#admit();
    this.#otherMoved();
  }

  /**
   * Takes events for one request: of one topic, of different entities, within the limits. At least
   * one, if any is ready, however large it is.
   */
  take(limits: TakeLimits): Slot[] {
    const taken: Slot[] = [];
    const first = this.peek();
    if (first === null) return taken;
    const topic = first.event.topic;
    let bytes = 0;
    while (taken.length < limits.events) {
      const slot = this.peek();
      if (slot === null || slot.event.topic !== topic) break;
      bytes += entryBytes(slot.event);
      if (bytes > limits.bytes && taken.length > 0) break;
      this.#shift();
      slot.taken = true;
      taken.push(slot);
    }
    return taken;
  }

  /** Takes back events that were taken and are not done: they go first the next time. */
  giveBack(slots: readonly Slot[]): void {
    for (const slot of slots) this.#urgent.push(slot);
  }

  /** An event of the entity that waits or is under way, the newest of its lane; or null. */
  newestOf(entityKey: string): SpooledEvent | null {
    const own = this.#newestOfEntity.get(entityKey);
    if (own !== undefined || this.#other === null) return own?.event ?? null;
    return this.#other.#newestOfEntity.get(entityKey)?.event ?? null;
  }

  /** The event with this id, where it was read and is not behind a barrier; or null. */
  find(id: string): Slot | null {
    for (let slot = this.#oldest; slot !== null; slot = slot.next) if (slot.event.id === id) return slot;
    return null;
  }

  /**
   * Takes an event from quarantine in, before every later one of its entity; the caller sends it and
   * owes `done`. Null while an event of the entity is here, or a barrier is under way.
   */
  admitRetry(event: SpooledEvent): Slot | null {
    if (this.#barrierUnderWay || (this.#other !== null && this.#other.#barrierUnderWay)) return null;
    if (this.newestOf(event.entityKey) !== null) return null;
    const slot = slotOf(event, { previous: null, isRetry: true });
    slot.taken = true;
    this.#newestOfEntity.set(slot.entityKey, slot);
    this.#pending++;
    this.#pendingBytes += payloadBytes(event);
    return slot;
  }

  /** The event was accepted or is in quarantine: its entity's next one may go. */
  done(slot: Slot): void {
    this.#pending--;
    this.#pendingBytes -= payloadBytes(slot.event);
    if (!slot.isRetry) this.#unlink(slot);
    const { follower } = slot;
    slot.follower = null;
    if (follower === null) this.#newestOfEntity.delete(slot.entityKey);
    else this.#follow(follower);
    if (slot.parked !== null && this.#other !== null) this.#other.#unpark(slot.parked);
    if (slot.event.barrier && !slot.isRetry) this.#barrierUnderWay = false;
    slot.event.bytes?.release();
    this.#admit();
    this.#otherMoved();
  }

  /** The other lane may have waited for what is done here now. */
  #otherMoved(): void {
    if (this.#other !== null) this.#other.#admit();
  }

  #follow(follower: Slot): void {
    this.#urgent.push(follower);
    const newest = this.#newestOfEntity.get(follower.entityKey);
    if (newest !== undefined) newest.oldest = newest === follower ? null : follower;
  }

  /** It has waited for the other lane; now that one waits for it. */
  #unpark(slot: Slot): void {
    slot.taken = true;
    this.#urgent.push(slot);
  }

  /** The event of the entity that was given out here and is not done. */
  #takenOf(entityKey: string): Slot | null {
    const newest = this.#newestOfEntity.get(entityKey);
    if (newest === undefined) return null;
    const oldest = newest.oldest ?? newest;
    return oldest.taken ? oldest : null;
  }

  #waitsForOther({ seq, otherLaneThrough }: SpooledEvent): boolean {
    if (otherLaneThrough === 0 || seq <= this.#unboundThrough) return false;
    return this.#other !== null && this.#other.doneThrough < otherLaneThrough;
  }

  #admit(): void {
    while (!this.#barrierUnderWay) {
      const event = this.#staged.peek();
      if (event === undefined || this.#waitsForOther(event)) return;
      if (event.barrier) {
        // It waits for everything before it, and everything after waits for it.
        if (this.#pending > 0) return;
        this.#barrierUnderWay = true;
      }
      this.#staged.shift();
      this.#stagedBytes -= payloadBytes(event);
      this.#admitOne(event);
    }
  }

  #admitOne(event: SpooledEvent): void {
    const slot = slotOf(event, { previous: this.#newest, isRetry: false });
    if (this.#newest === null) this.#oldest = slot;
    else this.#newest.next = slot;
    this.#newest = slot;
    this.#admittedThrough = event.seq;
    this.#pending++;
    this.#pendingBytes += payloadBytes(event);
    const before = this.#newestOfEntity.get(slot.entityKey);
    this.#newestOfEntity.set(slot.entityKey, slot);
    if (before === undefined) this.#ready.push(slot);
    else {
      before.follower = slot;
      slot.oldest = before.oldest ?? before;
    }
  }

  #unlink(slot: Slot): void {
    if (slot.previous === null) this.#oldest = slot.next;
    else slot.previous.next = slot.next;
    if (slot.next === null) this.#newest = slot.previous;
    else slot.next.previous = slot.previous;
    // One that lived long enough to be old to the collector would keep all that came after it, until
    // the old are collected: each makes the next one old.
    slot.previous = null;
    slot.next = null;
  }

  #shift(): void {
    if (this.#urgent.length > 0) this.#urgent.shift();
    else this.#ready.shift();
  }
}

function slotOf(event: SpooledEvent, place: Pick<Slot, "previous" | "isRetry">): Slot {
  return {
    event,
    entityKey: event.entityKey,
    previous: place.previous,
    isRetry: place.isRetry,
    next: null,
    follower: null,
    oldest: null,
    taken: false,
    parked: null,
    refusals: 0,
    failures: 0,
    released: false,
    countedRound: 0,
  };
}

/** The bare events of the slots, as a client wants them. */
export function eventsOf(slots: readonly Slot[]): OutboundEvent[] {
  const events: OutboundEvent[] = [];
  for (const slot of slots) events.push(slot.event);
  return events;
}
