/**
 * Events that Dapr refused for their own content, kept with the verdict for whoever looks into
 * them. They lie in a range of the database under the key they had in their queue, so quarantining
 * one again after a crash changes nothing, and their bytes are checked like any record's.
 */
import type { Lane, Seq, SpooledEvent } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock, Log } from "../kernel/service.ts";
import type { QuarantinedEvent, QuarantineRoom, QuarantineVerdict } from "../ports.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { entriesOf } from "./database.ts";
import type { Database } from "./database.ts";
import type { Evidence } from "./evidence.ts";
import type { GroupCommit } from "./group-commit.ts";
import { metaKey, parseQuarantineKey, quarantineKey, quarantineRoom } from "./keys.ts";
import { QuarantineEntries, type QuarantineEntry } from "./quarantine-entries.ts";
import type { Queue, Queues } from "./queue.ts";
import { decodeJson, decodeQuarantined, placeIn } from "./record.ts";
import type { RecordEncoder } from "./record.ts";

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

/** What became of an entry since: lies beside it, small, where the entry may have megabytes. */
interface Note {
  /** Of the event that overtook it. */
  readonly sequence: string | null;
  /** Generation of the resync that it waits for; notes of earlier builds have none. */
  readonly resync?: number | null;
}

/** An entry as it is listed: whole, or damaged. */
export type QuarantineListed =
  | { readonly entry: QuarantineEntry; readonly found: QuarantinedEvent }
  | { readonly entry: QuarantineEntry; readonly damage: string };

const DAY_MS = 24 * 60 * 60 * 1000;

export class Quarantine implements QuarantineRoom {
  readonly #parts: QuarantineParts;
  readonly #entries = new QuarantineEntries();

  constructor(parts: QuarantineParts) {
    this.#parts = parts;
  }

  get count(): number {
    return this.#entries.count;
  }

  /** Counts what is there. A damaged entry is told of and counted; it never stops the agent. */
  async load(): Promise<void> {
    for await (const [bytes, value] of entriesOf(this.#parts.database, quarantineRoom)) {
      const key = bytes.toString("hex");
      try {
        const { event, verdict, quarantinedAtMs } = await this.#decode(bytes, value);
        const { sequence: overtakenBy, resync = null } = await this.#readNote(key);
        this.#entries.put(entryOf(key, event, verdict, { atMs: quarantinedAtMs, overtakenBy, resync }));
      } catch (error) {
        if (!(error instanceof AgentError)) throw error;
        this.#parts.log.warn("a quarantined event is damaged", { error: error.message });
        this.#entries.put(damagedEntry(key, this.#parts.clock.wallMs()));
      }
    }
  }

  /** Durable when it resolves. */
  async add(event: SpooledEvent, verdict: QuarantineVerdict): Promise<void> {
    const bytes = quarantineKey(this.#parts.queues.of(event.queue, event.lane), event.seq);
    const key = bytes.toString("hex");
    const known = this.#entries.get(key);
    const atMs = known?.atMs ?? this.#parts.clock.wallMs();
    const stored: StoredVerdict = { ...verdict, quarantinedAtMs: atMs };
    const text = Buffer.from(JSON.stringify(stored));
    const group = this.#parts.commit.open();
    const value = this.#parts.encoder.quarantined(bytes, event, text);
    group.batch.put(bytes, value);
    group.bytes += value.length;
    await this.#parts.commit.durable();
    const { overtakenBy, resync } = known ?? { overtakenBy: null, resync: null };
    this.#entries.put(entryOf(key, event, verdict, { atMs, overtakenBy, resync }));
  }

  /**
   * The events leave quarantine once the resync of that generation has sent their entities' state of
   * now. Durable when it resolves.
   */
  async awaitResync(ids: ReadonlySet<string>, resync: number): Promise<void> {
    const waiting = [...this.#entries.all()].filter(({ id }) => ids.has(id));
    for (const entry of waiting) this.#note({ ...entry, resync });
    await this.#parts.commit.durable();
  }

  concerns(event: SpooledEvent): boolean {
    return this.#entries.concerns(event);
  }

  accepted(event: SpooledEvent, sequence: string | null): void {
    const queue = this.#parts.queues.find(event.queue, event.lane);
    const own = queue === null ? undefined : this.#entries.get(hexKey(queue, event.seq));
    if (own !== undefined) this.#forget([own.key]);
    if (sequence !== null) {
      this.#forgetReadAgain(event, sequence);
      for (const entry of this.#entries.overtaken(event, sequence)) {
        this.#note({ ...entry, overtakenBy: sequence });
      }
    }
    // Not synced: what is lost with a crash is found again when the event is sent again, because
    // its acknowledgement is written with this or after it.
    this.#parts.commit.request();
  }

  #forgetReadAgain(event: SpooledEvent, sequence: string): void {
    const done = this.#entries.readAgain(event, sequence);
    if (done.length === 0) return;
    this.#forget(done.map(({ key }) => key));
    const ids = done.map(({ id }) => id).join(",");
    this.#parts.log.notice("the state of now was accepted in the place of events in quarantine", { ids });
  }

  /** The entry as it is from now on, on disk with the next write. */
  #note(entry: QuarantineEntry): void {
    const bytes = noteKey(entry.key);
    const note: Note = { sequence: entry.overtakenBy, resync: entry.resync };
    this.#parts.commit.open().batch.put(bytes, this.#parts.encoder.json(bytes, note));
    this.#entries.put(entry);
  }

  /** In the order of their queues, one at a time: a payload may have megabytes. */
  async *list(): AsyncGenerator<QuarantineListed> {
    for await (const [bytes, value] of entriesOf(this.#parts.database, quarantineRoom)) {
      const entry = this.#entries.get(bytes.toString("hex"));
      if (entry === undefined) continue;
      try {
        yield { entry, found: await this.#decode(bytes, value, entry) };
      } catch (error) {
        if (!(error instanceof AgentError)) throw error;
        yield { entry, damage: error.message };
      }
    }
  }

  async get(queue: string, seq: Seq, lane: Lane = "live"): Promise<QuarantinedEvent | null> {
    const known = this.#parts.queues.find(queue, lane);
    return known === null ? null : this.#read(hexKey(known, seq));
  }

  has(queue: string, seq: Seq, lane: Lane = "live"): boolean {
    const known = this.#parts.queues.find(queue, lane);
    return known !== null && this.#entries.get(hexKey(known, seq)) !== undefined;
  }

  async find(id: string): Promise<QuarantinedEvent | null> {
    for (const entry of this.#entries.all()) if (entry.id === id) return this.#read(entry.key);
    return null;
  }

  /** Ids of the quarantined events that begin with the text. */
  idsOf(prefix: string): string[] {
    const ids = new Set<string>();
    for (const { id } of this.#entries.all()) if (id.startsWith(prefix)) ids.add(id);
    return [...ids];
  }

  async drop(queue: string, seq: Seq, lane: Lane = "live"): Promise<boolean> {
    const known = this.#parts.queues.find(queue, lane);
    const entry = known === null ? undefined : this.#entries.get(hexKey(known, seq));
    if (entry === undefined) return false;
    await this.#delete([entry.key]);
    return true;
  }

  /** Durable when it resolves; says how many there were. Damaged ones go as well. */
  async dropIds(ids: ReadonlySet<string>): Promise<number> {
    const keys: string[] = [];
    for (const { id, key } of this.#entries.all()) if (ids.has(id)) keys.push(key);
    if (keys.length > 0) await this.#delete(keys);
    return keys.length;
  }

  /** Drops what is older than QUARANTINE_KEEP_DAYS; says how many. */
  async expire(): Promise<number> {
    const oldestMs = this.#parts.clock.wallMs() - this.#parts.keepDays * DAY_MS;
    const old: string[] = [];
    for (const { key, atMs } of this.#entries.all()) if (atMs < oldestMs) old.push(key);
    if (old.length > 0) await this.#delete(old);
    return old.length;
  }

  async #delete(keys: readonly string[]): Promise<void> {
    this.#forget(keys);
    await this.#parts.commit.durable();
  }

  /** On disk with the next write. */
  #forget(keys: readonly string[]): void {
    const { batch } = this.#parts.commit.open();
    for (const key of keys) {
      batch.del(Buffer.from(key, "hex"));
      batch.del(noteKey(key));
      this.#entries.delete(key);
    }
    this.#parts.shrank();
  }

  async #read(key: string): Promise<QuarantinedEvent | null> {
    const bytes = Buffer.from(key, "hex");
    const value = await this.#parts.database.get(bytes);
    const entry = this.#entries.get(key);
    if (entry === undefined || value === undefined) return null;
    return this.#decode(bytes, value, entry);
  }

  async #readNote(key: string): Promise<Note> {
    const bytes = noteKey(key);
    const value = await this.#parts.database.get(bytes);
    if (value === undefined) return { sequence: null, resync: null };
    try {
      const note: Note = JSON.parse(decodeJson(bytes, value));
      return note;
    } catch (cause) {
      if (!(cause instanceof DamagedRecord)) throw cause;
      throw new AgentError("SPOOL_CORRUPT", `A note beside a quarantined event is damaged: ${cause.damage}.`);
    }
  }

  async #decode(key: Buffer, value: Buffer, entry?: QuarantineEntry): Promise<QuarantinedEvent> {
    const place = parseQuarantineKey(key);
    const queue = place === null ? null : this.#parts.queues.byTag(place.tag, place.lane);
    if (place === null || queue === null) {
      throw new AgentError("SPOOL_CORRUPT", "A quarantined event belongs to no known queue.");
    }
    try {
      const { verdict: text, event } = decodeQuarantined(key, value, placeIn(queue, place.seq));
      const stored: StoredVerdict = JSON.parse(text);
      const { quarantinedAtMs, ...verdict } = stored;
      const { overtakenBy = null, resync = null } = entry ?? {};
      return { event, verdict, quarantinedAtMs, overtakenBy, resync };
    } catch (cause) {
      if (!(cause instanceof DamagedRecord)) throw cause;
      throw await this.#parts.evidence.keep(queue, place.seq, {
        what: `${cause.damage}, in quarantine`,
        value,
        cause,
      });
    }
  }
}

function hexKey(queue: Queue, seq: Seq): string {
  return quarantineKey(queue, seq).toString("hex");
}

function noteKey(key: string): Buffer {
  return metaKey(`overtaken/${key}`);
}

function entryOf(
  key: string,
  event: SpooledEvent,
  verdict: QuarantineVerdict,
  facts: Pick<QuarantineEntry, "atMs" | "overtakenBy" | "resync">,
): QuarantineEntry {
  const { id, queue, entityKey } = event;
  return { key, id, queue, entityKey, sequence: verdict.about?.sequence ?? null, ...facts };
}

function damagedEntry(key: string, atMs: number): QuarantineEntry {
  return { key, atMs, id: key, queue: "", entityKey: "", sequence: null, overtakenBy: null, resync: null };
}
