/**
 * Place and name of an event: both are functions of the source's history, so that a repeat is
 * recognised (invariant 6).
 *
 *     sequence = epoch(10).file(10).end position(16).class(1).generation(6).ordinal(10).step(1)
 *     id       = SHA-256(transaction, commit time, table, image index, step, class), 32 hex digits;
 *                of a row that was read SHA-256(server, place, generation, table, key, class)
 *
 * The epoch is not part of the id: the same change keeps its id after lost state. The commit time
 * is part of it also where there is a GTID, because a reset server counts its GTIDs from 1 again.
 */
import { hash } from "node:crypto";
import { binlogFileNumber } from "../change.ts";
import type { Position } from "../change.ts";
import { assert } from "../kernel/assert.ts";

/** What follows on the position: live changes before snapshots and resyncs at the same place. */
export const streamClass = 1;
export const readClass = 9;
/** Generations that a sequence has room for. */
const GENERATION_MAX = 999_999;

/** A delete that makes room for an insert comes before it. */
export type Step = 0 | 1;

/** What the events of one committed transaction share. */
export interface TransactionFacts {
  readonly end: Position;
  readonly gtid: string | null;
  readonly serverId: number;
  readonly commitTimeMs: number;
}

function digits(value: number, width: number): string {
  return String(value).padStart(width, "0");
}

/** Everything of a sequence before the ordinal, for events of the stream. */
export function streamSequencePrefix(epoch: number, end: Position): string {
  return `${placeOf(epoch, end)}.${streamClass}.000000.`;
}

/**
 * Everything of a sequence before the ordinal, for rows that were read: behind every change up to
 * the position and behind what an earlier generation read there, before every later change.
 */
export function readSequencePrefix(epoch: number, position: Position, generation: number): string {
  assert(generation <= GENERATION_MAX, "a state makes fewer than a million snapshots and resyncs");
  return `${placeOf(epoch, position)}.${readClass}.${digits(generation, 6)}.`;
}

function placeOf(epoch: number, { file, position }: Position): string {
  // Where only GTIDs are known yet, nothing of the epoch was read: before everything of it.
  const number = digits(file === "" ? 0 : binlogFileNumber(file), 10);
  return `${digits(epoch, 10)}.${number}.${digits(position, 16)}`;
}

/** A whole sequence, from its prefix. */
export function sequenceOf(prefix: string, ordinal: number, step: Step): string {
  const text = String(ordinal);
  return `${prefix}${"0000000000".slice(text.length)}${text}.${step}`;
}

/** Greater than every sequence of the stream up to the position, smaller than every later one. */
export function endSequenceOf(epoch: number, end: Position): string {
  return `${streamSequencePrefix(epoch, end)}9999999999.9`;
}

/** The transaction as consumers see it, in `origin.transaction`. */
export function transactionName(facts: TransactionFacts): string {
  return facts.gtid ?? `${facts.serverId}:${facts.end.file}:${facts.end.position}`;
}

/** First half of what an id is made from. */
export function idPrefix(facts: TransactionFacts): string {
  return `${transactionName(facts)}\n${facts.commitTimeMs}\n`;
}

/** Id of one change. `prefix` is from `idPrefix`. */
export function eventId(prefix: string, table: string, imageIndex: number, step: Step): string {
  return digest(`${prefix}${table}\n${imageIndex}\n${step}\n${streamClass}`);
}

/** Id of a row that was read. `prefix` names server, place and generation: read there again, it is the same. */
export function readId(prefix: string, table: string, key: string): string {
  return digest(`${prefix}${table}\n${key}\n${readClass}`);
}

/** Id of anything else: of its parts, in order. */
export function idOf(...parts: readonly (string | number | null)[]): string {
  return digest(JSON.stringify(parts));
}

/** W3C trace id of a transaction: one trace for all its events. */
export function traceIdOf(prefix: string): string {
  return digest(prefix);
}

const scratch = Buffer.alloc(32);

/** 32 digits as a string of its own: events wait by the thousand, and a slice would keep all 64 of each. */
function digest(text: string): string {
  scratch.write(hash("sha256", text, "hex"), 0, 32, "latin1");
  return scratch.toString("latin1");
}

/** W3C traceparent; the span is the event's own. */
export function traceparentOf(traceId: string, id: string): string {
  return `00-${traceId}-${id.slice(0, 16)}-01`;
}
