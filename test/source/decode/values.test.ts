/** Values from hand-made bytes: decimals, numbers, dates, text. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { AgentError } from "../../../agent/kernel/errors.ts";
import { bytesPerCharacter, charsetOfCollation } from "../../../agent/source/decode/collations.ts";
import { parseColumnType } from "../../../agent/source/decode/column-definition.ts";
import * as numbers from "../../../agent/source/decode/numbers.ts";
import * as temporal from "../../../agent/source/decode/temporal.ts";
import { textReader } from "../../../agent/source/decode/text.ts";
import { Random } from "./random.ts";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);

const unreadable = (error: unknown): boolean =>
  error instanceof AgentError && error.code === "SOURCE_UNREADABLE";

function noted(): { notes: { note(what: string): void }; seen: string[] } {
  const seen: string[] = [];
  return { notes: { note: (what) => seen.push(what) }, seen };
}

/** The server's binary DECIMAL, made in the plainest way. */
function storedDecimal(text: string, precision: number, scale: number): Buffer {
  const isNegative = text.startsWith("-");
  const [whole = "", fraction = ""] = text.replace("-", "").split(".");
  const bytes: number[] = [];
  const push = (digits: string): void => {
    const length = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4][digits.length] ?? 0;
    const number = Number(digits);
    for (let index = length - 1; index >= 0; index--) bytes.push(Math.floor(number / 256 ** index) % 256);
  };
  const wholeDigits = whole.padStart(precision - scale, "0").slice(-(precision - scale) || precision + 1);
  const first = (precision - scale) % 9;
  if (first > 0) push(wholeDigits.slice(0, first));
  for (let at = first; at < precision - scale; at += 9) push(wholeDigits.slice(at, at + 9));
  const fractionDigits = fraction.padEnd(scale, "0");
  for (let at = 0; at < scale; at += 9) push(fractionDigits.slice(at, at + 9));
  const stored = Buffer.from(isNegative ? bytes.map((byte) => byte ^ 0xff) : bytes);
  stored[0] = (stored[0] ?? 0) ^ 0x80;
  return stored;
}

test("reads back every decimal of every precision and scale", () => {
  const random = new Random(seed);
  for (let precision = 1; precision <= 65; precision++) {
    for (let scale = 0; scale <= Math.min(precision, 38); scale++) {
      const read = numbers.decimalReader(precision, scale);
      for (const digits of [
        "9".repeat(precision),
        "0".repeat(precision - 1).concat("1"),
        random.digits(precision),
        random.digits(precision),
      ]) {
        const whole = digits.slice(0, precision - scale).replace(/^0+/, "") || "0";
        const plain = scale === 0 ? whole : `${whole}.${digits.slice(precision - scale)}`;
        const text = /[1-9]/.test(plain) ? random.pick(["", "-"]) + plain : plain;
        const stored = storedDecimal(text, precision, scale);
        assert.equal(stored.length, numbers.decimalLength(precision, scale));
        assert.equal(
          read(Buffer.concat([Buffer.from("??"), stored]), 2),
          text,
          `DECIMAL(${precision},${scale}), seed ${seed}`,
        );
      }
    }
  }
});

test("refuses a decimal with digits that cannot be", () => {
  assert.throws(() => numbers.decimalReader(9, 0)(Buffer.from("ffffffff", "hex"), 0), unreadable);
  assert.throws(() => numbers.decimalReader(20, 10)(Buffer.alloc(10, 0xff), 0), unreadable);
  assert.throws(() => numbers.decimalReader(66, 0), unreadable);
});

test("gives 64-bit integers as exact text", () => {
  const random = new Random(seed);
  const values = [0n, 1n, -1n, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) - 1n, 2n ** 63n - 1n, -(2n ** 63n)];
  for (let round = 0; round < 1000; round++)
    values.push(random.bytes(8).readBigInt64LE() >> BigInt(random.below(64)));
  for (const value of values) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    assert.equal(numbers.bigintText(bytes, 0), value.toString());
    assert.equal(numbers.bigintUnsignedText(bytes, 0), BigInt.asUintN(64, value).toString());
  }
});

test("gives a FLOAT whose JSON text reads back to the same float, and is the shortest such", () => {
  const random = new Random(seed);
  for (let round = 0; round < 20_000; round++) {
    const bytes = random.bytes(4);
    const exact = bytes.readFloatLE();
    if (!Number.isFinite(exact)) {
      assert.throws(() => numbers.floatNumber(bytes, 0), unreadable);
      continue;
    }
    const value = numbers.floatNumber(bytes, 0);
    assert.equal(Math.fround(Number(JSON.stringify(value))), exact === 0 ? 0 : exact);
    const digits = value.toExponential().replace(/e.*|[-.]/g, "").length;
    if (digits > 1 && !Number.isInteger(value))
      assert.notEqual(Math.fround(Number(exact.toPrecision(digits - 1))), exact);
  }
});

test("gives null and counts it for dates that no calendar has", () => {
  for (const [year, month, day] of [
    [0, 0, 0],
    [2026, 0, 5],
    [2026, 5, 0],
    [2026, 2, 31],
    [1900, 2, 29],
  ] as const) {
    const { notes, seen } = noted();
    const bytes = Buffer.alloc(3);
    bytes.writeUIntLE((year << 9) | (month << 5) | day, 0, 3);
    assert.equal(temporal.readDate(bytes, 0, notes), null);
    assert.equal(temporal.readDate(bytes, 0, notes), null);
    assert.deepEqual(seen, ["zero_date", "zero_date"]);
  }
  const { notes, seen } = noted();
  assert.equal(temporal.timestamp2Reader(3)(Buffer.alloc(6), 0, notes), null);
  assert.equal(temporal.readTimestamp(Buffer.alloc(4), 0, notes), null);
  assert.deepEqual(seen, ["zero_date", "zero_date"]);
});

test("reads every day from 1970 to 2106 as JavaScript's calendar has it", () => {
  const { notes, seen } = noted();
  const read = temporal.timestamp2Reader(0);
  const bytes = Buffer.alloc(4);
  for (let seconds = 1; seconds < 0x100000000; seconds += 86_399) {
    bytes.writeUInt32BE(seconds);
    assert.equal(read(bytes, 0, notes), new Date(seconds * 1000).toISOString().replace(".000", ""));
  }
  assert.deepEqual(seen, []);
});

test("refuses times of day that cannot be", () => {
  const { notes } = noted();
  const hour31 = Buffer.from("99b8dff000", "hex");
  assert.throws(() => temporal.datetime2Reader(0)(hour31, 0, notes), unreadable);
  assert.throws(() => temporal.datetime2Reader(0)(Buffer.alloc(5), 0, notes), unreadable);
  assert.throws(() => temporal.time2Reader(0)(Buffer.from("80ffff", "hex"), 0, notes), unreadable);
  assert.throws(
    () => temporal.timestamp2Reader(6)(Buffer.from("00000001ffffff", "hex"), 0, notes),
    unreadable,
  );
});

test("decodes valid text and keeps the bytes of invalid text", () => {
  const read = (charset: string, hex: string): unknown => {
    const bytes = Buffer.from(hex, "hex");
    return textReader(charset)?.(bytes, 0, bytes.length, noted().notes);
  };
  assert.equal(read("utf8mb4", Buffer.from("🛒\uFFFD").toString("hex")), "🛒\uFFFD");
  assert.equal(read("latin1", "80e481"), "€ä\u0081");
  assert.equal(read("utf16", "d83dded2"), "\u{1F6D2}");
  assert.equal(read("utf16le", "3dd8d2de"), "\u{1F6D2}");
  assert.equal(read("utf32", "0001f6d2"), "\u{1F6D2}");
  assert.equal(read("swe7", "5b41"), "ÄA");
  assert.deepEqual(read("utf8mb4", "61ff"), { text: "a\uFFFD", base64: "Yf8=" });
  assert.deepEqual(read("utf16", "d83d"), { text: "\uFFFD", base64: "2D0=" });
  assert.deepEqual(read("ucs2", "006161"), { text: "a\uFFFD", base64: "AGFh" });
  assert.deepEqual(read("utf32", "00110000"), { text: "\uFFFD", base64: "ABEAAA==" });
  assert.deepEqual(read("ascii", "6180"), { text: "a\uFFFD", base64: "YYA=" });
  assert.equal(textReader("klingon"), null);
});

test("knows the character set of a collation, and never guesses", () => {
  assert.equal(charsetOfCollation(8), "latin1");
  assert.equal(charsetOfCollation(45), "utf8mb4");
  assert.equal(charsetOfCollation(255), "utf8mb4");
  assert.equal(charsetOfCollation(2304), "utf8mb4");
  assert.equal(charsetOfCollation(9999), null);
  assert.equal(bytesPerCharacter("klingon"), 0);
});

test("takes a column's definition apart", () => {
  const parsed = parseColumnType("enum('unsigned','it''s','a\\\\b',')')");
  assert.deepEqual(parsed.members, ["unsigned", "it's", "a\\b", ")"]);
  assert.equal(parsed.unsigned, false);
  assert.deepEqual(parseColumnType("decimal(20,4) unsigned").numbers, [20, 4]);
  assert.equal(parseColumnType("int(10) unsigned").unsigned, true);
  assert.equal(parseColumnType("datetime(3) /* mariadb-5.3 */").numbers[0], 3);
});
