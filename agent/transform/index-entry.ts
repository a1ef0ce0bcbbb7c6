/**
 * Entries of the index on disk, format 1. Final: a later version reads it too.
 *
 *   key of a child's entry    01 relation(u8) parent child...     value  number(u32)
 *   key of a lookup's entry   02 relation(u8) child...            value  number(u32) parent
 *
 * `child` has a part for each column of its entity's key. A part says its own kind and length, so that
 * one is never the beginning of another, and the entries of one parent have a prefix of their own:
 *
 *   10..17 n bytes            integer, not negative, in as few bytes as it needs
 *   20..28 n bytes            text of an integer below 2^64, as the shortest such number
 *   30 length(u8) text        any other number
 *   40 length(u16) UTF-8      any other text
 *   50 length(u16) JSON       what is neither, or not well-formed
 *
 * `number` says when the entry was written (index-state.ts). Numbers are big-endian.
 */
import type { Value } from "../change.ts";

const CHILD = 1;
const LOOKUP = 2;
const INTEGER = 0x10;
const DIGITS = 0x20;
const NUMBER = 0x30;
const TEXT = 0x40;
const JSON_TEXT = 0x50;
export const NUMBER_BYTES = 4;
const DIGITS_END = 2n ** 64n;
const integerText = /^(?:0|[1-9]\d{0,19})$/;

/** A value that can stand in an entry. */
export type Part = Exclude<Value, null>;

export interface ChildEntry {
  readonly relation: number;
  readonly parent: Part;
  readonly child: readonly Part[];
}

/** Writes keys into one reused buffer; what a call returns is a copy. Not for use across threads. */
export class EntryKeys {
  #bytes = Buffer.alloc(1024);
  #end = 0;

  child(relation: number, parent: Part, child: readonly Part[]): Buffer {
    this.#begin(CHILD, relation);
    this.#part(parent);
    return this.#finish(child);
  }

  lookup(relation: number, child: readonly Part[]): Buffer {
    this.#begin(LOOKUP, relation);
    return this.#finish(child);
  }

  /** What the entries of all children of the parent begin with. */
  childrenOf(relation: number, parent: Part): Buffer {
    this.#begin(CHILD, relation);
    this.#part(parent);
    return this.#finish([]);
  }

  /** The value of a lookup's entry. */
  lookupValue(number: number, parent: Part): Buffer {
    this.#end = this.#bytes.writeUInt32BE(number, 0);
    this.#part(parent);
    return this.#finish([]);
  }

  #begin(kind: number, relation: number): void {
    this.#bytes[0] = kind;
    this.#bytes[1] = relation;
    this.#end = 2;
  }

  #finish(parts: readonly Part[]): Buffer {
    for (const part of parts) this.#part(part);
    return Buffer.from(this.#bytes.subarray(0, this.#end));
  }

  #part(part: Part): void {
    this.#reserve(typeof part === "string" ? part.length * 3 : 64);
    if (typeof part === "number") {
      if (Number.isSafeInteger(part) && part >= 0 && !Object.is(part, -0)) this.#integer(INTEGER, part);
      else this.#short(NUMBER, String(part));
    } else if (typeof part === "string") {
      if (!integerText.test(part)) this.#text(part);
      else if (part.length <= 15) this.#integer(DIGITS, Number(part));
      else this.#digits(part);
    } else this.#long(JSON_TEXT, JSON.stringify(part));
  }

  #integer(kind: number, value: number): void {
    let length = 0;
    for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) length += 1;
    this.#bytes[this.#end] = kind + length;
    let rest = value;
    for (let at = this.#end + length; at > this.#end; at -= 1) {
      this.#bytes[at] = rest % 256;
      rest = Math.floor(rest / 256);
    }
    this.#end += 1 + length;
  }

  #digits(text: string): void {
    const value = BigInt(text);
    if (value >= DIGITS_END) return this.#text(text);
    const hex = value.toString(16);
    const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), "0"), "hex");
    this.#bytes[this.#end] = DIGITS + bytes.length;
    this.#end += 1 + bytes.copy(this.#bytes, this.#end + 1);
  }

  #short(kind: number, text: string): void {
    this.#bytes[this.#end] = kind;
    this.#bytes[this.#end + 1] = text.length;
    this.#end += 2 + this.#bytes.write(text, this.#end + 2, "latin1");
  }

  #text(text: string): void {
    if (text.isWellFormed()) this.#long(TEXT, text);
    else this.#long(JSON_TEXT, JSON.stringify(text));
  }

  #long(kind: number, text: string): void {
    this.#reserve(text.length * 3);
    const length = this.#bytes.write(text, this.#end + 3, "utf8");
    this.#bytes[this.#end] = kind;
    this.#bytes.writeUInt16BE(length, this.#end + 1);
    this.#end += 3 + length;
  }

  #reserve(bytes: number): void {
    const needed = this.#end + bytes + 16;
    if (needed > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], needed * 2);
  }
}

/** What all entries of a relation begin with: its children, and its lookups. */
export function relationPrefixes(relation: number): readonly Buffer[] {
  return [Buffer.from([CHILD, relation]), Buffer.from([LOOKUP, relation])];
}

/** What the key of a child's entry says; null when it is another kind's. Throws RangeError for no key. */
export function readChildKey(key: Buffer): ChildEntry | null {
  if (key[0] !== CHILD) return null;
  const [parent, ...child] = readParts(key, 2);
  if (parent === undefined) throw new RangeError("an entry of the index names no parent");
  return { relation: key.readUInt8(1), parent, child };
}

/** What a lookup's entry says; null when it is another kind's. */
export function readLookup(key: Buffer, value: Buffer): ChildEntry | null {
  if (key[0] !== LOOKUP) return null;
  const [parent] = readParts(value, NUMBER_BYTES);
  if (parent === undefined) throw new RangeError("an entry of the index has no value");
  return { relation: key.readUInt8(1), parent, child: readParts(key, 2) };
}

function readParts(bytes: Buffer, from: number): Part[] {
  const parts: Part[] = [];
  let at = from;
  while (at < bytes.length) {
    const kind = bytes.readUInt8(at);
    const isLong = kind === TEXT || kind === JSON_TEXT;
    const start = at + (isLong ? 3 : kind === NUMBER ? 2 : 1);
    const length = isLong
      ? bytes.readUInt16BE(at + 1)
      : kind === NUMBER
        ? bytes.readUInt8(at + 1)
        : kind & 0xf;
    at = start + length;
    if (at > bytes.length) throw new RangeError("an entry of the index ends inside a part");
    parts.push(readPart(kind, bytes.subarray(start, at)));
  }
  return parts;
}

function readPart(kind: number, bytes: Buffer): Part {
  if (kind === TEXT) return bytes.toString("utf8");
  if (kind === NUMBER) return Number(bytes.toString("latin1"));
  if (kind === JSON_TEXT) return jsonPart(bytes.toString("utf8"));
  const value = bytes.length === 0 ? 0n : BigInt(`0x${bytes.toString("hex")}`);
  if ((kind & 0xf0) === INTEGER) return Number(value);
  if ((kind & 0xf0) === DIGITS) return value.toString();
  throw new RangeError(`an entry of the index has a part of kind ${kind}`);
}

function jsonPart(text: string): Part {
  const value: unknown = JSON.parse(text);
  if (typeof value === "string") return value;
  if (typeof value === "object" && value !== null) {
    if ("json" in value && typeof value.json === "string") return { json: value.json };
    if (
      "text" in value &&
      typeof value.text === "string" &&
      "base64" in value &&
      typeof value.base64 === "string"
    )
      return { text: value.text, base64: value.base64 };
  }
  throw new RangeError("an entry of the index has a part that is no value");
}
