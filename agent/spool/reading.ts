/** Reads a run of events from one queue, every one of them proven sound. */
import type { Seq, SpooledEvent } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { ReadLimits } from "../ports.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { entriesOf, isCorruption } from "./database.ts";
import type { Database } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import { parseQueueKey } from "./keys.ts";
import type { Queue, Queues } from "./queue.ts";
import { placeIn, RunReader } from "./record.ts";
import { laneRange, recordKey } from "./segments.ts";

/** Delivered events are not read again: their blocks would only push the index's out of the cache. */
const readOnce = { fillCache: false };

/**
 * A record is found by the number of its first event, which is the one after the last of the record
 * before it: a get, without an iterator, for all but the first read after a start.
 */
export class QueueRecords {
  readonly #database: Database;
  readonly #evidence: Evidence;
  /** What a read has left of its last record, for the read that goes on there. One a queue. */
  readonly #begun = new Map<Queue, RunReader>();

  constructor(database: Database, evidence: Evidence) {
    this.#database = database;
    this.#evidence = evidence;
  }

  /**
   * Events after `after` up to the queue's readable end. At least one when there is one, whatever
   * the limits say. What is sound before a damage is delivered first; the read that begins at the
   * damage rejects. Lost events that were given up are passed over.
   */
  async read(queue: Queue, after: Seq, limits: ReadLimits): Promise<SpooledEvent[]> {
    const events: SpooledEvent[] = [];
    let bytes = 0;
    let seq = after + 1;
    const wantsMore = (): boolean =>
      seq <= queue.readable &&
      (events.length === 0 || (events.length < limits.maxEvents && bytes < limits.maxBytes));
    try {
      while (wantsMore()) {
        const run = this.#takeBegun(queue, seq) ?? (await this.#load(queue, seq));
        while (seq <= run.last && wantsMore()) {
          const from = run.at;
          let event: SpooledEvent | null;
          try {
            event = run.read();
          } catch (cause) {
            return await this.#damaged(queue, run.next, { value: null, cause });
          }
          seq += 1;
          if (event === null) continue;
          events.push(event);
          bytes += run.at - from;
        }
        if (run.next <= run.last) this.#keepBegun(queue, run);
      }
    } catch (error) {
      if (events.length === 0) throw error;
    }
    return events;
  }

  /** What was begun of the queue may not be what stands there from now on. */
  forget(queue: Queue): void {
    this.#begun.delete(queue);
  }

  /** Taken, so that a second read at the same time does not read from the same one. */
  #takeBegun(queue: Queue, seq: Seq): RunReader | null {
    const run = this.#begun.get(queue);
    if (run === undefined || run.next !== seq) return null;
    this.#begun.delete(queue);
    return run;
  }

  /** The one that is furthest on stays: a look at the head must not cost the forwarder its place. */
  #keepBegun(queue: Queue, run: RunReader): void {
    const other = this.#begun.get(queue);
    if (other === undefined || other.next < run.next) this.#begun.set(queue, run);
  }

  /** The record that holds the event. */
  async #load(queue: Queue, seq: Seq): Promise<RunReader> {
    const { key, first, value } = (await this.#at(queue, seq)) ?? (await this.#around(queue, seq));
    try {
      const run = new RunReader(key, value, placeIn(queue, first));
      if (run.last < seq) throw await this.#missing(queue, seq);
      // Events behind the durable end belong to no checkpoint.
      if (run.last > queue.durable) throw await this.#uncovered(queue, run.last, value);
      run.skipTo(seq);
      queue.noteRecord(first, run.last);
      return run;
    } catch (cause) {
      if (cause instanceof AgentError) throw cause;
      return await this.#damaged(queue, first, { value, cause });
    }
  }

  async #at(queue: Queue, seq: Seq): Promise<FoundRecord | null> {
    try {
      const key = recordKey(queue, seq);
      const value = await this.#database.get(key, readOnce);
      return value === undefined ? null : { key, first: seq, value };
    } catch (cause) {
      throw await this.#unreadable(queue, seq, cause);
    }
  }

  /** The record that begins at or before the event; only a start finds its place inside one. */
  async #around(queue: Queue, seq: Seq): Promise<FoundRecord> {
    let found: FoundRecord | null;
    try {
      found = await recordAtOrBefore(this.#database, queue, seq);
    } catch (cause) {
      throw await this.#unreadable(queue, seq, cause);
    }
    if (found === null) throw await this.#missing(queue, seq);
    return found;
  }

  #missing(queue: Queue, seq: Seq): Promise<AgentError> {
    return this.#evidence.keep(queue, seq, { what: "it is missing", value: null });
  }

  #uncovered(queue: Queue, last: Seq, value: Buffer): Promise<AgentError> {
    return this.#evidence.keep(queue, last, { what: "no checkpoint covers it", value });
  }

  async #unreadable(queue: Queue, seq: Seq, cause: unknown): Promise<AgentError> {
    if (isCorruption(cause)) {
      return this.#evidence.keep(queue, seq, { what: "its table is damaged", value: null, cause });
    }
    return new AgentError("SPOOL_IO", `Record ${seq} of queue ${queue.label} cannot be read.`, { cause });
  }

  /** Rejects with the damage that a failed decode found, with the bytes kept. */
  async #damaged(
    queue: Queue,
    seq: Seq,
    found: { readonly value: Buffer | null; readonly cause: unknown },
  ): Promise<never> {
    const what = found.cause instanceof DamagedRecord ? found.cause.damage : "unreadable";
    throw await this.#evidence.keep(queue, seq, { what, ...found });
  }
}

/** A record as it lies in the database; nothing of it is proven. */
export interface FoundRecord {
  readonly key: Buffer;
  /** Number of its first event. */
  readonly first: Seq;
  readonly value: Buffer;
}

/** The last record that begins at or before the event, whether it reaches it or not. */
export async function recordAtOrBefore(
  database: Database,
  queue: Queue,
  seq: Seq,
): Promise<FoundRecord | null> {
  for (const { segment, first: begin } of queue.segments.starts.toReversed()) {
    if (begin > seq) continue;
    const range = { ...laneRange(segment, queue, 0, seq), reverse: true, limit: 1 };
    for await (const [key, value] of entriesOf(database, range)) {
      const first = parseQueueKey(key)?.seq;
      if (first !== undefined) return { key, first, value };
    }
  }
  return null;
}

/** Reads the capture time of heads that moved since; acknowledgements do not carry it. */
export async function refreshOldest(queues: Queues, records: QueueRecords): Promise<void> {
  for (const queue of queues.all) {
    const { acked } = queue;
    if (acked >= queue.readable || queue.oldestSeq === acked + 1) continue;
    const head = await records.read(queue, acked, { maxEvents: 1, maxBytes: 1 }).catch(() => []);
    const [event] = head;
    // A damaged head is the reader's to report; one that was acknowledged meanwhile is of no use.
    if (event === undefined || queue.acked !== acked) continue;
    queue.oldestCapturedAtMs = event.capturedAtMs;
    queue.oldestSeq = event.seq;
  }
}
