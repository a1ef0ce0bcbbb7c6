/**
 * MySQL's Gtid event with a tag (8.3 and newer), which has a form of its own: fields with numbers,
 * whole numbers of one to nine bytes. What stands in front of an unknown field is enough here.
 */
import { unreadableEvent } from "./binlog-event.ts";

export interface TaggedGtid {
  /** The uuid's bytes. */
  readonly uuid: Buffer;
  readonly tag: string;
  readonly number: number;
  /** At the server that made the transaction; null where the event does not say. */
  readonly commitMicros: bigint | null;
}

/** Numbers of the event's fields that are read; they come in their order. */
const field = {
  flags: 0,
  uuid: 1,
  number: 2,
  tag: 3,
  lastCommitted: 4,
  sequenceNumber: 5,
  commitMicros: 6,
  originalCommitMicros: 7,
  last: 11,
} as const;
const UUID_BYTES = 16;

/** `start` is the first byte behind the header. */
export function readTaggedGtid(buffer: Buffer, start: number, end: number): TaggedGtid {
  const fields = new VariableLengths(buffer, start, end);
  const version = fields.unsigned();
  const length = Number(fields.unsigned());
  const lastRequired = Number(fields.unsigned());
  if (version !== 1n || length > end - start || lastRequired > field.last) {
    throw unreadableEvent("a tagged GTID event has a form that is not known");
  }
  let found: Omit<TaggedGtid, "number"> & { readonly number: bigint } = {
    uuid: Buffer.alloc(0),
    tag: "",
    number: 0n,
    commitMicros: null,
  };
  while (!fields.atEnd) {
    const which = Number(fields.unsigned());
    if (which > field.originalCommitMicros) break;
    if (which === field.uuid) found = { ...found, uuid: fields.bytes(UUID_BYTES) };
    else if (which === field.number) found = { ...found, number: fields.signed() };
    else if (which === field.tag) found = { ...found, tag: fields.text() };
    else if (which === field.commitMicros || which === field.originalCommitMicros) {
      found = { ...found, commitMicros: fields.unsigned() };
    } else fields.unsigned();
  }
  const number = Number(found.number);
  if (found.uuid.length === 0 || !Number.isSafeInteger(number) || number < 1) {
    throw unreadableEvent("a tagged GTID event names no GTID");
  }
  return { ...found, number };
}

/** The text's length stands before it in the same form, as in Previous_gtids with tags. */
export function readTag(buffer: Buffer, start: number, end: number): { tag: string; end: number } {
  const fields = new VariableLengths(buffer, start, end);
  const tag = fields.text();
  return { tag, end: fields.at };
}

/** The ones at the low end of the first byte say how many bytes follow it. */
class VariableLengths {
  at: number;
  readonly #buffer: Buffer;
  readonly #end: number;

  constructor(buffer: Buffer, start: number, end: number) {
    this.#buffer = buffer;
    this.#end = end;
    this.at = start;
  }

  get atEnd(): boolean {
    return this.at >= this.#end;
  }

  unsigned(): bigint {
    const first = this.#byte(this.at);
    let more = 0;
    while (more < 8 && (first & (1 << more)) !== 0) more += 1;
    let value = 0n;
    for (let index = more; index > 0; index -= 1) {
      value = (value << 8n) | BigInt(this.#byte(this.at + index));
    }
    this.at += 1 + more;
    // With all bits of the first byte set, the value is in the eight others alone.
    return more === 8 ? value : ((value << 8n) | BigInt(first)) >> BigInt(more + 1);
  }

  /** The lowest bit is the sign. */
  signed(): bigint {
    const value = this.unsigned();
    return (value & 1n) === 0n ? value >> 1n : -(value >> 1n) - 1n;
  }

  /** Each byte is a number of its own. */
  bytes(count: number): Buffer {
    return Buffer.from(Array.from({ length: count }, () => Number(this.unsigned())));
  }

  text(): string {
    const length = Number(this.unsigned());
    const end = this.at + length;
    if (end > this.#end) throw unreadableEvent("a GTID's tag is longer than its event");
    const text = this.#buffer.toString("utf8", this.at, end);
    this.at = end;
    return text;
  }

  #byte(at: number): number {
    const byte = at < this.#end ? this.#buffer[at] : undefined;
    if (byte === undefined) throw unreadableEvent("a tagged GTID event ends too early");
    return byte;
  }
}
