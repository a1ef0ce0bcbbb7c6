/** MySQL's binary JSON, from documents that an encoder of our own makes. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { AgentError } from "../../../agent/kernel/errors.ts";
import { jsonText } from "../../../agent/source/decode/binary-json.ts";
import { Random } from "./random.ts";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);

/** A stored value: its kind and its bytes. */
interface Stored {
  readonly kind: number;
  readonly bytes: Buffer;
}

const number = (kind: number, length: number, write: (bytes: Buffer) => void): Stored => {
  const bytes = Buffer.alloc(length);
  write(bytes);
  return { kind, bytes };
};

function sized(bytes: Buffer): Buffer {
  const length: number[] = [];
  let left = bytes.length;
  do {
    length.push((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
    left >>= 7;
  } while (left > 0);
  return Buffer.concat([Buffer.from(length), bytes]);
}

const string = (text: string): Stored => ({ kind: 12, bytes: sized(Buffer.from(text)) });
const opaque = (type: number, bytes: Buffer): Stored => ({
  kind: 15,
  bytes: Buffer.concat([Buffer.from([type]), sized(bytes)]),
});

/** A container as the server lays it out: counts, key entries, value entries, keys, values. */
function container(keys: readonly string[] | null, values: readonly Stored[], isLarge: boolean): Stored {
  const width = isLarge ? 4 : 2;
  const writeUint = (into: Buffer, value: number, at: number): void => {
    into.writeUIntLE(value, at, width);
  };
  const keyEntries = keys === null ? 0 : keys.length * (width + 2);
  const head = Buffer.alloc(2 * width + keyEntries + values.length * (width + 1));
  const tail: Buffer[] = [];
  let end = head.length;
  keys?.forEach((key, index) => {
    const bytes = Buffer.from(key);
    writeUint(head, end, 2 * width + index * (width + 2));
    head.writeUInt16LE(bytes.length, 2 * width + index * (width + 2) + width);
    tail.push(bytes);
    end += bytes.length;
  });
  values.forEach(({ kind, bytes }, index) => {
    const at = 2 * width + keyEntries + index * (width + 1);
    head.writeUInt8(kind, at);
    const isInline = kind === 4 || kind === 5 || kind === 6 || (isLarge && (kind === 7 || kind === 8));
    if (isInline) {
      bytes.copy(head, at + 1);
    } else {
      writeUint(head, end, at + 1);
      tail.push(bytes);
      end += bytes.length;
    }
  });
  writeUint(head, values.length, 0);
  writeUint(head, end, width);
  const objectKind = isLarge ? 1 : 0;
  return { kind: keys === null ? objectKind + 2 : objectKind, bytes: Buffer.concat([head, ...tail]) };
}

const document = ({ kind, bytes }: Stored): Buffer => Buffer.concat([Buffer.from([kind]), bytes]);
const literal = (value: number): Stored => ({ kind: 4, bytes: Buffer.from([value]) });
const int16 = (value: number): Stored => number(5, 2, (bytes) => bytes.writeInt16LE(value));

test("prints scalars as the server does", () => {
  const cases: [Stored, string][] = [
    [literal(0), "null"],
    [literal(1), "true"],
    [literal(2), "false"],
    [int16(-5), "-5"],
    [number(6, 2, (bytes) => bytes.writeUInt16LE(65_535)), "65535"],
    [number(7, 4, (bytes) => bytes.writeInt32LE(-2_147_483_648)), "-2147483648"],
    [number(8, 4, (bytes) => bytes.writeUInt32LE(4_294_967_295)), "4294967295"],
    [number(9, 8, (bytes) => bytes.writeBigInt64LE(-(2n ** 63n))), "-9223372036854775808"],
    [number(10, 8, (bytes) => bytes.writeBigUInt64LE(2n ** 64n - 1n)), "18446744073709551615"],
    [number(11, 8, (bytes) => bytes.writeDoubleLE(1)), "1.0"],
    [number(11, 8, (bytes) => bytes.writeDoubleLE(0.1)), "0.1"],
    [number(11, 8, (bytes) => bytes.writeDoubleLE(-0)), "-0.0"],
    [string('quo"te\n'), '"quo\\"te\\n"'],
    [string("x".repeat(300)), `"${"x".repeat(300)}"`],
    [opaque(252, Buffer.from("abc")), '"base64:type252:YWJj"'],
  ];
  for (const [stored, text] of cases) {
    assert.equal(jsonText(document(stored)), text);
  }
  assert.equal(jsonText(Buffer.alloc(0)), "null");
});

test("prints decimals and temporals exactly", () => {
  // DECIMAL(6,2): 4 whole digits in two bytes, 2 digits in one.
  assert.equal(jsonText(document(opaque(246, Buffer.from([6, 2, 0x84, 0xd2, 56])))), "1234.56");
  const packed = (value: bigint): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return bytes;
  };
  const datetime = ((BigInt(2026 * 13 + 11) << 5n) | 23n) << 17n;
  const clock = (20n << 12n) | (33n << 6n) | 6n;
  assert.equal(
    jsonText(document(opaque(12, packed(((datetime | clock) << 24n) | 123_456n)))),
    '"2026-11-23 20:33:06.123456"',
  );
  assert.equal(jsonText(document(opaque(10, packed(datetime << 24n)))), '"2026-11-23"');
  assert.equal(jsonText(document(opaque(11, packed((clock << 24n) | 5n)))), '"20:33:06.000005"');
  assert.equal(jsonText(document(opaque(11, packed(-(clock << 24n))))), '"-20:33:06.000000"');
});

test("prints objects and arrays, small and large, in stored order", () => {
  for (const isLarge of [false, true]) {
    const inner = container(
      null,
      [int16(1), string("two"), number(7, 4, (bytes) => bytes.writeInt32LE(70_000))],
      isLarge,
    );
    const outer = container(["a", "bü", "c"], [inner, literal(1), container([], [], false)], isLarge);
    assert.equal(jsonText(document(outer)), '{"a": [1, "two", 70000], "bü": true, "c": {}}');
  }
});

test("throws on every truncation and never hangs on flipped bytes", () => {
  const random = new Random(seed);
  const whole = document(
    container(
      ["key", "other"],
      [
        container(null, [string("text"), int16(3)], false),
        number(11, 8, (bytes) => bytes.writeDoubleLE(2.5)),
      ],
      false,
    ),
  );
  assert.equal(jsonText(whole), '{"key": ["text", 3], "other": 2.5}');
  for (let length = 1; length < whole.length; length++) {
    assert.throws(() => jsonText(whole.subarray(0, length)), AgentError, `cut to ${length}`);
  }
  let refused = 0;
  for (let round = 0; round < 5000; round++) {
    const bytes = Buffer.from(whole);
    bytes[random.below(bytes.length)] = random.below(256);
    try {
      assert.equal(typeof jsonText(bytes), "string");
    } catch (error) {
      assert.ok(error instanceof AgentError && error.code === "SOURCE_UNREADABLE");
      refused++;
    }
  }
  assert.ok(refused > 0);
});

test("refuses documents that point into themselves without end", () => {
  // An array of one array that stands at its own start.
  const loop = document(container(null, [literal(0)], false));
  loop.writeUInt8(2, 5);
  loop.writeUInt16LE(0, 6);
  assert.throws(() => jsonText(loop), AgentError);
});
