/**
 * Fields of rows that were read, from packed cells to the wire, byte by byte: a number's digits and a
 * text's UTF-8 are what the wire has too. What it writes is what `FieldText` says of the same values;
 * whatever is more than a number or a text is left to that.
 */
import type { PackedRows } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { cellKinds } from "../packed-rows.ts";
import type { EntityPlan, FieldPlan, FieldText } from "./entity-plan.ts";
import { bytesPerUnitMax, embed } from "./wire.ts";

interface FieldBytes {
  readonly plan: FieldPlan;
  /** `,"name":null`, the same without null, and with the quote that begins a text. */
  readonly null: Buffer;
  readonly number: Buffer;
  readonly text: Buffer;
  /** It leaves the host as it is: no reference, no treatment. */
  readonly isPlain: boolean;
}

/** A treated field or a reference takes at most this beside its value: UUID, hash, quotes. */
const TREATED_BYTES = 128;
/** Larger rows are few, and the bound of one would be large. */
const ROW_BYTES_MAX = 128 * 1024;
const BACKSLASH = 0x5c;
const QUOTE = 0x22;

/** What ASCII characters become inside a text inside the literal; null: themselves. */
const escapes: readonly (Buffer | null)[] = Array.from({ length: 256 }, (_, byte) => {
  if (byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH) return null;
  return Buffer.from(embed(JSON.stringify(String.fromCharCode(byte))).slice(2, -2));
});
const none = Buffer.alloc(0);
const textEnd = Buffer.from('\\"');
const mustEscape = Uint8Array.from(escapes, (escape) => (escape === null ? 0 : 1));

export class RowWriter {
  readonly #fields: readonly FieldBytes[];
  readonly #text: FieldText;
  readonly #nameBytes: number;

  constructor(plan: EntityPlan, text: FieldText) {
    this.#text = text;
    this.#fields = plan.fields.map((field) => ({
      plan: field,
      null: Buffer.from(`${field.prefix}null`),
      number: Buffer.from(field.prefix),
      text: Buffer.from(`${field.prefix}\\"`),
      isPlain: field.ref === null && field.treatment.kind === "none",
    }));
    this.#nameBytes = this.#fields.reduce(
      (sum, { null: bytes, plan: { companionPrefix } }) =>
        sum + bytes.length + Buffer.byteLength(companionPrefix) + TREATED_BYTES,
      0,
    );
  }

  /** Bytes that `write` takes at most; null for a row that it does not write. */
  bound(rows: PackedRows, row: number): number | null {
    for (const { plan } of this.#fields) if (rows.kindOf(row, plan.index) === cellKinds.other) return null;
    const bytes = rows.endOf(row, rows.width - 1) - rows.startOf(row, 0);
    if (bytes > ROW_BYTES_MAX) return null;
    return this.#nameBytes + bytes * bytesPerUnitMax;
  }

  /** Writes `,"field":value` for each field of the row; says where it ended. */
  write(rows: PackedRows, row: number, target: Buffer, start: number): number {
    let at = start;
    for (const field of this.#fields) {
      const { index } = field.plan;
      const kind = rows.kindOf(row, index);
      if (kind === cellKinds.missing) continue;
      if (!field.isPlain) {
        at += target.write(this.#entryOf(field.plan, rows, row), at);
      } else if (kind === cellKinds.null) {
        at = put(field.null, target, at);
      } else {
        const isText = kind === cellKinds.text;
        at = put(isText ? field.text : field.number, target, at);
        const { bytes } = rows;
        const end = rows.endOf(row, index);
        for (let from = rows.startOf(row, index); from < end; from += 1) {
          const byte = bytes[from] ?? 0;
          if (mustEscape[byte] === 0) target[at++] = byte;
          else at = put(escapes[byte] ?? none, target, at);
        }
        if (isText) at = put(textEnd, target, at);
      }
    }
    return at;
  }

  #entryOf(field: FieldPlan, rows: PackedRows, row: number): string {
    const value = rows.valueOf(row, field.index);
    assert(value !== undefined, "a missing cell has no entry");
    return this.#text.entryOf(field, value);
  }
}

function put(piece: Buffer, target: Buffer, at: number): number {
  target.set(piece, at);
  return at + piece.length;
}
