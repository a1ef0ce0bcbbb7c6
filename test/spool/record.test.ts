import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Op, SpooledEvent } from "../../agent/change.ts";
import { queueKey } from "../../agent/spool/keys.ts";
import { DamagedRecord } from "../../agent/spool/damaged-record.ts";
import { decodeQuarantined, RecordEncoder, RunReader } from "../../agent/spool/record.ts";
import { event, ORDERS, plain, randomOf, seedOf, spooled } from "./fixtures.ts";

const queue = { tag: 3, lane: "live" } as const;

/** All events of a record. */
function decodeRun(key: Buffer, value: Buffer, seq: number): SpooledEvent[] {
  const run = new RunReader(key, value, { queue: ORDERS, lane: "live", seq });
  const events: SpooledEvent[] = [];
  while (run.next <= run.last) {
    const found = run.read();
    if (found !== null) events.push(plain(found));
  }
  return events;
}

describe("record", () => {
  it("gives back every event as it was, whatever its texts hold", (t) => {
    const random = randomOf(seedOf(t));
    const encoder = new RecordEncoder();
    const pick = <T>(choices: readonly [T, ...T[]]): T =>
      choices[Math.floor(random() * choices.length)] ?? choices[0];
    const text = (): string => {
      let made = "";
      const length = Math.floor(random() * 40);
      for (let i = 0; i < length; i++) made += pick(["a", "ß", "€", "𝄞", "\0", '"', "\u{10ffff}"]);
      return made;
    };
    const made = (seq: number): SpooledEvent => {
      const payload = Buffer.from(Array.from({ length: random() * 3000 }, () => random() * 256));
      return {
        seq,
        kind: pick(["entity", "control"]),
        queue: ORDERS,
        lane: "live",
        otherLaneThrough: random() < 0.5 ? 0 : 1 + Math.floor(random() * 2 ** 52),
        topic: pick([ORDERS, "migration.control"]),
        table: text(),
        op: pick<Op | "">(["", "c", "u", "d", "r"]),
        id: text(),
        entityKey: text(),
        commitTimeMs: random() * 2e12,
        capturedAtMs: Math.floor(random() * 2e12),
        barrier: random() < 0.5,
        oversize: random() < 0.5,
        payload,
      };
    };
    for (let n = 0; n < 200; n++) {
      const seq = 1 + Math.floor(random() * (Number.MAX_SAFE_INTEGER - 100));
      const given = Array.from({ length: 1 + Math.floor(random() * 6) }, (_, at) => made(seq + at));
      const key = queueKey(3, queue, seq);
      const otherLaneThrough = given.map((one) => one.otherLaneThrough);
      const value = Buffer.from(encoder.run(key, given, { from: 0, to: given.length, otherLaneThrough }));
      assert.deepEqual(decodeRun(key, value, seq), given);
      const run = new RunReader(key, value, { queue: ORDERS, lane: "live", seq });
      const at = Math.floor(random() * given.length);
      run.skipTo(seq + at);
      const found = run.read();
      assert.ok(found !== null);
      assert.deepEqual(plain(found), given[at]);
      const verdict = Buffer.from('{"code":"X"}');
      const [first] = given;
      assert.ok(first !== undefined);
      const quarantined = Buffer.from(encoder.quarantined(key, first, verdict));
      const back = decodeQuarantined(key, quarantined, { queue: ORDERS, lane: "live", seq });
      assert.deepEqual(
        [back.verdict, plain(back.event)],
        ['{"code":"X"}', { ...first, otherLaneThrough: 0 }],
      );
    }
  });

  it("refuses a record in which any one bit of value or key differs, and any shorter one", () => {
    const key = queueKey(3, queue, 5);
    const given = [event(7), event(8)];
    const value = Buffer.from(new RecordEncoder().run(key, given, { from: 0, to: 2 }));
    const decode = (): unknown => decodeRun(key, value, 5);
    assert.deepEqual(decode(), [spooled(event(7), 5), spooled(event(8), 6)]);
    for (const bytes of [key, value]) {
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const at = bit >>> 3;
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7));
        assert.throws(decode, DamagedRecord, `bit ${bit}`);
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7));
      }
    }
    for (let length = 0; length < value.length; length++) {
      const shorter = value.subarray(0, length);
      assert.throws(() => decodeRun(key, shorter, 5), DamagedRecord);
    }
  });

  it("writes format version 2 byte by byte as documented", () => {
    const key = queueKey(0x04050607, { tag: 0x0102, lane: "bulk" }, 2 ** 33 + 7);
    assert.equal(key.toString("hex"), ["02", "04050607", "0102", "01", "0000000200000007"].join(""));
    const given = [
      event(0, {
        kind: "control",
        topic: "t",
        table: "ab",
        op: "r",
        id: "idx",
        entityKey: "ké",
        commitTimeMs: 1,
        capturedAtMs: 2,
        barrier: true,
        payload: Buffer.from('"p"'),
      }),
    ];
    const value = new RecordEncoder().run(key, given, { from: 0, to: 1 });
    assert.equal(
      value.toString("hex"),
      [
        "02", // version
        "3ac073a0", // checksum: CRC-32 of the key and of all that follows
        "00000030", // length of the body
        "00000001", // events
        "00000028", // length of the event
        "03", // control, barrier
        "72", // r
        "3ff0000000000000", // commitTimeMs
        "4000000000000000", // capturedAtMs
        "0001", // topic
        "0002", // table
        "0003", // id
        "00000003", // entity key
        "74", // topic
        "6162", // table
        "696478", // id
        "6bc3a9", // entity key
        "227022", // payload
      ].join(""),
    );
  });
});
