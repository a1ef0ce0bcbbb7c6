/**
 * The way in: batches are taken while there is room, wait in their order while there is none, and
 * are encoded into the group that is being collected.
 */
import type { Checkpoint, OutboundEvent, Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { AppendBatch } from "../ports.ts";
import type { Group, GroupCommit } from "./group-commit.ts";
import type { IndexRoom } from "./index-room.ts";
import { QUEUE_KEY_BYTES, QueueKeyWriter } from "./keys.ts";
import type { IntakeGate } from "./limits.ts";
import type { Queue, Queues } from "./queue.ts";
import { EVENT_HEADER_BYTES } from "./event-body.ts";
import { eventBound } from "./record.ts";
import type { RecordEncoder, RunBounds } from "./record.ts";
import type { Segments } from "./segments.ts";

/**
 * A record holds one event, however large, or several within these limits. They bound what one
 * damaged byte costs, and what one event that waits keeps in memory.
 */
const RUN_BYTES_MAX = 128 * 1024;
const RUN_EVENTS_MAX = 256;
/** A group that holds so much takes no further batch; the next one does. */
const GROUP_BYTES_MAX = 8 * 1024 * 1024;

interface WaitingBatch {
  readonly batch: AppendBatch;
  readonly bytes: number;
  readonly taken: PromiseWithResolvers<void>;
}

export interface IntakeParts {
  readonly commit: GroupCommit;
  readonly queues: Queues;
  readonly segments: Segments;
  readonly gate: IntakeGate;
  readonly index: IndexRoom;
  readonly encoder: RecordEncoder;
  /** A batch found no room by the estimate: a measurement is due. */
  readonly pressed: () => void;
  /** Whether the state has no checkpoint yet. */
  readonly isFirst: () => boolean;
  /** All that the checkpoint covers is on disk, though the checkpoint itself may not be. */
  readonly progressed: (checkpoint: Checkpoint, number: number) => void;
}

/** Events of one lane of a queue in the batch that is encoded. */
class Gathered {
  readonly events: OutboundEvent[] = [];
  /** What each waits for in the other lane; without an entry nothing, as nearly all of the live lane. */
  readonly otherLaneThrough: Seq[] = [];

  clear(): void {
    this.events.length = 0;
    this.otherLaneThrough.length = 0;
  }
}

export class Intake {
  readonly #parts: IntakeParts;
  readonly #keys = new QueueKeyWriter();
  /** They are kept, empty, between batches. */
  readonly #byQueue = new Map<Queue, Gathered>();
  readonly #waiting: WaitingBatch[] = [];
  #waitingBytes = 0;
  /** Batches taken so far: the number of the newest checkpoint. */
  #taken = 0;
  /** Batches with content that are taken and not on disk yet. */
  #outstanding = 0;
  /** Checkpoint of the newest batch, while that is progress and not settled. */
  #newest: Checkpoint | null = null;
  #refusal: Error | null = null;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** Bytes of the batch that is next to be taken; 0 when none waits. */
  get nextBytes(): number {
    return this.#waiting[0]?.bytes ?? 0;
  }

  /** Bytes of events in batches that wait for room. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  get waitingBatches(): number {
    return this.#waiting.length;
  }

  append(batch: AppendBatch, signal: AbortSignal | undefined): Promise<void> {
    if (this.#refusal !== null) return Promise.reject(this.#refusal);
    const bytes = contentBytes(batch);
    if (this.#waiting.length === 0 && this.#hasRoom(bytes)) return this.#take(batch, bytes);
    return this.#wait({ batch, bytes, taken: Promise.withResolvers<void>() }, signal);
  }

  /** Takes what waits, in its order, as far as there is room. */
  admit(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#refusal !== null || !this.#hasRoom(next.bytes)) return;
      this.#leave(next);
      this.#take(next.batch, next.bytes).then(next.taken.resolve, next.taken.reject);
    }
  }

  /**
   * The checkpoint of the open group, with which all else in it is written. It may lie before the
   * last one; whoever captures starts again from it. Durable when it resolves.
   */
  moveTo(checkpoint: Checkpoint): Promise<void> {
    const group = this.#parts.commit.open();
    this.#taken += 1;
    group.checkpoint = checkpoint;
    group.checkpointNumber = this.#taken;
    this.#newest = null;
    return this.#parts.commit.durable();
  }

  /** A group with the content of that many batches is on disk. */
  settled(batches: number): void {
    this.#outstanding -= batches;
    this.#settleProgress();
  }

  /** Takes nothing more; what waits is rejected, and nothing of it is written. */
  refuse(reason: Error): void {
    this.#refusal ??= reason;
    for (const waiting of this.#waiting.splice(0)) waiting.taken.reject(reason);
    this.#waitingBytes = 0;
  }

  #hasRoom(bytes: number): boolean {
    const { commit, gate, queues } = this.#parts;
    if (bytes === 0) return true;
    if (commit.openBytes > 0 && commit.openBytes + bytes > GROUP_BYTES_MAX) return false;
    if (gate.admits(bytes, queues.pendingEvents() === 0)) return true;
    // A closed gate is measured by the clock; only the estimate of an open one is asked at once.
    if (gate.closed === null) this.#parts.pressed();
    return false;
  }

  #wait(waiting: WaitingBatch, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(reasonOf(signal));
    this.#waiting.push(waiting);
    this.#waitingBytes += waiting.bytes;
    if (signal === undefined) return waiting.taken.promise;
    const abort = (): void => {
      if (this.#leave(waiting)) waiting.taken.reject(reasonOf(signal));
      // The ones behind it may need less room.
      this.admit();
    };
    signal.addEventListener("abort", abort, { once: true });
    return waiting.taken.promise.finally(() => signal.removeEventListener("abort", abort));
  }

  #leave(waiting: WaitingBatch): boolean {
    const at = this.#waiting.indexOf(waiting);
    if (at < 0) return false;
    this.#waiting.splice(at, 1);
    this.#waitingBytes -= waiting.bytes;
    return true;
  }

  #take(batch: AppendBatch, bytes: number): Promise<void> {
    const { commit } = this.#parts;
    const group = commit.open();
    this.#taken += 1;
    group.checkpoint = batch.checkpoint;
    group.checkpointNumber = this.#taken;
    if (bytes === 0 && batch.durable !== true) {
      // Nothing of ours happened: losing this costs a re-read only, so it is no fsync of its own.
      const isFirst = this.#parts.isFirst();
      this.#newest = batch.checkpoint;
      this.#settleProgress();
      // A crash that lost the first checkpoint of all would let the next start begin elsewhere.
      return isFirst && this.#newest === null ? commit.durable() : Promise.resolve();
    }
    try {
      this.#encode(batch);
    } catch (cause) {
      // Half of the batch may be in the group: writing that would break invariant 1.
      const error = new AgentError("BUG", "A batch could not be encoded for the spool.", { cause });
      commit.fail(error);
      return Promise.reject(error);
    }
    this.#newest = null;
    this.#outstanding += 1;
    group.batches += 1;
    return commit.durable();
  }

  /** Progress is true at once when all that was taken before it is on disk. */
  #settleProgress(): void {
    if (this.#outstanding > 0 || this.#newest === null) return;
    this.#parts.progressed(this.#newest, this.#taken);
    this.#newest = null;
  }

  /** Events of one queue that come together share records: what reading and deleting cost is per record. */
  #encode(batch: AppendBatch): void {
    const { commit, queues, index } = this.#parts;
    const group = commit.open();
    for (const event of batch.events) {
      const queue = queues.of(event.queue, event.lane);
      let gathered = this.#byQueue.get(queue);
      if (gathered === undefined) this.#byQueue.set(queue, (gathered = new Gathered()));
      if (event.barrier || event.lane === "bulk") this.#bind(queue, gathered, event);
      gathered.events.push(event);
    }
    for (const [queue, gathered] of this.#byQueue) {
      if (gathered.events.length === 0) continue;
      this.#putRuns(group, queue, gathered);
      gathered.clear();
    }
    group.events += batch.events.length;
    if (batch.index !== undefined) index.addTo(group, batch.index);
  }

  #bind(queue: Queue, { events, otherLaneThrough }: Gathered, event: OutboundEvent): void {
    const pending = queue.other === null ? 0 : (this.#byQueue.get(queue.other)?.events.length ?? 0);
    otherLaneThrough[events.length] = queue.bind(event, queue.assigned + events.length + 1, pending);
  }

  #putRuns(group: Group, queue: Queue, { events, otherLaneThrough }: Gathered): void {
    for (let from = 0; from < events.length;) {
      const to = endOfRun(events, from);
      this.putRun(group, queue, events, { from, to, otherLaneThrough });
      from = to;
    }
  }

  /** Adds a record of the queue's next events to the group. */
  putRun(group: Group, queue: Queue, events: readonly OutboundEvent[], run: RunBounds): void {
    const { segments, encoder } = this.#parts;
    const first = queue.assigned + 1;
    const key = this.#keys.key(segments.place(queue, first), queue, first);
    const value = encoder.run(key, events, run);
    const bytes = QUEUE_KEY_BYTES + value.length;
    group.batch.put(key, value);
    segments.wrote(bytes);
    group.grown.set(queue, queue.assign(run.to - run.from, bytes, events[run.from]?.capturedAtMs ?? 0));
    group.bytes += bytes;
  }
}

/** Where the record that begins at `from` ends: a function of the events alone. */
function endOfRun(events: readonly OutboundEvent[], from: number): number {
  let bytes = eventBound(events[from]);
  let to = from + 1;
  while (to < events.length && to - from < RUN_EVENTS_MAX) {
    bytes += eventBound(events[to]);
    if (bytes > RUN_BYTES_MAX) break;
    to += 1;
  }
  return to;
}

/** Bytes that the batch will take, nearly; 0 for pure progress. */
function contentBytes(batch: AppendBatch): number {
  let bytes = 0;
  for (const event of batch.events) {
    bytes += QUEUE_KEY_BYTES + EVENT_HEADER_BYTES + event.payload.length + event.entityKey.length + 64;
  }
  for (const change of batch.index ?? []) bytes += change.key.length + (change.value?.length ?? 0) + 16;
  return bytes;
}

function reasonOf(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : abortError("the append was aborted");
}

/** The error of a wait that was given up: nothing of the batch was written. */
export function abortError(sentence: string): Error {
  return new DOMException(sentence, "AbortError");
}
