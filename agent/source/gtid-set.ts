/**
 * Which transactions are done, in the server's own words. Adding one is cheap; the text is made
 * when a checkpoint asks for it, and kept until the next one.
 */
import { AgentError } from "../kernel/errors.ts";

export interface GtidSet {
  /** Null while it is not known. */
  text(): string | null;
}

interface DomainEnd {
  serverId: number;
  sequence: number | bigint;
}

/** MariaDB: the last transaction of each domain. The last one, not the highest: after a failover a
 * domain's newest transaction can have a lower number. */
export class MariadbGtidPosition implements GtidSet {
  readonly #domains = new Map<number, DomainEnd>();
  #text: string | null = "";

  static parse(text: string): MariadbGtidPosition {
    const made = new MariadbGtidPosition();
    for (const part of text.split(",")) {
      if (part.trim() === "") continue;
      const fields = /^(\d{1,10})-(\d{1,10})-(\d{1,20})$/.exec(part.trim());
      if (fields === null) throw gtidFault(text);
      const sequence = BigInt(fields[3] ?? "");
      made.add(
        Number(fields[1]),
        Number(fields[2]),
        sequence <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(sequence) : sequence,
      );
    }
    return made;
  }

  add(domainId: number, serverId: number, sequence: number | bigint): void {
    const domain = this.#domains.get(domainId);
    if (domain === undefined) this.#domains.set(domainId, { serverId, sequence });
    else {
      domain.serverId = serverId;
      domain.sequence = sequence;
    }
    this.#text = null;
  }

  text(): string {
    if (this.#text !== null) return this.#text;
    const parts: string[] = [];
    for (const [domainId, { serverId, sequence }] of this.#domains) {
      parts.push(`${domainId}-${serverId}-${sequence}`);
    }
    if (parts.length > 1) {
      parts.sort((left, right) => Number.parseInt(left, 10) - Number.parseInt(right, 10));
    }
    this.#text = parts.join(",");
    return this.#text;
  }
}

/** Numbers of one source, as sorted intervals [first, last]. */
type Intervals = [number, number][];

/** MySQL: intervals of numbers for each source. */
export class MysqlGtidSet implements GtidSet {
  readonly #sources = new Map<string, Intervals>();
  #text: string | null = "";

  static parse(text: string): MysqlGtidSet {
    const made = new MysqlGtidSet();
    for (const entry of text.replace(/\s/g, "").split(",")) {
      if (entry === "") continue;
      const [uuid = "", ...items] = entry.split(":");
      if (!/^[0-9a-f-]{36}$/i.test(uuid) || items.length === 0) throw gtidFault(text);
      let source = uuid.toLowerCase();
      for (const item of items) {
        const bounds = /^(\d{1,19})(?:-(\d{1,19}))?$/.exec(item);
        // A word instead of numbers is a tag: with the uuid it makes a source of its own.
        if (bounds === null) source = `${uuid.toLowerCase()}:${item.toLowerCase()}`;
        else made.addInterval(source, safe(bounds[1] ?? "", text), safe(bounds[2] ?? bounds[1] ?? "", text));
      }
    }
    return made;
  }

  add(source: string, number: number): void {
    this.addInterval(source, number, number);
  }

  addInterval(source: string, first: number, last: number): void {
    this.#text = null;
    const intervals = this.#sources.get(source);
    if (intervals === undefined) {
      this.#sources.set(source, [[first, last]]);
      return;
    }
    // Nearly always the next number of the newest interval.
    const newest = intervals.at(-1);
    if (newest !== undefined && first === newest[1] + 1) {
      newest[1] = last;
      return;
    }
    intervals.push([first, last]);
    intervals.sort((left, right) => left[0] - right[0]);
    let kept = 0;
    for (const [from, to] of intervals.splice(0)) {
      const before = intervals[kept - 1];
      if (before !== undefined && from <= before[1] + 1) before[1] = Math.max(before[1], to);
      else kept = intervals.push([from, to]);
    }
  }

  has(source: string, number: number): boolean {
    return this.#sources.get(source)?.some(([first, last]) => number >= first && number <= last) ?? false;
  }

  /** Whether it holds all of the other set. */
  includes(other: MysqlGtidSet): boolean {
    for (const [source, intervals] of other.#sources) {
      const own = this.#sources.get(source) ?? [];
      if (!intervals.every(([from, to]) => own.some(([first, last]) => first <= from && to <= last)))
        return false;
    }
    return true;
  }

  text(): string {
    if (this.#text !== null) return this.#text;
    let made = "";
    let uuidBefore = "";
    for (const source of [...this.#sources.keys()].sort()) {
      const [uuid = "", tag] = source.split(":");
      made += uuid === uuidBefore ? "" : `${made === "" ? "" : ","}${uuid}`;
      uuidBefore = uuid;
      if (tag !== undefined) made += `:${tag}`;
      for (const [first, last] of this.#sources.get(source) ?? []) {
        made += first === last ? `:${first}` : `:${first}-${last}`;
      }
    }
    this.#text = made;
    return made;
  }
}

function safe(digits: string, text: string): number {
  const number = Number(digits);
  if (!Number.isSafeInteger(number)) throw gtidFault(text);
  return number;
}

function gtidFault(text: string): AgentError {
  return new AgentError("CONFIG_INVALID", `"${text.slice(0, 80)}" is not a GTID position or set`);
}

/** Sixteen bytes as the server writes a uuid. */
export function uuidText(bytes: Buffer): string {
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
