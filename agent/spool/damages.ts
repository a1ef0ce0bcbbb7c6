/**
 * Damage in a queue, and the two ways to heal it. What lies behind a damaged record is not read
 * until then; other queues go on.
 *
 * - `rewind`: the queue ends before the damage and the checkpoint goes back to a mark, so capture
 *   brings everything again, under the same ids. For all queues that is a repeat. The bulk lane holds
 *   what was read from tables, so it is never cut.
 * - `skip`: where the binlog no longer has that: exactly the damaged numbers are passed over, and a
 *   gap event takes their place, together with what is to be read to make up for them.
 *
 * Each is one synced batch: a crash leaves the damage as it was, or healed.
 */
import type { Checkpoint, OutboundEvent, QueueLane, Seq } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import type { Log } from "../kernel/service.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { entriesOf, isCorruption } from "./database.ts";
import type { Database } from "./database.ts";
import type { Group, GroupCommit } from "./group-commit.ts";
import type { Intake } from "./intake.ts";
import { MAX_SEQ, parseQueueKey } from "./keys.ts";
import type { Marks } from "./marks.ts";
import type { Queue, Queues } from "./queue.ts";
import { type QueueRecords, recordAtOrBefore } from "./reading.ts";
import { placeIn, RunReader, VOID_RUN_MAX } from "./record.ts";
import type { RecordEncoder } from "./record.ts";
import { laneRange, recordKey } from "./segments.ts";
import type { Segments } from "./segments.ts";

/** A queue that cannot be read on. */
export interface QueueDamage extends QueueLane {
  /** The first event that is damaged or missing. */
  readonly seq: Seq;
  /**
   * What capture would start again from; null: there is no mark before the damage, or it lies in the
   * bulk lane, whose events no binlog brings again.
   */
  readonly rewindTo: Checkpoint | null;
}

/** What is lost when the damage is skipped. */
export interface QueueGap {
  readonly first: Seq;
  readonly last: Seq;
  /** Checkpoints before and behind it, as near as is known. */
  readonly from: Checkpoint | null;
  readonly to: Checkpoint | null;
}

export interface DamagesParts {
  readonly database: Database;
  readonly commit: GroupCommit;
  readonly queues: Queues;
  readonly segments: Segments;
  readonly records: QueueRecords;
  readonly marks: Marks;
  readonly intake: Intake;
  readonly encoder: RecordEncoder;
  readonly log: Log;
  readonly checkpoint: () => Checkpoint | null;
  /** Queues have something to read again. */
  readonly healed: (queue: Queue) => void;
}

/** Events that no binlog brings again are carried over a rewind; more than this are not. */
const CARRIED_BYTES_MAX = 8 * 1024 * 1024;

export class Damages {
  readonly #parts: DamagesParts;
  readonly #listeners = new Set<() => void>();

  constructor(parts: DamagesParts) {
    this.#parts = parts;
  }

  get all(): readonly QueueDamage[] {
    const found: QueueDamage[] = [];
    for (const queue of this.#parts.queues.all) {
      if (queue.damagedAt === null) continue;
      const { name, lane, damagedAt: seq } = queue;
      const mark = lane === "live" ? this.#parts.marks.before(queue, seq) : null;
      found.push({ queue: name, lane, seq, rewindTo: mark?.checkpoint ?? null });
    }
    return found;
  }

  /** Calls back when a read meets damage. Returns the unsubscriber. */
  onFound(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The event cannot be read; nothing of the queue is, from there on. */
  found(queue: Queue, seq: Seq, message: string): void {
    if (queue.damagedAt !== null && queue.damagedAt <= seq) return;
    queue.damagedAt = seq;
    this.#parts.records.forget(queue);
    this.#parts.log.error("a record of the spool is damaged; its queue waits until it is healed", {
      queue: queue.label,
      seq,
      what: message,
    });
    for (const listener of this.#listeners) listener();
  }

  /**
   * Durable when it resolves. Capture must not run: it starts again from the checkpoint. Nothing is
   * done where what is damaged was acknowledged meanwhile.
   */
  async rewind(lane: QueueLane): Promise<void> {
    if (!this.#isDamaged(lane)) return;
    const { queue, seq } = this.#damaged(lane);
    const { commit, marks, intake } = this.#parts;
    assert(queue.lane === "live", "what a rewind cuts off comes again from the binlog");
    const mark = marks.before(queue, seq);
    assert(mark !== null, "a rewind has a mark");
    let assigned: Seq;
    let tail: Tail;
    do {
      await commit.settled();
      assigned = queue.assigned;
      tail = await this.#tail(queue, seq);
    } while (queue.assigned !== assigned);
    if (!this.#isDamaged(lane)) return this.#parts.healed(queue);
    const group = commit.open();
    for (const key of tail.keys) group.batch.del(key);
    queue.cutTo(seq - 1);
    marks.dropAfter(mark);
    group.marks = true;
    if (tail.carried.length > 0) this.#put(group, queue, tail.carried);
    await intake.moveTo(withProgressOf(this.#parts.checkpoint(), mark.checkpoint));
    this.#parts.healed(queue);
  }

  /** What a skip would lose; null where what is damaged was acknowledged meanwhile. */
  async gap(lane: QueueLane): Promise<QueueGap | null> {
    if (!this.#isDamaged(lane)) return null;
    const { queue, seq } = this.#damaged(lane);
    const { marks, checkpoint } = this.#parts;
    const last = await this.#lastDamaged(queue, seq);
    return {
      first: seq,
      last,
      from: marks.before(queue, seq)?.checkpoint ?? null,
      to: marks.covering(queue, last)?.checkpoint ?? checkpoint(),
    };
  }

  /**
   * Puts the event in the gap's place, whatever lane it names, and the checkpoint beside it: it holds
   * what makes up for the loss. Durable when it resolves. Capture must not run: it starts again from
   * the checkpoint.
   */
  async skip(
    lane: QueueLane,
    gap: QueueGap,
    { event, checkpoint }: { readonly event: OutboundEvent; readonly checkpoint: Checkpoint },
  ): Promise<void> {
    const { queue, seq } = this.#damaged(lane);
    assert(seq === gap.first && event.queue === queue.name, "the gap is that of the queue");
    const { commit, encoder, intake } = this.#parts;
    const from = await this.#firstOf(queue, seq);
    const damaged: Buffer[] = [];
    for await (const { key } of this.#records(queue, from, gap.last)) damaged.push(key);
    const group = commit.open();
    for (const key of damaged) group.batch.del(key);
    for (let at = gap.first; at < gap.last; at += VOID_RUN_MAX) {
      const key = recordKey(queue, at);
      group.batch.put(key, encoder.voids(key, Math.min(VOID_RUN_MAX, gap.last - at)));
    }
    const key = recordKey(queue, gap.last);
    // It stands before what was appended earlier than it: to wait for the other lane's end of today could
    // be to wait for what waits for it.
    group.batch.put(key, encoder.run(key, [event], { from: 0, to: 1 }));
    if (event.barrier) queue.barrierAt = Math.max(queue.barrierAt, gap.last);
    queue.forgetRecordsFrom(seq);
    await intake.moveTo(checkpoint);
    queue.damagedAt = null;
    this.#parts.healed(queue);
  }

  #isDamaged({ queue, lane }: QueueLane): boolean {
    return (this.#parts.queues.find(queue, lane)?.damagedAt ?? null) !== null;
  }

  #damaged(damaged: QueueLane): { readonly queue: Queue; readonly seq: Seq } {
    const queue = this.#parts.queues.find(damaged.queue, damaged.lane);
    assert(queue !== null && queue.damagedAt !== null, "only a damaged queue is healed");
    return { queue, seq: queue.damagedAt };
  }

  /** Numbers of a queue's next records: one for each event, as they are given out at every append. */
  #put(group: Group, queue: Queue, events: readonly OutboundEvent[]): void {
    for (const event of events) {
      const otherLaneThrough = [queue.bind(event, queue.assigned + 1, 0)];
      this.#parts.intake.putRun(group, queue, [event], { from: 0, to: 1, otherLaneThrough });
    }
  }

  /** The records from the damage on, and what of them the binlog will not bring again. */
  async #tail(queue: Queue, seq: Seq): Promise<Tail> {
    const keys: Buffer[] = [];
    const carried: OutboundEvent[] = [];
    let bytes = 0;
    let lost = 0;
    const from = await this.#firstOf(queue, seq);
    for await (const { key, first, value } of this.#records(queue, from, MAX_SEQ)) {
      keys.push(key);
      for (const event of eventsOf(queue, key, value, first)) {
        if (event.kind !== "control" && event.op !== "r") continue;
        bytes += event.payload.length;
        if (bytes <= CARRIED_BYTES_MAX) carried.push(event);
        else lost += 1;
      }
    }
    if (lost > 0) {
      this.#parts.log.error("more control events stood behind the damage than can be carried over it", {
        queue: queue.label,
        lost,
      });
    }
    return { keys, carried };
  }

  /** Where the first record that is damaged begins: one that begins before the damage may reach into it. */
  async #firstOf(queue: Queue, seq: Seq): Promise<Seq> {
    try {
      const found = await recordAtOrBefore(this.#parts.database, queue, seq);
      if (found === null) return seq;
      const run = soundRun(queue, found.key, found.value, found.first);
      return run === null || run.last >= seq ? found.first : seq;
    } catch (error) {
      if (!isCorruption(error)) throw error;
      return seq;
    }
  }

  /** The last event before the next sound record, or the queue's end. */
  async #lastDamaged(queue: Queue, seq: Seq): Promise<Seq> {
    for await (const { key, first, value } of this.#records(queue, seq + 1, queue.durable)) {
      if (soundRun(queue, key, value, first) !== null) return first - 1;
    }
    return queue.durable;
  }

  /**
   * Records that begin in the range, also such as stand in a segment where the lane has none by what
   * is known of it. Where LevelDB itself fails it ends.
   */
  async *#records(
    queue: Queue,
    from: Seq,
    through: Seq,
  ): AsyncGenerator<{ readonly key: Buffer; readonly value: Buffer; readonly first: Seq }> {
    const { database, segments } = this.#parts;
    try {
      for (const { number } of segments.from(queue.segments.of(from))) {
        for await (const [key, value] of entriesOf(database, laneRange(number, queue, from, through))) {
          const first = parseQueueKey(key)?.seq;
          if (first !== undefined) yield { key, value, first };
        }
      }
    } catch (error) {
      // What cannot be read cannot be deleted; a newer record under the same key hides it.
      if (!isCorruption(error)) throw error;
    }
  }
}

/**
 * The bulk lane keeps what was read from tables, so going back takes nothing back of how far that is,
 * nor of what was asked for since.
 */
function withProgressOf(now: Checkpoint | null, to: Checkpoint): Checkpoint {
  return now?.snapshot === undefined ? to : { ...to, snapshot: now.snapshot };
}

interface Tail {
  readonly keys: Buffer[];
  readonly carried: OutboundEvent[];
}

function soundRun(queue: Queue, key: Buffer, value: Buffer, first: Seq): RunReader | null {
  try {
    return new RunReader(key, value, placeIn(queue, first));
  } catch (error) {
    if (error instanceof DamagedRecord) return null;
    throw error;
  }
}

function* eventsOf(queue: Queue, key: Buffer, value: Buffer, first: Seq): Generator<OutboundEvent> {
  const run = soundRun(queue, key, value, first);
  if (run === null) return;
  for (let seq = first; seq <= run.last; seq++) {
    const event = run.read();
    if (event !== null) yield event;
  }
}
