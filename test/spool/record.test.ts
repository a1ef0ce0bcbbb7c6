import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Op, SpooledEvent } from "../../agent/change.ts";
import { queueKey } from "../../agent/spool/keys.ts";
import { DamagedRecord, decodeEvent, decodeQuarantined, RecordEncoder } from "../../agent/spool/record.ts";
import { event, ORDERS, randomOf, seedOf, spooled } from "./fixtures.ts";

const queue = { tag: 3, lane: "live" } as const;

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
    for (let n = 0; n < 500; n++) {
      const seq = 1 + Math.floor(random() * Number.MAX_SAFE_INTEGER);
      const payload = Buffer.from(Array.from({ length: random() * 3000 }, () => random() * 256));
      const given: SpooledEvent = {
        seq,
        kind: pick(["entity", "control"]),
        queue: ORDERS,
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
      const key = queueKey(queue, seq);
      const value = Buffer.from(encoder.event(key, given));
      assert.deepEqual(decodeEvent(key, value, { queue: ORDERS, seq }), given);
      const verdict = Buffer.from('{"code":"X"}');
      const quarantined = Buffer.from(encoder.quarantined(key, given, verdict));
      assert.deepEqual(decodeQuarantined(key, quarantined, { queue: ORDERS, seq }), {
        verdict: '{"code":"X"}',
        event: given,
      });
    }
  });

  it("refuses a record in which any one bit of value or key differs, and any shorter one", () => {
    const key = queueKey(queue, 5);
    const value = Buffer.from(new RecordEncoder().event(key, event(7)));
    const decode = (): unknown => decodeEvent(key, value, { queue: ORDERS, seq: 5 });
    assert.deepEqual(decode(), spooled(event(7), 5));
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
      assert.throws(() => decodeEvent(key, shorter, { queue: ORDERS, seq: 5 }), DamagedRecord);
    }
  });

  it("writes format version 1 byte by byte as documented", () => {
    const key = queueKey({ tag: 0x0102, lane: "bulk" }, 2 ** 33 + 7);
    assert.equal(key.toString("hex"), ["02", "0102", "01", "0000000200000007"].join(""));
    const value = new RecordEncoder().event(
      key,
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
    );
    assert.equal(
      value.toString("hex"),
      [
        "01", // version
        "d5b3c02a", // checksum: CRC-32 of the key and of all that follows
        "00000028", // length of the body
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
