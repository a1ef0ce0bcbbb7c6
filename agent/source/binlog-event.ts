/**
 * The binlog's events as bytes: the header, and the few bodies that groups and positions are made
 * of. Every function reads from the packet's buffer in place; `start` is where the 19 byte header
 * of the event starts, `end` where its body ends (before the checksum).
 */
import { crc32, inflateSync } from "node:zlib";
import { AgentError } from "../kernel/errors.ts";
import type { Position } from "../change.ts";

export const HEADER_BYTES = 19;
export const CHECKSUM_BYTES = 4;
/** The first event of every file stands behind the four magic bytes. */
export const FILE_START = 4;
const FLAG_ARTIFICIAL = 0x20;
const FLAG_IGNORABLE = 0x80;

/** What the reader does with an event of this type. */
export const action = {
  unknown: 0,
  /** Belongs to the file's length only. */
  pass: 1,
  rows: 2,
  tableMap: 3,
  mariadbGtid: 4,
  mysqlGtid: 5,
  query: 6,
  xid: 7,
  rotate: 8,
  format: 9,
  heartbeat: 10,
  xaPrepare: 11,
  mariadbGtidList: 12,
  previousGtids: 13,
  loadQuery: 14,
  /** May carry rows in a form that is not read. */
  unreadable: 15,
} as const;

const actions = new Uint8Array(256);
const actionRows: readonly (readonly [number, readonly number[]])[] = [
  // Stop, variables of statements, load data blocks, ignorable, statement texts, group replication's
  // own events, encryption's start.
  [action.pass, [3, 5, 13, 14, 17, 28, 29, 36, 37, 160, 161, 164]],
  [action.rows, [23, 24, 25, 30, 31, 32, 39, 166, 167, 168, 169, 170, 171]],
  [action.tableMap, [19]],
  [action.mariadbGtid, [162]],
  [action.mysqlGtid, [33, 34, 42]],
  [action.query, [2, 165]],
  [action.xid, [16]],
  [action.rotate, [4]],
  [action.format, [15]],
  [action.heartbeat, [27, 41]],
  [action.xaPrepare, [38]],
  [action.mariadbGtidList, [163]],
  [action.previousGtids, [35]],
  [action.loadQuery, [18]],
  // Formats of before MySQL 5.1, incidents, compressed transactions, MariaDB's split rows.
  [action.unreadable, [1, 6, 7, 8, 9, 10, 11, 12, 20, 21, 22, 26, 40, 172]],
];
for (const [what, types] of actionRows) for (const type of types) actions[type] = what;

export function eventTypeAt(buffer: Buffer, start: number): number {
  return buffer[start + 4] ?? 0;
}

export function actionOf(type: number): number {
  return actions[type] ?? action.unknown;
}

export function eventTimestamp(buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start);
}

export function eventServerId(buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start + 5);
}

export function eventLength(buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start + 9);
}

/** End of the event modulo 2^32; 0 where the server does not say. */
export function eventEndLow(buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start + 13);
}

/** Made by the dump for this connection: stands in no file. */
export function isArtificial(buffer: Buffer, start: number): boolean {
  return ((buffer[start + 17] ?? 0) & FLAG_ARTIFICIAL) !== 0;
}

export function isIgnorable(buffer: Buffer, start: number): boolean {
  return ((buffer[start + 17] ?? 0) & FLAG_IGNORABLE) !== 0;
}

/** Whether the event's last four bytes are the CRC-32 of the rest. */
export function checksumFits(buffer: Buffer, start: number, end: number): boolean {
  const body = end - CHECKSUM_BYTES;
  return body >= start + HEADER_BYTES && crc32(buffer.subarray(start, body)) === buffer.readUInt32LE(body);
}

export function unreadableEvent(text: string, hint?: string): AgentError {
  return new AgentError("SOURCE_UNREADABLE", text, hint === undefined ? {} : { hint });
}

/** Rotate: the next file, and where in it. The caller gives the end without checksum. */
export function rotateTarget(buffer: Buffer, start: number, end: number): Position {
  const body = start + HEADER_BYTES;
  const position = buffer.readUInt32LE(body) + buffer.readUInt32LE(body + 4) * 0x1_0000_0000;
  return { file: buffer.toString("utf8", body + 8, end), position };
}

/** Format description: whether the events of this stream end with a CRC-32. */
export function formatHasChecksum(buffer: Buffer, start: number, end: number): boolean {
  // The algorithm's number stands before the event's own checksum, which is there in any case.
  const algorithm = buffer[end - CHECKSUM_BYTES - 1] ?? 0;
  if (algorithm > 1) {
    throw unreadableEvent(`the binlog uses checksum algorithm ${algorithm}, which is not known`);
  }
  return algorithm === 1 && end - start > HEADER_BYTES + 60;
}

/** Format description: set when the file was begun by a start of the server. */
export function formatCreatedSeconds(buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start + HEADER_BYTES + 52);
}

export function xidText(buffer: Buffer, start: number): string {
  const at = start + HEADER_BYTES;
  const high = buffer.readUInt32LE(at + 4);
  return high === 0 ? String(buffer.readUInt32LE(at)) : buffer.readBigUInt64LE(at).toString();
}

/** A 64-bit number: exact as a number where it can be, else a bigint. */
export function uint64(buffer: Buffer, at: number): number | bigint {
  const high = buffer.readUInt32LE(at + 4);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + buffer.readUInt32LE(at) : buffer.readBigUInt64LE(at);
}

export interface QueryEvent {
  /** Default schema of the statement, "" for none. */
  readonly schema: string;
  readonly text: string;
  /** Whether the session's sql_mode had NO_BACKSLASH_ESCAPES. */
  readonly plainBackslash: boolean;
}

/** Query event (also compressed), or the query inside Execute_load_query (`extra` bytes more). */
export function parseQuery(buffer: Buffer, start: number, end: number): QueryEvent {
  const body = start + HEADER_BYTES;
  const type = eventTypeAt(buffer, start);
  const schemaLength = buffer[body + 8] ?? 0;
  const statusLength = buffer.readUInt16LE(body + 11);
  const status = body + (type === 18 ? 26 : 13);
  const schemaStart = status + statusLength;
  const textStart = schemaStart + schemaLength + 1;
  if (textStart > end) throw unreadableEvent("a query event ends too early");
  return {
    schema: buffer.toString("utf8", schemaStart, schemaStart + schemaLength),
    text: type === 165 ? inflateText(buffer, textStart, end) : buffer.toString("utf8", textStart, end),
    plainBackslash: hasPlainBackslash(buffer, status, schemaStart),
  };
}

function hasPlainBackslash(buffer: Buffer, status: number, statusEnd: number): boolean {
  let at = status;
  // Flags (code 0, four bytes) may come first, then sql_mode (code 1, eight bytes).
  if (at < statusEnd && buffer[at] === 0) at += 5;
  return at + 9 <= statusEnd && buffer[at] === 1 && (buffer.readUInt32LE(at + 1) & 0x10_0000) !== 0;
}

function inflateText(buffer: Buffer, at: number, end: number): string {
  const header = buffer[at] ?? 0;
  const lengthBytes = header & 7;
  if ((header & 0xf0) !== 0x80 || lengthBytes < 1 || lengthBytes > 4) {
    throw unreadableEvent("a compressed query event has a header that is not known");
  }
  const length = buffer.readUIntBE(at + 1, lengthBytes);
  try {
    return inflateSync(buffer.subarray(at + 1 + lengthBytes, end), {
      maxOutputLength: Math.max(length, 1),
    }).toString("utf8");
  } catch (cause) {
    throw new AgentError("SOURCE_UNREADABLE", "a compressed query event is damaged", { cause });
  }
}

/** Whether the query is exactly these ASCII words, without making a string of it. */
export function queryIs(buffer: Buffer, start: number, end: number, words: Buffer): boolean {
  const length = words.length;
  const at = end - length;
  if (at < start + HEADER_BYTES + 13 || buffer[at - 1] !== 0) return false;
  for (let index = 0; index < length; index += 1) {
    if (buffer[at + index] !== words[index]) return false;
  }
  // The words end the event; they are the whole query when schema and status fill the rest.
  const body = start + HEADER_BYTES;
  return body + 13 + buffer.readUInt16LE(body + 11) + (buffer[body + 8] ?? 0) + 1 === at;
}
