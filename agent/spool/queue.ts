/** Cursors of one lane of a queue, and the list of all of them. Pure bookkeeping. */
import type { Lane, OutboundEvent, Seq } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import { MAX_TAG } from "./keys.ts";
import type { QueueTag } from "./keys.ts";
import { LaneSegments } from "./segments.ts";

/** `acked <= durable <= assigned`, always; `trimmed` lies at or before `acked`. */
export class Queue implements QueueTag {
  readonly name: string;
  readonly tag: number;
  readonly lane: Lane;
  /** Where its records stand. */
  readonly segments = new LaneSegments();
  /** The other lane under the same name; null while there is none. */
  other: Queue | null = null;
  /** Number of the newest barrier that was given one; no event that waits for it needs to know more. */
  barrierAt: Seq = 0;
  /** Records up to here wait for nothing of the other lane: its numbers were given anew since. */
  unboundThrough: Seq = 0;
  /** Last sequence number given out, also when its write is still under way. */
  assigned: Seq = 0;
  /** Last record that is on disk. */
  durable: Seq = 0;
  /** Everything up to here is accepted. */
  acked: Seq = 0;
  /** Everything up to here is deleted (or never was); the first record begins behind it. */
  trimmed: Seq = 0;
  /** Last event of each record that is known and not deleted, in order: what a trim goes by. */
  readonly #recordEnds: Seq[] = [];
  /** A record behind the known ones holds the acknowledged event, and may reach beyond it. */
  endsAtAcked = false;
  /** Bytes ever appended and ever acknowledged; the latter is shared out evenly between records. */
  appendedBytes = 0;
  ackedBytes = 0;
  /** Capture time of the oldest record that is not acknowledged, and whose it is. */
  oldestCapturedAtMs: number | null = null;
  oldestSeq: Seq = 0;
  /** The first event that is damaged or missing, until it is healed (damages.ts). */
  damagedAt: Seq | null = null;

  constructor(name: string, tag: number, lane: Lane) {
    this.name = name;
    this.tag = tag;
    this.lane = lane;
  }

  /** How messages name it. */
  get label(): string {
    return this.lane === "live" ? this.name : `${this.name} (${this.lane})`;
  }

  get pendingEvents(): number {
    return this.assigned - this.acked;
  }

  get pendingBytes(): number {
    return this.appendedBytes - this.ackedBytes;
  }

  /** Last event that can be read: the last on disk, or the one before the damage. */
  get readable(): Seq {
    return this.damagedAt === null ? this.durable : Math.min(this.durable, this.damagedAt - 1);
  }

  /** The queue ends here: what stood behind will be read again from the binlog. */
  cutTo(last: Seq): void {
    assert(this.acked <= last && last <= this.assigned, "only what waits is cut");
    const kept = this.pendingEvents === 0 ? 0 : (last - this.acked) / this.pendingEvents;
    this.appendedBytes = this.ackedBytes + this.pendingBytes * kept;
    this.assigned = last;
    this.durable = last;
    this.damagedAt = null;
    this.barrierAt = Math.min(this.barrierAt, last);
    // What follows gets numbers that records of the other lane know as those of earlier events: to wait
    // for them could be to wait for what waits for oneself.
    if (this.other !== null) this.other.unboundThrough = this.other.assigned;
    this.forgetRecordsFrom(last + 1);
    this.segments.cutTo(last);
    if (this.acked === last) this.oldestCapturedAtMs = null;
  }

  /** Records from this event on are replaced; one that reaches into it ends before it. */
  forgetRecordsFrom(seq: Seq): void {
    let cut = false;
    for (let end = this.#recordEnds.at(-1); end !== undefined && end >= seq; end = this.#recordEnds.at(-1)) {
      this.#recordEnds.pop();
      cut = true;
    }
    if (cut && (this.#recordEnds.at(-1) ?? this.trimmed) < seq - 1) this.#recordEnds.push(seq - 1);
  }

  /**
   * What the event that gets this number waits for in the other lane, of which `pending` events have
   * their numbers still to come (`SpooledEvent.otherLaneThrough`). To be asked in the order of appending.
   */
  bind(event: OutboundEvent, seq: Seq, pending: number): Seq {
    if (!event.barrier) return this.lane === "live" ? 0 : (this.other?.barrierAt ?? 0);
    this.barrierAt = seq;
    return this.other === null ? 0 : this.other.assigned + pending;
  }

  /** Gives the next numbers to a record of so many events; says the last of them. */
  assign(events: number, bytes: number, firstCapturedAtMs: number): Seq {
    if (this.assigned === this.acked) {
      this.oldestCapturedAtMs = firstCapturedAtMs;
      this.oldestSeq = this.assigned + 1;
    }
    this.assigned += events;
    this.appendedBytes += bytes;
    return this.assigned;
  }

  /**
   * A record of these events stands on disk. Only the one that follows what is known is noted: a
   * reader that jumps ahead says nothing about what lies between.
   */
  noteRecord(first: Seq, last: Seq): void {
    let known = this.#recordEnds.at(-1) ?? this.trimmed;
    if (this.endsAtAcked && first === this.acked + 1 && first > known + 1) {
      this.#recordEnds.push(first - 1);
      known = first - 1;
    }
    if (first !== known + 1) return;
    this.endsAtAcked = false;
    this.#recordEnds.push(last);
  }

  /** Whether a record holds nothing but acknowledged events. */
  get hasTrimmable(): boolean {
    const [end] = this.#recordEnds;
    return end !== undefined && end <= this.acked;
  }

  /** Records that hold nothing but acknowledged events. */
  get trimmableRecords(): number {
    let records = 0;
    for (const end of this.#recordEnds) {
      if (end > this.acked) break;
      records += 1;
    }
    return records;
  }

  /**
   * Takes up to `limit` such records away, handing the numbers of each one's first and last event to
   * `each`. Says how many they were.
   */
  trim(limit: number, each: (first: Seq, last: Seq) => void): number {
    let records = 0;
    for (const end of this.#recordEnds) {
      if (end > this.acked || records === limit) break;
      each(this.trimmed + 1, end);
      this.trimmed = end;
      records += 1;
    }
    this.#recordEnds.splice(0, records);
    return records;
  }

  /** Bytes of its records, on average over all that were ever appended. */
  get meanEventBytes(): number {
    return this.assigned === 0 ? 0 : this.appendedBytes / this.assigned;
  }

  /** Returns how many records that were not acknowledged before are now. */
  ack(through: Seq): number {
    assert(through <= this.durable, "only durable records are acknowledged");
    const records = through - this.acked;
    if (records <= 0) return 0;
    this.ackedBytes += (this.pendingBytes * records) / this.pendingEvents;
    this.acked = through;
    // It was read before it was damaged, and delivered: nobody will need it again.
    if (this.damagedAt !== null && this.damagedAt <= through) this.damagedAt = null;
    if (this.acked === this.assigned) {
      this.ackedBytes = this.appendedBytes;
      this.oldestCapturedAtMs = null;
    }
    return records;
  }
}

/** All lanes of all queues, by name and in the order in which they were made. */
export class Queues {
  readonly #liveByName = new Map<string, Queue>();
  readonly #liveByTag = new Map<number, Queue>();
  readonly #all: Queue[] = [];
  #nextTag = 1;
  /** A name was given a tag, or a lane to one, that is not on disk yet. */
  namesChanged = false;

  get all(): readonly Queue[] {
    return this.#all;
  }

  /** Before the state is read once more. */
  clear(): void {
    this.#liveByName.clear();
    this.#liveByTag.clear();
    this.#all.length = 0;
    this.#nextTag = 1;
  }

  byTag(tag: number, lane: Lane): Queue | null {
    return laneOf(this.#liveByTag.get(tag), lane);
  }

  find(name: string, lane: Lane): Queue | null {
    return laneOf(this.#liveByName.get(name), lane);
  }

  /** The queue of that name; a new one gets the next tag, and its live lane comes first. */
  of(name: string, lane: Lane): Queue {
    const live = this.#liveByName.get(name);
    const known = laneOf(live, lane);
    if (known !== null) return known;
    this.namesChanged = true;
    const made = live ?? this.restore(name, this.#nextTag, "live");
    return lane === "live" ? made : this.restore(name, made.tag, lane);
  }

  /** Puts one in as the state names it. Throws SPOOL_CORRUPT where that cannot be. */
  restore(name: string, tag: number, lane: Lane): Queue {
    assert(tag <= MAX_TAG, "there are fewer than 65,536 queues");
    const queue = new Queue(name, tag, lane);
    if (lane === "live") this.#addLive(queue);
    else this.#addBulk(queue);
    this.#all.push(queue);
    this.#nextTag = Math.max(this.#nextTag, tag + 1);
    return queue;
  }

  #addLive(queue: Queue): void {
    if (this.#liveByTag.has(queue.tag) || this.#liveByName.has(queue.name)) throw namedTwice(queue);
    this.#liveByName.set(queue.name, queue);
    this.#liveByTag.set(queue.tag, queue);
  }

  #addBulk(queue: Queue): void {
    const live = this.#liveByTag.get(queue.tag);
    if (live === undefined || live.name !== queue.name || live.other !== null) throw namedTwice(queue);
    live.other = queue;
    queue.other = live;
  }

  /** Records that were given out and not acknowledged. */
  pendingEvents(): number {
    let pending = 0;
    for (const queue of this.#all) pending += queue.pendingEvents;
    return pending;
  }

  /** Their bytes: an estimate. */
  pendingBytes(): number {
    let pending = 0;
    for (const queue of this.#all) pending += queue.pendingBytes;
    return pending;
  }
}

function laneOf(live: Queue | undefined, lane: Lane): Queue | null {
  if (live === undefined || lane === "live") return live ?? null;
  return live.other;
}

function namedTwice({ label, tag }: Queue): AgentError {
  return new AgentError(
    "SPOOL_CORRUPT",
    `The spool's table of queues names "${label}" or tag ${tag} twice, or a bulk lane alone.`,
  );
}
