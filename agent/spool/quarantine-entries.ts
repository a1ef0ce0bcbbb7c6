/**
 * What is remembered of every quarantined event, so that nothing has to be read to count them, to
 * find one, or to see that an accepted event overtakes one. Bounded by QUARANTINE_MAX.
 */
import { readingOf, type SpooledEvent } from "../change.ts";

export interface QuarantineEntry {
  /** Its key in the database, in hexadecimal. */
  readonly key: string;
  readonly atMs: number;
  /** The CloudEvent's id; for a damaged entry its key. */
  readonly id: string;
  readonly queue: string;
  readonly entityKey: string;
  /** Null where the event has none, or where it cannot be read. */
  readonly sequence: string | null;
  /** Sequence of the first newer event of the entity that was accepted. */
  readonly overtakenBy: string | null;
  /** Generation of the resync that brings its entity's state of now. */
  readonly resync: number | null;
}

export class QuarantineEntries {
  readonly #byKey = new Map<string, QuarantineEntry>();
  /** Keys of the entries that a newer event may still overtake, by entity. */
  readonly #watched = new KeysByEntity();
  /** Keys of those that wait for a resync. */
  readonly #awaiting = new KeysByEntity();

  get count(): number {
    return this.#byKey.size;
  }

  get(key: string): QuarantineEntry | undefined {
    return this.#byKey.get(key);
  }

  /** In no order. */
  all(): Iterable<QuarantineEntry> {
    return this.#byKey.values();
  }

  put(entry: QuarantineEntry): void {
    this.delete(entry.key);
    this.#byKey.set(entry.key, entry);
    if (entry.overtakenBy === null) this.#watched.add(entry);
    if (entry.resync !== null) this.#awaiting.add(entry);
  }

  delete(key: string): void {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return;
    this.#byKey.delete(key);
    this.#watched.delete(entry);
    this.#awaiting.delete(entry);
  }

  concerns(event: SpooledEvent): boolean {
    if (this.#byKey.size === 0) return false;
    // A control event in an entity's queue may void every entity of it.
    if (event.kind === "control") return true;
    return this.#watched.of(event.entityKey).size > 0 || this.#awaiting.of(event.entityKey).size > 0;
  }

  /**
   * Entries that the accepted event overtakes. What goes to another topic overtakes nothing, and what
   * tells of a snapshot or resync says nothing of rows that it has not read.
   */
  overtaken(event: SpooledEvent, sequence: string): QuarantineEntry[] {
    if (event.kind === "control" && event.lane === "bulk") return [];
    const candidates = event.kind === "control" ? this.#byKey.keys() : this.#watched.of(event.entityKey);
    return this.#among(candidates, event).filter(
      (entry) => entry.overtakenBy === null && entry.sequence !== null && entry.sequence < sequence,
    );
  }

  /**
   * Entries whose resync is done with the accepted event: it is their entity's row, or it completes
   * the resync, which found no such row. Not those whose row was refused as well.
   */
  readAgain(event: SpooledEvent, sequence: string): QuarantineEntry[] {
    const reading = readingOf(sequence);
    if (reading === null) return [];
    const { generation, completes } = reading;
    if (event.kind !== "control") {
      return this.#among(this.#awaiting.of(event.entityKey), event).filter(
        ({ resync }) => resync !== null && resync <= generation,
      );
    }
    if (!completes) return [];
    const ofGeneration = this.#among(this.#byKey.keys(), event);
    const refused = ofGeneration.filter(
      (entry) => readingOf(entry.sequence ?? "")?.generation === generation,
    );
    return ofGeneration.filter(
      ({ resync, entityKey }) =>
        resync === generation && !refused.some((other) => other.entityKey === entityKey),
    );
  }

  #among(keys: Iterable<string>, { queue }: SpooledEvent): QuarantineEntry[] {
    const entries: QuarantineEntry[] = [];
    for (const key of keys) {
      const entry = this.#byKey.get(key);
      if (entry?.queue === queue) entries.push(entry);
    }
    return entries;
  }
}

const none: ReadonlySet<string> = new Set();

class KeysByEntity {
  readonly #keys = new Map<string, Set<string>>();

  of(entityKey: string): ReadonlySet<string> {
    return this.#keys.get(entityKey) ?? none;
  }

  add({ key, entityKey }: QuarantineEntry): void {
    const keys = this.#keys.get(entityKey);
    if (keys === undefined) this.#keys.set(entityKey, new Set([key]));
    else keys.add(key);
  }

  delete({ key, entityKey }: QuarantineEntry): void {
    const keys = this.#keys.get(entityKey);
    keys?.delete(key);
    if (keys?.size === 0) this.#keys.delete(entityKey);
  }
}
