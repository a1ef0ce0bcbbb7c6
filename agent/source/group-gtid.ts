/** The event that announces a group, in both servers' forms: its GTID and commit time. */
import {
  eventServerId,
  eventTimestamp,
  eventTypeAt,
  HEADER_BYTES,
  uint64,
  unreadableEvent,
} from "./binlog-event.ts";
import { uuidText } from "./gtid-set.ts";
import { readTag, readTaggedGtid } from "./gtid-tagged.ts";
import type { StreamProgress } from "./stream-progress.ts";

const mariadbFlag = { standalone: 1, preparedXa: 64 } as const;
const ANONYMOUS = 34;
const TAGGED = 42;
/** In the body of MySQL's event: uuid, number, then logical clock, then the commit time. */
const at = { uuid: 1, number: 17, commitMicros: 42 } as const;

export class GroupGtid {
  /** Whether the group was announced at all; old servers begin with BEGIN. */
  isKnown = false;
  /** MariaDB announces a transaction without a BEGIN behind it. */
  impliesBegin = false;
  preparesXa = false;
  commitTimeMs: number | null = null;
  #kind: "none" | "mariadb" | "mysql" = "none";
  #domainId = 0;
  #serverId = 0;
  #number: number | bigint = 0;
  readonly #uuidBytes = Buffer.alloc(16);
  #uuid = "";
  /** The uuid, with the tag behind it where there is one. */
  #source = "";

  clear(): void {
    this.isKnown = false;
    this.impliesBegin = false;
    this.preparesXa = false;
    this.commitTimeMs = null;
    this.#kind = "none";
  }

  take(buffer: Buffer, start: number, end: number): void {
    this.clear();
    this.isKnown = true;
    const type = eventTypeAt(buffer, start);
    if (type === 162) this.#takeMariadb(buffer, start);
    else if (type === TAGGED) this.#takeTagged(buffer, start, end);
    else this.#takeMysql(buffer, start, end);
  }

  /** Null where the server gives the transaction none. */
  text(): string | null {
    if (this.#kind === "mariadb") return `${this.#domainId}-${this.#serverId}-${this.#number}`;
    return this.#kind === "mysql" ? `${this.#source}:${this.#number}` : null;
  }

  /** The group is done. */
  addTo(progress: StreamProgress): void {
    if (this.#kind === "mariadb") progress.mariadbGtids.add(this.#domainId, this.#serverId, this.#number);
    else if (this.#kind === "mysql") progress.mysqlGtids.add(this.#source, Number(this.#number));
  }

  #takeMariadb(buffer: Buffer, start: number): void {
    const body = start + HEADER_BYTES;
    const flags = buffer[body + 12] ?? 0;
    this.#kind = "mariadb";
    this.#number = uint64(buffer, body);
    this.#domainId = buffer.readUInt32LE(body + 8);
    this.#serverId = eventServerId(buffer, start);
    this.impliesBegin = (flags & mariadbFlag.standalone) === 0;
    this.preparesXa = (flags & mariadbFlag.preparedXa) !== 0;
    this.commitTimeMs = eventTimestamp(buffer, start) * 1000;
  }

  #takeMysql(buffer: Buffer, start: number, end: number): void {
    const body = start + HEADER_BYTES;
    if (body + at.commitMicros + 7 <= end) {
      // The top bit says that the time at the server that made the transaction follows.
      const hasOriginal = ((buffer[body + at.commitMicros + 6] ?? 0) & 0x80) !== 0;
      const micros = body + at.commitMicros + (hasOriginal ? 7 : 0);
      const value =
        buffer.readUInt32LE(micros) + (buffer.readUIntLE(micros + 4, 3) & 0x7f_ffff) * 0x1_0000_0000;
      this.commitTimeMs = Math.floor(value / 1000);
    } else this.commitTimeMs = eventTimestamp(buffer, start) * 1000;
    if (eventTypeAt(buffer, start) === ANONYMOUS) return;
    const uuidAt = body + at.uuid;
    if (this.#uuid === "" || this.#uuidBytes.compare(buffer, uuidAt, uuidAt + 16) !== 0) {
      buffer.copy(this.#uuidBytes, 0, uuidAt, uuidAt + 16);
      this.#uuid = uuidText(this.#uuidBytes);
    }
    const number = uint64(buffer, body + at.number);
    if (typeof number === "bigint") throw unreadableEvent("a GTID's number is larger than 2^53");
    this.#kind = "mysql";
    this.#source = this.#uuid;
    this.#number = number;
  }

  #takeTagged(buffer: Buffer, start: number, end: number): void {
    const { uuid, tag, number, commitMicros } = readTaggedGtid(buffer, start + HEADER_BYTES, end);
    this.commitTimeMs =
      commitMicros === null ? eventTimestamp(buffer, start) * 1000 : Number(commitMicros / 1000n);
    this.#kind = "mysql";
    this.#source = tag === "" ? uuidText(uuid) : `${uuidText(uuid)}:${tag}`;
    this.#number = number;
  }
}

/** What a file's first events say was done before it; taken where nothing better is known. */
export function seedGtids(buffer: Buffer, start: number, end: number, progress: StreamProgress): void {
  if (progress.gtidsKnown) return;
  const body = start + HEADER_BYTES;
  if (eventTypeAt(buffer, start) === 163) {
    const count = buffer.readUInt32LE(body) & 0x0fff_ffff;
    for (let entry = body + 4; entry < body + 4 + count * 16; entry += 16) {
      progress.mariadbGtids.add(
        buffer.readUInt32LE(entry),
        buffer.readUInt32LE(entry + 4),
        uint64(buffer, entry + 8),
      );
    }
    progress.gtidsKnown = true;
    return;
  }
  progress.gtidsKnown = seedMysql(buffer.subarray(body, end), progress);
}

/** False for a form that is not known. */
function seedMysql(body: Buffer, progress: StreamProgress): boolean {
  const form = body[7];
  if (body.length < 8 || (form !== 0 && form !== 1)) return false;
  let place = 8;
  // With tags, the lowest byte of the count repeats the form.
  for (let source = form === 0 ? body.readUInt32LE(0) : body.readUIntLE(1, 6); source > 0; source -= 1) {
    let name = uuidText(body.subarray(place, place + 16));
    place += 16;
    if (form === 1) {
      const { tag, end } = readTag(body, place, body.length);
      if (tag !== "") name += `:${tag}`;
      place = end;
    }
    const intervals = Number(uint64(body, place));
    place += 8;
    for (let index = 0; index < intervals; index += 1, place += 16) {
      progress.mysqlGtids.addInterval(name, Number(uint64(body, place)), Number(uint64(body, place + 8)) - 1);
    }
  }
  return true;
}
