/** Exact numbers: DECIMAL and BIGINT as text, FLOAT as the shortest number that reads back. */
import { unreadable } from "./wire.ts";

/** Bytes that 0 to 9 decimal digits take. */
const digitBytes = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const powers = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
const GROUP = 1_000_000_000;

/** Bytes of a stored DECIMAL(precision, scale). */
export function decimalLength(precision: number, scale: number): number {
  const whole = precision - scale;
  const bytes = (digits: number): number => Math.floor(digits / 9) * 4 + (digitBytes[digits % 9] ?? 0);
  return bytes(whole) + bytes(scale);
}

export type DecimalReader = (buffer: Buffer, start: number) => string;

/**
 * A reader for one precision and scale: exact text with all of the scale's digits, as the server
 * prints it. The caller guarantees that `decimalLength` bytes are there.
 */
export function decimalReader(precision: number, scale: number): DecimalReader {
  if (precision < 1 || precision > 65 || scale > precision) {
    throw unreadable(`DECIMAL(${precision},${scale}) cannot be`);
  }
  const wholeGroups = Math.floor((precision - scale) / 9);
  // Up to 15 digits before the point and 4 after it: both halves are small exact numbers.
  if (precision - scale <= 15 && scale <= 4) {
    return shortDecimalReader(precision - scale, scale);
  }
  const firstDigits = (precision - scale) % 9;
  const lastDigits = scale % 9;
  return (buffer, start) => {
    const mask = ((buffer[start] ?? 0) & 0x80) === 0 ? 0xff : 0;
    let at = start;
    let whole = "";
    const take = (digits: number): number => {
      const bytes = digitBytes[digits] ?? 0;
      let value = 0;
      for (const end = at + bytes; at < end; at++) {
        // The sign bit is flipped, and every bit of a negative number.
        value = value * 256 + ((buffer[at] ?? 0) ^ (at === start ? mask ^ 0x80 : mask));
      }
      return checked(value, digits);
    };
    if (firstDigits > 0) {
      whole = String(take(firstDigits));
    }
    for (let group = 0; group < wholeGroups; group++) {
      const value = take(9);
      whole = whole === "" || whole === "0" ? String(value) : whole + padded(value, 9);
    }
    let fraction = "";
    for (let left = scale - lastDigits; left > 0; left -= 9) {
      fraction += padded(take(9), 9);
    }
    if (lastDigits > 0) {
      fraction += padded(take(lastDigits), lastDigits);
    }
    const text = (whole === "" ? "0" : whole) + (scale > 0 ? `.${fraction}` : "");
    return mask === 0 || !/[1-9]/.test(text) ? text : `-${text}`;
  };
}

function checked(value: number, digits: number): number {
  if (value >= (powers[digits] ?? 0)) {
    throw unreadable("a stored DECIMAL has digits that cannot be");
  }
  return value;
}

function padded(value: number, digits: number): string {
  return String(value).padStart(digits, "0");
}

/** ".0" to ".9999" by scale, made when first met. */
const fractions: string[][] = [[], [], [], [], []];

function fractionText(value: number, scale: number): string {
  const known = fractions[scale]?.[value];
  if (known !== undefined) {
    return known;
  }
  const text = `.${padded(value, scale)}`;
  const texts = fractions[scale];
  if (texts !== undefined) {
    texts[value] = text;
  }
  return text;
}

function shortDecimalReader(wholeDigits: number, scale: number): DecimalReader {
  const firstDigits = wholeDigits % 9;
  const firstBytes = digitBytes[firstDigits] ?? 0;
  const hasGroup = wholeDigits >= 9;
  const fractionBytes = digitBytes[scale] ?? 0;
  const firstPower = powers[firstDigits] ?? 1;
  const fractionPower = powers[scale] ?? 1;
  return (buffer, start) => {
    const mask = ((buffer[start] ?? 0) & 0x80) === 0 ? 0xff : 0;
    let at = start;
    let byteMask = mask ^ 0x80;
    let whole = 0;
    for (const end = at + firstBytes; at < end; at++) {
      whole = whole * 256 + ((buffer[at] ?? 0) ^ byteMask);
      byteMask = mask;
    }
    let isPossible = whole < firstPower;
    if (hasGroup) {
      let group = 0;
      for (const end = at + 4; at < end; at++) {
        group = group * 256 + ((buffer[at] ?? 0) ^ byteMask);
        byteMask = mask;
      }
      isPossible &&= group < GROUP;
      whole = whole * GROUP + group;
    }
    let fraction = 0;
    for (const end = at + fractionBytes; at < end; at++) {
      fraction = fraction * 256 + ((buffer[at] ?? 0) ^ byteMask);
      byteMask = mask;
    }
    if (!isPossible || fraction >= fractionPower) {
      throw unreadable("a stored DECIMAL has digits that cannot be");
    }
    const text = scale === 0 ? String(whole) : String(whole) + fractionText(fraction, scale);
    return mask === 0 || (whole === 0 && fraction === 0) ? text : `-${text}`;
  };
}

/** BIGINT UNSIGNED as exact text. */
export function bigintUnsignedText(buffer: Buffer, start: number): string {
  const low = buffer.readUInt32LE(start);
  const high = buffer.readUInt32LE(start + 4);
  if (high < 0x200000) {
    return String(high * 0x100000000 + low);
  }
  return ((BigInt(high) << 32n) | BigInt(low)).toString();
}

/** BIGINT as exact text. */
export function bigintText(buffer: Buffer, start: number): string {
  const low = buffer.readUInt32LE(start);
  const high = buffer.readInt32LE(start + 4);
  if (high < 0x200000 && high >= -0x200000) {
    return String(high * 0x100000000 + low);
  }
  return ((BigInt(high) << 32n) | BigInt(low)).toString();
}

/** The number with the shortest text that still is the same 32-bit float when read back. */
export function floatNumber(buffer: Buffer, start: number): number {
  const exact = buffer.readFloatLE(start);
  if (!Number.isFinite(exact)) {
    throw unreadable("a stored FLOAT is no number");
  }
  if (Number.isInteger(exact) && Math.abs(exact) < 0x1000000) {
    return exact;
  }
  // Six digits always survive in a normal float; subnormal ones have fewer.
  for (let digits = Math.abs(exact) < 1.2e-38 ? 1 : 6; digits < 9; digits++) {
    const short = Number(exact.toPrecision(digits));
    if (Math.fround(short) === exact) {
      return short;
    }
  }
  return Number(exact.toPrecision(9));
}

/** DOUBLE. */
export function doubleNumber(buffer: Buffer, start: number): number {
  const value = buffer.readDoubleLE(start);
  if (!Number.isFinite(value)) {
    throw unreadable("a stored DOUBLE is no number");
  }
  return value;
}

/** Big-endian bytes as exact text: BIT columns of more than 53 bits. */
export function bigEndianText(buffer: Buffer, start: number, end: number): string {
  let value = 0n;
  for (let at = start; at < end; at++) {
    value = (value << 8n) | BigInt(buffer[at] ?? 0);
  }
  return value.toString();
}
