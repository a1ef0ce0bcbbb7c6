import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EntryKeys, type Part, readChildKey, readLookup } from "../../agent/transform/index-entry.ts";
import { Random, runSeed } from "../oracle/random.ts";

const keys = new EntryKeys();

const corners: readonly Part[] = [
  0,
  1,
  255,
  256,
  2 ** 32,
  Number.MAX_SAFE_INTEGER,
  -1,
  1.5,
  "",
  "0",
  "00",
  "-1",
  "255",
  "999999999999999",
  "9007199254740993",
  "18446744073709551615",
  "18446744073709551616",
  "WS-12/XL:Blue",
  "Größe ☃ 😀",
  "\ud800",
  "x".repeat(3000),
  { json: '{"a":1}' },
  { text: "�", base64: "/w==" },
];

describe("entries of the index on disk", () => {
  it("give back every kind of value as it was, in number and type", () => {
    for (const parent of corners) {
      const child = [...corners];
      assert.deepEqual(readChildKey(keys.child(7, parent, child)), { relation: 7, parent, child });
      const read = readLookup(keys.lookup(7, child), keys.lookupValue(1, parent));
      assert.deepEqual(read, { relation: 7, parent, child });
    }
  });

  it("have the same bytes for ever", () => {
    const hex = (key: Buffer, ...parts: readonly string[]): void =>
      assert.equal(key.toString("hex"), parts.join(""));
    hex(keys.child(3, 5000, [70_000]), "0103", "121388", "13011170");
    hex(keys.child(5, 0, [1, "12"]), "0105", "10", "1101", "210c");
    hex(keys.lookup(7, [42]), "0207", "112a");
    hex(keys.lookupValue(0x01020304, "A-1"), "01020304", "400003412d31");
    hex(keys.child(6, -2, ["18446744073709551615"]), "0106", "30022d32", "28ffffffffffffffff");
  });

  it("of one parent have a prefix that those of no other have, and no two are the same", () => {
    const random = new Random(runSeed());
    const seen = new Map<string, string>();
    for (let round = 0; round < 2_000; round += 1) {
      const [parent, other] = [partOf(random), partOf(random)];
      const child = [partOf(random), partOf(random)];
      const key = keys.child(1, parent, child);
      const isOwn = key.subarray(0, keys.childrenOf(1, other).length).equals(keys.childrenOf(1, other));
      assert.equal(isOwn, JSON.stringify(parent) === JSON.stringify(other));
      const text = JSON.stringify([parent, child]);
      const known = seen.get(key.toString("hex"));
      assert.ok(known === undefined || known === text);
      seen.set(key.toString("hex"), text);
    }
  });

  it("that end in the middle are refused", () => {
    const key = keys.child(1, 5000, ["abc"]);
    for (let end = 3; end < key.length; end += 1) {
      if (end === 5) continue;
      assert.throws(() => readChildKey(key.subarray(0, end)), RangeError, `${end} bytes`);
    }
  });
});

function partOf(random: Random): Part {
  if (random.chance(0.3)) return random.pick(corners);
  return random.chance(0.5) ? random.int(0, 70_000) : String(random.int(0, 3_000));
}
