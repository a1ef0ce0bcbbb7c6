/**
 * Events that Dapr refused for their own content, kept with the verdict for whoever looks into
 * them. They lie in a range of the database under the key they had in their queue, so quarantining
 * one again after a crash changes nothing, and their bytes are checked like any record's.
 */
import type { Seq, SpooledEvent } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock, Log } from "../kernel/service.ts";
import type { QuarantineVerdict } from "../ports.ts";
import { entriesOf } from "./database.ts";
import type { Database } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import type { GroupCommit } from "./group-commit.ts";
import { parseRecordKey, quarantineKey, quarantineRoom } from "./keys.ts";
import type { Queue, Queues } from "./queue.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { decodeQuarantined } from "./record.ts";
import type { RecordEncoder } from "./record.ts";

export interface QuarantinedEvent {
  readonly event: SpooledEvent;
  readonly verdict: QuarantineVerdict;
  readonly quarantinedAtMs: number;
}

export interface QuarantineParts {
  readonly database: Database;
  readonly commit: GroupCommit;
  readonly queues: Queues;
  readonly encoder: RecordEncoder;
  readonly evidence: Evidence;
  readonly clock: Clock;
  readonly log: Log;
  /** QUARANTINE_KEEP_DAYS. */
  readonly keepDays: number;
  /** Something was deleted and waits for compaction. */
  readonly shrank: () => void;
}

interface StoredVerdict extends QuarantineVerdict {
  readonly quarantinedAtMs: number;
}

const DAY_MS = 24 * 60 * 60 * 1000;

export class Quarantine {
  readonly #parts: QuarantineParts;
  /** When each one came, by its key in hexadecimal. The storm guard of the forwarder bounds it. */
  readonly #atMs = new Map<string, number>();

  constructor(parts: QuarantineParts) {
    this.#parts = parts;
  }

  get count(): number {
    return this.#atMs.size;
  }

  /** Counts what is there. A damaged entry is told of and counted; it never stops the agent. */
  async load(): Promise<void> {
    for await (const [key, value] of entriesOf(this.#parts.database, quarantineRoom)) {
      let atMs = this.#parts.clock.wallMs();
      try {
        const found = await this.#decode(key, value);
        atMs = found.quarantinedAtMs;
      } catch (error) {
        if (!(error instanceof AgentError)) throw error;
        this.#parts.log.warn("a quarantined event is damaged", { error: error.message });
      }
      this.#atMs.set(key.toString("hex"), atMs);
    }
  }

  /** Durable when it resolves. */
  async add(event: SpooledEvent, verdict: QuarantineVerdict): Promise<void> {
    const atMs = this.#parts.clock.wallMs();
    const key = quarantineKey(this.#parts.queues.of(event.queue), event.seq);
    const stored: StoredVerdict = { ...verdict, quarantinedAtMs: atMs };
    const text = Buffer.from(JSON.stringify(stored));
    const group = this.#parts.commit.open();
    const value = this.#parts.encoder.quarantined(key, event, text);
    group.batch.put(key, value);
    group.bytes += value.length;
    await this.#parts.commit.durable();
    this.#atMs.set(key.toString("hex"), atMs);
  }

  /** In the order of their queues. Rejects with SPOOL_CORRUPT at a damaged one. */
  async list(limit: number): Promise<QuarantinedEvent[]> {
    const found: QuarantinedEvent[] = [];
    for await (const [key, value] of entriesOf(this.#parts.database, { ...quarantineRoom, limit })) {
      found.push(await this.#decode(key, value));
    }
    return found;
  }

  async get(queue: string, seq: Seq): Promise<QuarantinedEvent | null> {
    const key = this.#keyOf(queue, seq);
    const value = key === null ? undefined : await this.#parts.database.get(key);
    return key === null || value === undefined ? null : this.#decode(key, value);
  }

  /** Durable when it resolves; false when there is no such event. */
  async drop(queue: string, seq: Seq): Promise<boolean> {
    const key = this.#keyOf(queue, seq);
    if (key === null || !this.#atMs.has(key.toString("hex"))) return false;
    await this.#delete([key.toString("hex")]);
    return true;
  }

  /** Drops what is older than QUARANTINE_KEEP_DAYS; says how many. */
  async expire(): Promise<number> {
    const oldestMs = this.#parts.clock.wallMs() - this.#parts.keepDays * DAY_MS;
    const old: string[] = [];
    for (const [id, atMs] of this.#atMs) if (atMs < oldestMs) old.push(id);
    if (old.length > 0) await this.#delete(old);
    return old.length;
  }

  async #delete(ids: readonly string[]): Promise<void> {
    const group = this.#parts.commit.open();
    for (const id of ids) group.batch.del(Buffer.from(id, "hex"));
    await this.#parts.commit.durable();
    for (const id of ids) this.#atMs.delete(id);
    this.#parts.shrank();
  }

  #keyOf(queue: string, seq: Seq): Buffer | null {
    const known = this.#parts.queues.find(queue);
    return known === null ? null : quarantineKey(known, seq);
  }

  async #decode(key: Buffer, value: Buffer): Promise<QuarantinedEvent> {
    const place = parseRecordKey(key);
    const queue = place === null ? null : this.#parts.queues.byTag(place.tag);
    if (place === null || queue === null) {
      throw new AgentError("SPOOL_CORRUPT", "A quarantined event belongs to no known queue.");
    }
    return this.#read({ queue, seq: place.seq }, key, value);
  }

  async #read(
    place: { readonly queue: Queue; readonly seq: Seq },
    key: Buffer,
    value: Buffer,
  ): Promise<QuarantinedEvent> {
    try {
      const found = decodeQuarantined(key, value, {
        queue: place.queue.name,
        seq: place.seq,
      });
      const stored: StoredVerdict = JSON.parse(found.verdict);
      const { quarantinedAtMs, ...verdict } = stored;
      return { event: found.event, verdict, quarantinedAtMs };
    } catch (cause) {
      if (!(cause instanceof DamagedRecord)) throw cause;
      throw await this.#parts.evidence.keep(place.queue, place.seq, {
        what: `${cause.damage}, in quarantine`,
        value,
        cause,
      });
    }
  }
}
