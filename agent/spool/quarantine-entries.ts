/**
 * What is remembered of every quarantined event, so that nothing has to be read to count them, to
 * find one, or to see that an accepted event overtakes one. Bounded by QUARANTINE_MAX.
 */
import type { SpooledEvent } from "../change.ts";

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
}

export class QuarantineEntries {
  readonly #byKey = new Map<string, QuarantineEntry>();
  /** Keys of the entries that a newer event may still overtake, by entity. */
  readonly #watched = new Map<string, Set<string>>();

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
    if (entry.overtakenBy !== null) return;
    const keys = this.#watched.get(entry.entityKey);
    if (keys === undefined) this.#watched.set(entry.entityKey, new Set([entry.key]));
    else keys.add(entry.key);
  }

  delete(key: string): void {
    const entry = this.#byKey.get(key);
    if (entry === undefined) return;
    this.#byKey.delete(key);
    const keys = this.#watched.get(entry.entityKey);
    keys?.delete(key);
    if (keys?.size === 0) this.#watched.delete(entry.entityKey);
  }

  concerns(event: SpooledEvent): boolean {
    if (this.#byKey.size === 0) return false;
    // A control event in an entity's queue may void every entity of it.
    return event.kind === "control" || this.#watched.has(event.entityKey);
  }

  /** Entries that the accepted event overtakes. */
  overtaken(event: SpooledEvent, sequence: string): QuarantineEntry[] {
    const entries: QuarantineEntry[] = [];
    const candidates =
      event.kind === "control" ? this.#byKey.keys() : (this.#watched.get(event.entityKey) ?? []);
    for (const key of candidates) {
      const entry = this.#byKey.get(key);
      if (entry === undefined || entry.overtakenBy !== null) continue;
      if (event.kind === "control" && entry.queue !== event.queue) continue;
      if (entry.sequence !== null && entry.sequence < sequence) entries.push(entry);
    }
    return entries;
  }
}
