/**
 * Column type codes as they stand in a TABLE_MAP event, and the one error that a reader of row
 * events throws.
 */
import { AgentError } from "../../kernel/errors.ts";

declare global {
  // Buffer's own per-encoding readers, which `toString` ends in: without its argument checks.
  // Both bounds are always given.
  interface Buffer {
    latin1Slice(start: number, end: number): string;
    utf8Slice(start: number, end: number): string;
    base64Slice(start: number, end: number): string;
  }
}

export const columnType = {
  decimal: 0,
  tiny: 1,
  short: 2,
  long: 3,
  float: 4,
  double: 5,
  timestamp: 7,
  longlong: 8,
  int24: 9,
  date: 10,
  time: 11,
  datetime: 12,
  year: 13,
  newDate: 14,
  varchar: 15,
  bit: 16,
  timestamp2: 17,
  datetime2: 18,
  time2: 19,
  blobCompressed: 140,
  varcharCompressed: 141,
  vector: 242,
  json: 245,
  newDecimal: 246,
  enum: 247,
  set: 248,
  tinyBlob: 249,
  mediumBlob: 250,
  longBlob: 251,
  blob: 252,
  varString: 253,
  string: 254,
  geometry: 255,
} as const;

/** Collation id of columns that hold bytes, not text. */
export const BINARY_COLLATION = 63;

/** The error for bytes that cannot be read without loss. The text never holds row values. */
export function unreadable(text: string, hint?: string): AgentError {
  return new AgentError("SOURCE_UNREADABLE", text, hint === undefined ? {} : { hint });
}

/** What a reader may count while it decodes. */
export type Oddity = "zero_date" | "invalid_text";

/** Where readers report oddities of the row in hand. */
export interface OddityNotes {
  note(what: Oddity): void;
}
