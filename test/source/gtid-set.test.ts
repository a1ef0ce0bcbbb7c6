import assert from "node:assert/strict";
import { test } from "node:test";
import { MariadbGtidPosition, MysqlGtidSet } from "../../agent/source/gtid-set.ts";
import { StreamPosition } from "../../agent/source/stream-position.ts";

const uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

test("a MariaDB position keeps the last transaction of each domain, also when its number is lower", () => {
  const position = MariadbGtidPosition.parse("1-3-45,0-1-1234");
  position.add(0, 2, 7);
  position.add(12, 1, 18_446_744_073_709_551_615n);
  assert.equal(position.text(), "0-2-7,1-3-45,12-1-18446744073709551615");
});

test("a MySQL set joins what is contiguous, in whatever order it comes", () => {
  const set = MysqlGtidSet.parse(`${uuid}:1-3:7-9`);
  for (const number of [11, 5, 4, 10, 6, 20]) set.add(uuid, number);
  assert.equal(set.text(), `${uuid}:1-11:20`);
  assert.ok(set.has(uuid, 5) && !set.has(uuid, 12));
});

test("a MySQL set keeps its text through parsing, tags and several sources included", () => {
  const text = `00000000-71ca-11e1-9e33-c80aa9429562:1,${uuid}:1-5:tag_a:1-2:4`;
  assert.equal(MysqlGtidSet.parse(text.replace(",", ",\n")).text(), text);
});

test("what is no GTID is refused", () => {
  assert.throws(() => MariadbGtidPosition.parse("0-1"), { code: "CONFIG_INVALID" });
  assert.throws(() => MysqlGtidSet.parse("abc:1-2"), { code: "CONFIG_INVALID" });
});

test("positions are summed above 4 GiB, and the header's 32 bits only check or correct them", () => {
  const place = new StreamPosition();
  place.start("b.000001", 0xffff_ff00);
  place.markBoundary();
  place.measure(0x200, 0x100);
  place.take();
  place.markBoundary();
  assert.deepEqual([place.position, place.resumePosition], [0x1_0000_0100, 0xffff_ff00]);
  // The server kept an event of 0x50 bytes to itself, and named no end for the one before.
  place.measure(0x10, 0);
  place.take();
  place.measure(0x20, 0x180);
  place.take();
  assert.deepEqual([place.eventStart, place.position], [0x1_0000_0160, 0x1_0000_0180]);
  assert.throws(() => place.measure(0x10, 0x100), { code: "SOURCE_UNREADABLE" });
});
