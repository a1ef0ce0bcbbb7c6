import assert from "node:assert/strict";
import { test } from "node:test";
import { readTag, readTaggedGtid } from "../../agent/source/gtid-tagged.ts";

// As MySQL 9.7 wrote it.
const recorded = Buffer.from(
  "028800000002a90319031903c69d03310222c503fd029c04f103000000020404061c7265645f6c6f6e6765725f74616708080a180c7f66498d15f960061085041283120b",
  "hex",
);

test("reads a tagged GTID as the server wrote it", () => {
  const { uuid, ...rest } = readTaggedGtid(recorded, 0, recorded.length);
  assert.equal(uuid.toString("hex"), "eac6c663e78c11f1bf4e02fc00000001");
  assert.deepEqual(rest, { tag: "red_longer_tag", number: 1, commitMicros: 1_795_472_784_968_038n });
});

test("takes the time at the server that made the transaction, where there is one", () => {
  // Field 7 behind field 6: the number 5 in one byte.
  const at = recorded.indexOf(Buffer.from("1085041283120b", "hex"));
  const made = Buffer.concat([recorded.subarray(0, at), Buffer.from([14, 10]), recorded.subarray(at)]);
  assert.equal(readTaggedGtid(made, 0, made.length).commitMicros, 5n);
});

test("never gives a GTID from damaged bytes", () => {
  for (let length = 0; length < recorded.length; length += 1) {
    assert.throws(() => readTaggedGtid(recorded, 0, length), { code: "SOURCE_UNREADABLE" });
  }
  const newer = Buffer.from(recorded);
  newer[0] = 4;
  assert.throws(() => readTaggedGtid(newer, 0, newer.length), { code: "SOURCE_UNREADABLE" });
  const required = Buffer.from(recorded);
  required[2] = 40;
  assert.throws(() => readTaggedGtid(required, 0, required.length), { code: "SOURCE_UNREADABLE" });
});

test("reads numbers of one to nine bytes", () => {
  assert.deepEqual(readTag(Buffer.from([0, 9]), 0, 2), { tag: "", end: 1 });
  const long = Buffer.concat([Buffer.from([0xff, 3, 0, 0, 0, 0, 0, 0, 0]), Buffer.from("abc")]);
  assert.deepEqual(readTag(long, 0, long.length), { tag: "abc", end: 12 });
  assert.throws(() => readTag(long, 0, 11), { code: "SOURCE_UNREADABLE" });
});
