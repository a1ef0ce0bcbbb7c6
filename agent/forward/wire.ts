/**
 * The body of a bulk publish, joined from bytes that were encoded once, when the event was made.
 *
 * Each entry is `{"entryId":"<id>","contentType":"text/plain","event":<payload>}`. The payload is
 * already a JSON string literal, so nothing is parsed or escaped here: Dapr would otherwise decode
 * JSON numbers as doubles and damage 64-bit integers and decimals.
 */
import type { OutboundEvent } from "../change.ts";

const entryStart = Buffer.from('{"entryId":"', "latin1");
const entryMiddle = Buffer.from('","contentType":"text/plain","event":', "latin1");

/** Bytes of one entry beside its id and its payload: start, middle, brace, comma or bracket. */
const ENTRY_OVERHEAD = entryStart.length + entryMiddle.length + 2;

const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const CLOSE_BRACE = 0x7d;
const COMMA = 0x2c;

/** Bytes that the event takes in a bulk body, its separator included. */
export function entryBytes(event: OutboundEvent): number {
  return ENTRY_OVERHEAD + event.id.length + event.payload.length;
}

/** Bytes of the body beside its entries. */
export const BODY_OVERHEAD = 1;

/** Where the bytes of a body come from. */
export type TakeBytes = (bytes: number) => Buffer;

/**
 * Joins the events into one body. The ids must be distinct and must need no escaping in JSON, as
 * the ids that the transform makes do (`isPlainId` tells).
 */
export function joinBulk(
  events: readonly OutboundEvent[],
  take: TakeBytes = (bytes) => Buffer.allocUnsafe(bytes),
): Buffer {
  if (events.length === 0) return Buffer.from("[]", "latin1");
  let total = BODY_OVERHEAD;
  for (const event of events) total += entryBytes(event);
  const body = take(total);
  body[0] = OPEN_BRACKET;
  let at = 1;
  for (const event of events) {
    at += entryStart.copy(body, at);
    at += body.write(event.id, at, "latin1");
    at += entryMiddle.copy(body, at);
    at += event.payload.copy(body, at);
    body[at] = CLOSE_BRACE;
    body[at + 1] = COMMA;
    at += 2;
  }
  body[at - 1] = CLOSE_BRACKET;
  return body;
}

/** Whether the id can stand in a JSON string as it is, one byte a character. */
export function isPlainId(id: string): boolean {
  if (id.length === 0) return false;
  for (let index = 0; index < id.length; index++) {
    const code = id.charCodeAt(index);
    // Printable ASCII without the quotation mark and the backslash.
    if (code < 0x20 || code > 0x7e || code === 0x22 || code === 0x5c) return false;
  }
  return true;
}
