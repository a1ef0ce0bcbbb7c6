/** Reads a run of records from one queue, every one of them proven sound. */
import type { Seq, SpooledEvent } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { ReadLimits } from "../ports.ts";
import { isCorruption } from "./database.ts";
import type { Database, RecordIterator } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import { QueueKeyWriter, queueKey } from "./keys.ts";
import type { Queue, Queues } from "./queue.ts";
import { DamagedRecord, decodeEvent } from "./record.ts";

/**
 * Records and bytes of one step. The addon keeps the last step of a closed iterator, and room for
 * its records, until V8 happens to collect the object; V8 does not know of that memory.
 */
const STEP_RECORDS = 64;
const STEP_BYTES = 256 * 1024;

export class QueueRecords {
  readonly #database: Database;
  readonly #evidence: Evidence;
  readonly #keys = new QueueKeyWriter();

  constructor(database: Database, evidence: Evidence) {
    this.#database = database;
    this.#evidence = evidence;
  }

  /**
   * Records after `after` up to the queue's durable end. At least one when there is one, whatever
   * `maxBytes` says. What is sound before a damage is delivered first; the read that begins at the
   * damage rejects.
   */
  async read(queue: Queue, after: Seq, limits: ReadLimits): Promise<SpooledEvent[]> {
    const through = Math.min(queue.durable, after + limits.maxEvents);
    const events: SpooledEvent[] = [];
    if (through <= after) return events;
    const iterator = this.#database.iterator({
      gte: queueKey(queue, after + 1),
      lte: queueKey(queue, through),
      // The range is the limit: with one of its own the iterator would not take the releasing step.
      limit: -1,
      reverse: false,
      fillCache: false,
      highWaterMarkBytes: Math.min(limits.maxBytes, STEP_BYTES),
    });
    try {
      await this.#collect({ queue, after, through, maxBytes: limits.maxBytes }, iterator, events);
    } catch (error) {
      if (events.length === 0) throw error;
    } finally {
      await release(iterator);
    }
    return events;
  }

  async #collect(run: Run, iterator: RecordIterator, events: SpooledEvent[]): Promise<void> {
    let bytes = 0;
    let seq = run.after + 1;
    while (seq <= run.through) {
      const entries = await this.#step(run, seq, iterator);
      for (const [key, value] of entries) {
        if (!this.#keys.key(run.queue, seq).equals(key)) {
          throw await this.#evidence.keep(run.queue, seq, { what: "it is missing", value: null });
        }
        try {
          events.push(decodeEvent(key, value, { queue: run.queue.name, seq }));
        } catch (cause) {
          throw await this.#damaged(run.queue, seq, { value, cause });
        }
        seq += 1;
        bytes += value.length;
        if (bytes >= run.maxBytes) return;
      }
    }
  }

  async #step(run: Run, seq: Seq, iterator: RecordIterator): Promise<[Buffer, Buffer][]> {
    try {
      const entries = await iterator.nextv(Math.min(STEP_RECORDS, run.through - seq + 1));
      if (entries.length > 0) return entries;
    } catch (cause) {
      if (!isCorruption(cause)) {
        throw new AgentError("SPOOL_IO", `Record ${seq} of queue ${run.queue.name} cannot be read.`, {
          cause,
        });
      }
      throw await this.#evidence.keep(run.queue, seq, { what: "its table is damaged", value: null, cause });
    }
    throw await this.#evidence.keep(run.queue, seq, { what: "it is missing", value: null });
  }

  /** The damage that a failed decode found, with the bytes kept. */
  #damaged(
    queue: Queue,
    seq: Seq,
    found: { readonly value: Buffer; readonly cause: unknown },
  ): Promise<AgentError> {
    const what = found.cause instanceof DamagedRecord ? found.cause.damage : "unreadable";
    return this.#evidence.keep(queue, seq, { what, ...found });
  }
}

/**
 * One more step of one record, at most, takes the place of the last step in the addon's memory.
 * Without it, reading a large backlog held hundreds of megabytes in closed iterators.
 */
async function release(iterator: RecordIterator): Promise<void> {
  // What it reads, and whether it can, is the business of the read that begins there.
  await iterator.nextv(1).catch(() => []);
  await iterator.close();
}

interface Run {
  readonly queue: Queue;
  readonly after: Seq;
  readonly through: Seq;
  readonly maxBytes: number;
}

/** Reads the capture time of heads that moved since; acknowledgements do not carry it. */
export async function refreshOldest(queues: Queues, records: QueueRecords): Promise<void> {
  for (const queue of queues.all) {
    const { acked } = queue;
    if (acked === queue.durable || queue.oldestSeq === acked + 1) continue;
    const head = await records.read(queue, acked, { maxEvents: 1, maxBytes: 1 }).catch(() => []);
    const [event] = head;
    // A damaged head is the reader's to report; one that was acknowledged meanwhile is of no use.
    if (event === undefined || queue.acked !== acked) continue;
    queue.oldestCapturedAtMs = event.capturedAtMs;
    queue.oldestSeq = event.seq;
  }
}
