/**
 * Floors: what an entity, or a range of its keys, has at or below a sequence is gone, also when it
 * comes later. A reset floors the whole entity; a magento.range floors what a snapshot or resync has
 * read and not found.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { isRecord, MalformedEventError } from "./event.ts";
import { allRows } from "./schema.ts";

/** Both ends are part of it; null is no bound. */
export interface KeyRange {
  readonly low: number | null;
  readonly high: number | null;
}

/** What is asked of an event. */
export interface FlooredEvent {
  readonly entity: string;
  readonly magentoId: string | number;
  readonly sequence: string;
}

interface RangeFloor extends KeyRange {
  readonly sequence: string;
}

/** Read for every event, so kept in memory beside the tables. */
export class Floors {
  readonly #database: DatabaseSync;
  readonly #putWhole: StatementSync;
  readonly #putRange: StatementSync;
  readonly #dropRange: StatementSync;
  readonly #putKey: StatementSync;
  #whole = new Map<string, string>();
  #ranges = new Map<string, RangeFloor[]>();
  /** By entity, then magento_id as text: an id that is not that of its key is nobody's, and goes with it. */
  #keys = new Map<string, Map<string, string>>();

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#putWhole = database.prepare(
      `INSERT INTO floors (entity, sequence) VALUES (?, ?)
       ON CONFLICT (entity) DO UPDATE SET sequence = excluded.sequence`,
    );
    this.#putRange = database.prepare("INSERT INTO ranges (entity, low, high, sequence) VALUES (?, ?, ?, ?)");
    this.#dropRange = database.prepare(
      "DELETE FROM ranges WHERE entity = ? AND low >= ? AND high <= ? AND sequence <= ?",
    );
    this.#putKey = database.prepare(
      `INSERT INTO magento_id_floors (entity, magento_id, sequence) VALUES (?, ?, ?)
       ON CONFLICT (entity, magento_id) DO UPDATE SET sequence = excluded.sequence`,
    );
    this.reload();
  }

  /** From the tables: after a transaction that was rolled back. */
  reload(): void {
    const floors = allRows(this.#database, "SELECT entity, sequence FROM floors");
    this.#whole = new Map(floors.map((row) => [String(row["entity"]), String(row["sequence"])]));
    this.#ranges = new Map();
    for (const row of allRows(this.#database, "SELECT entity, low, high, sequence FROM ranges")) {
      this.#remember(String(row["entity"]), {
        low: Number(row["low"]),
        high: Number(row["high"]),
        sequence: String(row["sequence"]),
      });
    }
    this.#keys = new Map();
    for (const row of allRows(this.#database, "SELECT entity, magento_id, sequence FROM magento_id_floors")) {
      this.#rememberKey(String(row["entity"]), String(row["magento_id"]), String(row["sequence"]));
    }
  }

  /** Whether what the entity's key has at this sequence is gone. */
  covers({ entity, magentoId, sequence }: FlooredEvent): boolean {
    const single = this.#keys.get(entity)?.get(String(magentoId));
    if (single !== undefined && sequence <= single) return true;
    const whole = this.#whole.get(entity);
    if (whole !== undefined && sequence <= whole) return true;
    const ranges = this.#ranges.get(entity);
    if (ranges === undefined) return false;
    return ranges.some((floor) => sequence <= floor.sequence && isWithin(magentoId, floor));
  }

  /** False when a floor that is as high is there already. */
  raise(entity: string, range: KeyRange, sequence: string): boolean {
    const whole = this.#whole.get(entity);
    if (whole !== undefined && whole >= sequence) return false;
    if (range.low === null && range.high === null) {
      this.#putWhole.run(entity, sequence);
      this.#whole.set(entity, sequence);
      return true;
    }
    const low = range.low ?? Number.MIN_SAFE_INTEGER;
    const high = range.high ?? Number.MAX_SAFE_INTEGER;
    // Those that the new one holds would only make each event's look longer.
    this.#dropRange.run(entity, low, high, sequence);
    this.#putRange.run(entity, low, high, sequence);
    const kept = (this.#ranges.get(entity) ?? []).filter(
      (floor) => !(isInside(floor, low, high) && floor.sequence <= sequence),
    );
    this.#ranges.set(entity, kept);
    this.#remember(entity, { low, high, sequence });
    return true;
  }

  /** The floor of a single key. False when one that is as high is there already. */
  raiseKey(entity: string, magentoId: string | number, sequence: string): boolean {
    const key = String(magentoId);
    const known = this.#keys.get(entity)?.get(key);
    if (known !== undefined && known >= sequence) return false;
    this.#putKey.run(entity, key, sequence);
    this.#rememberKey(entity, key, sequence);
    return true;
  }

  #rememberKey(entity: string, key: string, sequence: string): void {
    const known = this.#keys.get(entity);
    if (known === undefined) this.#keys.set(entity, new Map([[key, sequence]]));
    else known.set(key, sequence);
  }

  #remember(entity: string, floor: RangeFloor): void {
    const known = this.#ranges.get(entity);
    if (known === undefined) this.#ranges.set(entity, [floor]);
    else known.push(floor);
  }
}

export function isWithin(magentoId: string | number, { low, high }: KeyRange): boolean {
  if (low === null && high === null) return true;
  const key = Number(magentoId);
  return key >= (low ?? Number.MIN_SAFE_INTEGER) && key <= (high ?? Number.MAX_SAFE_INTEGER);
}

function isInside(floor: KeyRange, low: number, high: number): boolean {
  return floor.low !== null && floor.low >= low && floor.high !== null && floor.high <= high;
}

/** What a magento.range event names: keys of single entities, or a range; no bounds are the whole entity. */
export function flooredBy(data: Readonly<Record<string, unknown>>): KeyRange | readonly (string | number)[] {
  const { from, to, keys } = data;
  if (Array.isArray(keys)) return keys.map(magentoIdOf);
  return { low: boundOf(from), high: boundOf(to) };
}

function boundOf(value: unknown): number | null {
  if (value === null || value === undefined) return null;
  const bound = typeof value === "string" || typeof value === "number" ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(bound)) throw new MalformedEventError("a bound of the range is no integer");
  return bound;
}

function magentoIdOf(value: unknown): string | number {
  const magentoId = isRecord(value) ? value["magento_id"] : undefined;
  if (typeof magentoId === "string" || typeof magentoId === "number") return magentoId;
  throw new MalformedEventError("a key of the range has no magento_id");
}
