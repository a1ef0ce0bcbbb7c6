/**
 * Loop 1, the file to read first: source -> transform -> spool.
 *
 * The loop remembers nothing. Where to go on is in the spool's checkpoint, which is written in the
 * same synced batch as the events that it covers (invariant 1); back-pressure is only that the
 * append is awaited (invariant 7). One append is under way while the next batch is decoded and
 * encoded, so that the processor does not wait for the disk, and never more than one.
 */
import type { Checkpoint, OutboundEvent, SourceItem } from "./change.ts";
import type {
  CaptureObserver,
  ChangeSource,
  EventEncoder,
  IndexChange,
  IndexFollower,
  SpoolWriter,
} from "./ports.ts";
import { assert } from "./kernel/assert.ts";
import { asError } from "./kernel/errors.ts";
import type { Clock, Service } from "./kernel/service.ts";
import { PayloadArena } from "./payload-arena.ts";

export interface CaptureParts {
  readonly source: ChangeSource;
  readonly encoder: EventEncoder;
  /** Without it no index is kept. */
  readonly index?: IndexFollower;
  readonly spool: SpoolWriter;
  readonly observer: CaptureObserver;
  readonly clock: Clock;
  /** Told of each durable checkpoint; feeds the heartbeat's "complete up to". */
  readonly onDurable?: (checkpoint: Checkpoint) => void;
}

/** What one pull of the source became: events, changes of the index, and the checkpoint that covers them. */
interface EncodedBatch {
  readonly events: OutboundEvent[];
  readonly index: readonly IndexChange[];
  readonly checkpoint: Checkpoint;
  readonly rows: number;
  readonly suppressed: number;
}

/**
 * Payload memory by turns: while one batch is encoded the append of the one before may be under way,
 * and that of the one before that has returned.
 */
class ArenaPair {
  #now = new PayloadArena();
  #before = new PayloadArena();

  next(): PayloadArena {
    [this.#now, this.#before] = [this.#before, this.#now];
    this.#now.reset();
    return this.#now;
  }
}

export class Capture implements Service {
  readonly name = "capture";
  readonly #parts: CaptureParts;
  readonly #stopping = new AbortController();
  #ended: Promise<void> | null = null;
  #lastProgressMs: number;
  #isAppending = false;
  #isFinishing = false;
  /** Whether nothing but this loop may go on: a transaction is half done, or there is no position. */
  #mustGoOn = false;
  /** Events that earlier parts of the transaction under way have made (ports.ts, EncodeContext). */
  #eventsBefore = 0;
  readonly #arenas = new ArenaPair();

  constructor(parts: CaptureParts) {
    this.#parts = parts;
    this.#lastProgressMs = parts.clock.monotonicMs();
  }

  /** Monotonic time at which the loop last came round; a watchdog judges by it. */
  get lastProgressMs(): number {
    return this.#lastProgressMs;
  }

  /** Whether it waits for the spool; else it waits for the source, or works. */
  get isAppending(): boolean {
    return this.#isAppending;
  }

  /** Resolves when stopped; rejects when the source or the spool cannot go on. */
  run(): Promise<void> {
    assert(this.#ended === null, "a capture loop runs once");
    this.#ended = this.#loop();
    return this.#ended;
  }

  /** Takes no new work; resolves when the append under way is durable. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    // The loop's own failure belongs to whoever awaits run().
    await this.#ended?.catch(() => undefined);
  }

  /**
   * Ends the loop between two transactions: at once, or behind the one that is partly delivered.
   * `run` then resolves.
   */
  finish(): void {
    this.#isFinishing = true;
    if (this.#ended !== null && !this.#mustGoOn) this.#stopping.abort();
  }

  async #loop(): Promise<void> {
    const { source, spool } = this.#parts;
    const start = spool.checkpoint();
    this.#eventsBefore = start?.partial?.events ?? 0;
    this.#mustGoOn = start === null || start.partial !== null;
    if (this.#isFinishing && !this.#mustGoOn) return;
    let underWay: Promise<Error | null> = Promise.resolve(null);
    let broken: Error | null = null;
    try {
      await this.#parts.index?.begin();
      for await (const items of source.batches(start, this.#stopping.signal)) {
        this.#lastProgressMs = this.#parts.clock.monotonicMs();
        const batch = this.#encode(items);
        this.#isAppending = true;
        broken = await underWay;
        this.#isAppending = false;
        if (broken !== null) break;
        if (batch !== null) {
          underWay = this.#append(batch);
          this.#mustGoOn = batch.checkpoint.partial !== null;
        }
        if (this.#isFinishing && !this.#mustGoOn) break;
        this.#lastProgressMs = this.#parts.clock.monotonicMs();
      }
    } catch (thrown) {
      broken = asError(thrown);
    }
    // What was handed to the spool is waited for, whatever ended the loop; a spool that gives up
    // its wait for room because the agent stops has lost nothing.
    const last = await underWay;
    if (!this.#stopping.signal.aborted) broken ??= last;
    if (broken !== null) throw broken;
  }

  #encode(items: readonly SourceItem[]): EncodedBatch | null {
    const capturedAtMs = this.#parts.clock.wallMs();
    const payloads = this.#arenas.next();
    let events: OutboundEvent[] = [];
    const index: IndexChange[] = [];
    let checkpoint: Checkpoint | null = null;
    let rows = 0;
    for (const item of items) {
      checkpoint = item.checkpoint;
      if (item.commitTimeMs !== null) this.#parts.observer.commitSeen(item.commitTimeMs);
      this.#parts.index?.take(item, index);
      if (item.kind === "progress") continue;
      // A transaction that was half done can come again from its start, from another server.
      if (item.kind === "transaction" && item.firstOrdinal === 0) this.#eventsBefore = 0;
      const made = this.#parts.encoder.encode(item, {
        epoch: checkpoint.epoch,
        capturedAtMs,
        eventsBefore: this.#eventsBefore,
        payloads,
      });
      events = events.length === 0 ? made : appendAll(events, made);
      if (item.kind === "transaction") {
        rows += item.changes.length;
        checkpoint = this.#countEvents(checkpoint, made.length);
      } else if (item.kind === "chunk") rows += item.rows.length;
    }
    const suppressed = this.#parts.encoder.takeSuppressed();
    return checkpoint === null ? null : { events, index, checkpoint, rows, suppressed };
  }

  /** The source knows rows, only this loop knows how many events they made. */
  #countEvents(checkpoint: Checkpoint, made: number): Checkpoint {
    if (checkpoint.partial === null) {
      this.#eventsBefore = 0;
      return checkpoint;
    }
    this.#eventsBefore += made;
    return { ...checkpoint, partial: { ...checkpoint.partial, events: this.#eventsBefore } };
  }

  /** Never rejects: a failure is looked at before the next append, and again at the end. */
  async #append(batch: EncodedBatch): Promise<Error | null> {
    try {
      await this.#parts.spool.append(
        { events: batch.events, index: batch.index, checkpoint: batch.checkpoint },
        this.#stopping.signal,
      );
      this.#parts.observer.batchCaptured({
        rows: batch.rows,
        events: batch.events.length,
        suppressed: batch.suppressed,
      });
      this.#parts.onDurable?.(batch.checkpoint);
      return null;
    } catch (thrown) {
      return asError(thrown);
    }
  }
}

function appendAll(events: OutboundEvent[], more: readonly OutboundEvent[]): OutboundEvent[] {
  for (const event of more) events.push(event);
  return events;
}
