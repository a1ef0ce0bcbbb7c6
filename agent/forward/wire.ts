/**
 * The body of a bulk publish, joined from bytes that were encoded once, when the event was made.
 *
 * Each entry is `{"entryId":"<id>","contentType":"text/plain","event":<payload>}`. The payload is
 * already a JSON string literal, so nothing is parsed or escaped here: Dapr would otherwise decode
 * JSON numbers as doubles and damage 64-bit integers and decimals.
 */
import type { EventBytes, OutboundEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";

/** An event to send; where it was read from the spool, with its bytes. */
export type WireEvent = OutboundEvent & { readonly bytes?: EventBytes };

const entryStart = Buffer.from('{"entryId":"', "latin1");
const entryMiddle = Buffer.from('","contentType":"text/plain","event":', "latin1");

/** Bytes of one entry beside its id and its payload: start, middle, brace, comma or bracket. */
const ENTRY_OVERHEAD = entryStart.length + entryMiddle.length + 2;

const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const CLOSE_BRACE = 0x7d;
const COMMA = 0x2c;

/** Bytes of the event's payload. */
export function payloadBytes(event: WireEvent): number {
  const { bytes } = event;
  return bytes === undefined ? event.payload.length : bytes.payloadEnd - bytes.payloadAt;
}

/** Bytes that the event takes in a bulk body, its separator included. */
export function entryBytes(event: WireEvent): number {
  const { bytes } = event;
  const idBytes = bytes === undefined ? event.id.length : bytes.idEnd - bytes.idAt;
  return ENTRY_OVERHEAD + idBytes + payloadBytes(event);
}

/** Bytes of the body beside its entries. */
export const BODY_OVERHEAD = 1;

/** Where the bytes of a body come from. */
export type TakeBytes = (bytes: number) => Buffer;

/**
 * Joins the events into one body. The ids must be distinct and must need no escaping in JSON: the
 * transform's are digests.
 */
export function joinBulk(
  events: readonly WireEvent[],
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
    const { bytes } = event;
    assert(bytes === undefined || bytes.of.length >= bytes.payloadEnd, "an event that is done is not sent");
    if (bytes === undefined) at += body.write(event.id, at, "latin1");
    else at += bytes.of.copy(body, at, bytes.idAt, bytes.idEnd);
    at += entryMiddle.copy(body, at);
    if (bytes === undefined) at += event.payload.copy(body, at);
    else at += bytes.of.copy(body, at, bytes.payloadAt, bytes.payloadEnd);
    body[at] = CLOSE_BRACE;
    body[at + 1] = COMMA;
    at += 2;
  }
  body[at - 1] = CLOSE_BRACKET;
  return body;
}
