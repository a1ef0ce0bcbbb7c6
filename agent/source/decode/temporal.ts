/**
 * Dates and times. DATETIME and TIMESTAMP become RFC 3339 in UTC, DATE YYYY-MM-DD, TIME the
 * server's own text. Dates that no calendar has (zero, partial, 31 February) become null and are
 * counted.
 */
import { type OddityNotes, unreadable } from "./wire.ts";

/** Reads one value; the caller guarantees that the column's bytes are there. */
export type TemporalReader = (buffer: Buffer, start: number, notes: OddityNotes) => string | null;

const twoDigits = Array.from({ length: 100 }, (_, value) => String(value).padStart(2, "0"));
/** "HH:MM:" by minute of the day, and "SSZ" and "SS." by second. */
const minuteTexts = Array.from({ length: 1440 }, (_, m) => `${two(Math.floor(m / 60))}:${two(m % 60)}:`);
const secondTexts = twoDigits.slice(0, 60).map((text) => `${text}Z`);
const fractionPowers = [1_000_000, 100_000, 10_000, 1000, 100, 10, 1];

function two(value: number): string {
  return twoDigits[value] ?? String(value);
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) {
    return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0 ? 29 : 28;
  }
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

const DATE_CACHE_SIZE = 4096;
const cachedDays = new Int32Array(DATE_CACHE_SIZE).fill(-1);
const cachedDates: string[] = Array.from({ length: DATE_CACHE_SIZE }, () => "");

/** YYYY-MM-DD, or null and one oddity when the calendar has no such day. Shops repeat few days. */
export function dateText(year: number, month: number, day: number, notes: OddityNotes): string | null {
  const key = (year << 9) | (month << 5) | day;
  const slot = key & (DATE_CACHE_SIZE - 1);
  if (cachedDays[slot] === key) {
    return cachedDates[slot] ?? null;
  }
  if (month > 12 || year > 9999) {
    throw unreadable("a stored date cannot be");
  }
  if (month === 0 || day === 0 || day > daysInMonth(year, month)) {
    notes.note("zero_date");
    return null;
  }
  const text = `${String(year).padStart(4, "0")}-${two(month)}-${two(day)}`;
  cachedDays[slot] = key;
  cachedDates[slot] = text;
  return text;
}

function secondsText(second: number, micros: number, digits: number): string {
  if (digits === 0) {
    return secondTexts[second] ?? "";
  }
  return `${two(second)}.${fractionText(micros, digits)}Z`;
}

function fractionText(micros: number, digits: number): string {
  return String(Math.floor(micros / (fractionPowers[digits] ?? 1))).padStart(digits, "0");
}

/** DATE: three bytes, little-endian. */
export function readDate(buffer: Buffer, start: number, notes: OddityNotes): string | null {
  const raw = buffer.readUIntLE(start, 3);
  return dateText(raw >> 9, (raw >> 5) & 15, raw & 31, notes);
}

/** Bytes of a second's fraction in the formats of MySQL 5.6 and later. */
export function fractionLength(digits: number): number {
  return (digits + 1) >> 1;
}

function readMicros(buffer: Buffer, start: number, digits: number): number {
  switch (fractionLength(digits)) {
    case 0:
      return 0;
    case 1:
      return checkedMicros(buffer.readUInt8(start) * 10_000);
    case 2:
      return checkedMicros(buffer.readUInt16BE(start) * 100);
    default:
      return checkedMicros(buffer.readUIntBE(start, 3));
  }
}

function checkedMicros(micros: number): number {
  if (micros > 999_999) {
    throw unreadable("a stored time has a fraction that cannot be");
  }
  return micros;
}

/** DATETIME since MySQL 5.6: 5 bytes big-endian (a set sign bit, year and month, ...), fraction. */
export function datetime2Reader(digits: number): TemporalReader {
  return (buffer, start, notes) => {
    const high = buffer.readUInt32BE(start);
    const low = buffer.readUInt8(start + 4);
    const yearMonth = (high >>> 14) & 0x1ffff;
    const hour = (high >>> 4) & 31;
    const minute = ((high & 15) << 2) | (low >> 6);
    const second = low & 63;
    if (high >>> 31 === 0 || hour > 23 || minute > 59 || second > 59) {
      throw unreadable("a stored DATETIME cannot be");
    }
    const year = Math.floor(yearMonth / 13);
    const date = dateText(year, yearMonth - year * 13, (high >>> 9) & 31, notes);
    if (date === null) {
      return null;
    }
    const micros = readMicros(buffer, start + 5, digits);
    return `${date}T${minuteTexts[hour * 60 + minute] ?? ""}${secondsText(second, micros, digits)}`;
  };
}

/** Seconds since 1970 as RFC 3339; 0 is the server's zero date. */
function epochText(seconds: number, micros: number, digits: number, notes: OddityNotes): string | null {
  if (seconds === 0 && micros === 0) {
    notes.note("zero_date");
    return null;
  }
  const day = Math.floor(seconds / 86_400);
  const rest = seconds - day * 86_400;
  const minute = Math.floor(rest / 60);
  return `${dayText(day)}T${minuteTexts[minute] ?? ""}${secondsText(rest - minute * 60, micros, digits)}`;
}

/** YYYY-MM-DD by days since 1970: at most some 49,710 of them exist, few are met. */
const dayTexts = new Map<number, string>();

function dayText(day: number): string {
  const known = dayTexts.get(day);
  if (known !== undefined) {
    return known;
  }
  const text = new Date(day * 86_400_000).toISOString().slice(0, 10);
  dayTexts.set(day, text);
  return text;
}

/** TIMESTAMP since MySQL 5.6: big-endian seconds, fraction. */
export function timestamp2Reader(digits: number): TemporalReader {
  return (buffer, start, notes) =>
    epochText(buffer.readUInt32BE(start), readMicros(buffer, start + 4, digits), digits, notes);
}

/** TIMESTAMP before MySQL 5.6. */
export function readTimestamp(buffer: Buffer, start: number, notes: OddityNotes): string | null {
  return epochText(buffer.readUInt32LE(start), 0, 0, notes);
}

/** DATETIME before MySQL 5.6: YYYYMMDDhhmmss as one number. */
export function readDatetime(buffer: Buffer, start: number, notes: OddityNotes): string | null {
  const raw = buffer.readUInt32LE(start) + buffer.readUInt32LE(start + 4) * 0x100000000;
  if (!Number.isSafeInteger(raw)) {
    throw unreadable("a stored DATETIME cannot be");
  }
  const date = Math.floor(raw / 1_000_000);
  const time = raw - date * 1_000_000;
  return join(
    [Math.floor(date / 10_000), Math.floor(date / 100) % 100, date % 100],
    [Math.floor(time / 10_000), Math.floor(time / 100) % 100, time % 100],
    null,
    notes,
  );
}

type Three = readonly [number, number, number];

function join(
  [year, month, day]: Three,
  [hour, minute, second]: Three,
  fraction: string | null,
  notes: OddityNotes,
): string | null {
  if (hour > 23 || minute > 59 || second > 59 || day > 31) {
    throw unreadable("a stored DATETIME cannot be");
  }
  const date = dateText(year, month, day, notes);
  const tail = fraction === null ? "Z" : `.${fraction}Z`;
  return date === null ? null : `${date}T${two(hour)}:${two(minute)}:${two(second)}${tail}`;
}

/** TIME since MySQL 5.6: a biased big-endian number of 24 bits and its fraction. */
export function time2Reader(digits: number): TemporalReader {
  const bytes = fractionLength(digits);
  const unit = 256 ** bytes;
  const microsPerUnit = [1, 10_000, 100, 1][bytes] ?? 1;
  return (buffer, start) => {
    const biased = buffer.readUIntBE(start, 3 + bytes) - 0x800000 * unit;
    const absolute = Math.abs(biased);
    const whole = Math.floor(absolute / unit);
    const micros = (absolute - whole * unit) * microsPerUnit;
    const seconds = (whole >> 12) * 3600 + ((whole >> 6) & 63) * 60 + (whole & 63);
    if (whole >> 22 !== 0 || ((whole >> 6) & 63) > 59 || (whole & 63) > 59) {
      throw unreadable("a stored TIME cannot be");
    }
    return timeText(biased < 0, seconds, digits === 0 ? null : fractionText(checkedMicros(micros), digits));
  };
}

function timeText(isNegative: boolean, seconds: number, fraction: string | null): string {
  const text = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return (isNegative ? "-" : "") + (fraction === null ? text : `${text}.${fraction}`);
}

/** TIME before MySQL 5.6: hhmmss as a signed number of three bytes. */
export function readTime(buffer: Buffer, start: number): string {
  const raw = buffer.readIntLE(start, 3);
  const absolute = Math.abs(raw);
  const minute = Math.floor(absolute / 100) % 100;
  if (minute > 59 || absolute % 100 > 59) {
    throw unreadable("a stored TIME cannot be");
  }
  return timeText(raw < 0, Math.floor(absolute / 10_000) * 3600 + minute * 60 + (absolute % 100), null);
}

// MariaDB 5.3's formats with fractions. They stand in the stream under the old type codes without
// a word about it; only the table's definition tells them apart.

const hiresTimeBytes = [3, 4, 4, 5, 5, 5, 6];
const hiresDatetimeBytes = [8, 6, 6, 7, 7, 7, 8];
const hiresFractionBytes = [0, 1, 1, 2, 2, 3, 3];

/** Bytes of MariaDB 5.3's TIME, DATETIME and TIMESTAMP with `digits` (1 to 6) of a fraction. */
export function hiresLength(kind: "time" | "datetime" | "timestamp", digits: number): number {
  if (kind === "timestamp") {
    return 4 + (hiresFractionBytes[digits] ?? 0);
  }
  return (kind === "time" ? hiresTimeBytes[digits] : hiresDatetimeBytes[digits]) ?? 0;
}

export function hiresTimestampReader(digits: number): TemporalReader {
  const bytes = hiresFractionBytes[digits] ?? 0;
  return (buffer, start, notes) => {
    const micros = buffer.readUIntBE(start + 4, bytes) * (fractionPowers[digits] ?? 1);
    return epochText(buffer.readUInt32BE(start), checkedMicros(micros), digits, notes);
  };
}

export function hiresTimeReader(digits: number): TemporalReader {
  const scale = 10 ** digits;
  const bytes = hiresTimeBytes[digits] ?? 0;
  return (buffer, start) => {
    // Biased by one second more than the largest TIME, 838:59:59.
    const units = buffer.readUIntBE(start, bytes) - 3_020_400 * scale;
    const absolute = Math.abs(units);
    const fraction = String(absolute % scale).padStart(digits, "0");
    return timeText(units < 0, Math.floor(absolute / scale), fraction);
  };
}

export function hiresDatetimeReader(digits: number): TemporalReader {
  const scale = BigInt(10 ** digits);
  const bytes = hiresDatetimeBytes[digits] ?? 0;
  return (buffer, start, notes) => {
    let packed = 0n;
    for (let at = start; at < start + bytes; at++) {
      packed = (packed << 8n) | BigInt(buffer.readUInt8(at));
    }
    const fraction = (packed % scale).toString().padStart(digits, "0");
    let rest = Number(packed / scale);
    const next = (radix: number): number => {
      const digit = rest % radix;
      rest = Math.floor(rest / radix);
      return digit;
    };
    const second = next(60);
    const minute = next(60);
    const hour = next(24);
    const day = next(32);
    const month = next(13);
    return join([rest, month, day], [hour, minute, second], fraction, notes);
  };
}
