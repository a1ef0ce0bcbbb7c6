import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { zstdDecompressSync } from "node:zlib";
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
      const length = random() * 3000;
      const payload =
        random() < 0.3
          ? Buffer.from(Array.from({ length }, () => random() * 256))
          : Buffer.alloc(length, text() || "x");
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
    const versions = new Set<number | undefined>();
    for (let n = 0; n < 200; n++) {
      const seq = 1 + Math.floor(random() * (Number.MAX_SAFE_INTEGER - 100));
      const given = Array.from({ length: 1 + Math.floor(random() * 12) }, (_, at) => made(seq + at));
      const key = queueKey(3, queue, seq);
      const otherLaneThrough = given.map((one) => one.otherLaneThrough);
      const value = Buffer.from(encoder.run(key, given, { from: 0, to: given.length, otherLaneThrough }));
      versions.add(value[0]);
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
    assert.deepEqual(versions, new Set([2, 3]), "both forms were met");
  });

  for (const { form, count, version } of [
    { form: "plain", count: 2, version: 2 },
    { form: "compressed", count: 60, version: 3 },
  ]) {
    it(`refuses a ${form} record in which any one bit of value or key differs, and any shorter one`, () => {
      const key = queueKey(3, queue, 5);
      const given = Array.from({ length: count }, (_, n) => event(250 + n));
      const value = Buffer.from(new RecordEncoder().run(key, given, { from: 0, to: count }));
      assert.equal(value[0], version);
      const decode = (): unknown => decodeRun(key, value, 5);
      assert.deepEqual(
        decode(),
        given.map((one, at) => spooled(one, 5 + at)),
      );
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
  }

  it("refuses a plain record whose version says that it is compressed, whatever its first bytes are", () => {
    const key = queueKey(3, queue, 5);
    const encoder = new RecordEncoder();
    // The count of lost events stands where a length would, and is one that could be.
    for (const count of [100, 10_000]) {
      const value = Buffer.from(encoder.voids(key, count));
      value[0] = 3;
      assert.throws(() => decodeRun(key, value, 5), new DamagedRecord("unreadable header"));
    }
  });

  it("compresses a run of many events, and leaves alone one that is small, large or random", () => {
    const key = queueKey(3, queue, 5);
    const encoder = new RecordEncoder();
    const versionOf = (count: number, payload: Buffer): number | undefined => {
      const given = Array.from({ length: count }, (_, n) => event(n, { payload }));
      return encoder.run(key, given, { from: 0, to: count })[0];
    };
    const text = Buffer.alloc(1000, "some text that comes again ");
    assert.deepEqual([versionOf(5, text), versionOf(20, text)], [2, 3]);
    assert.equal(versionOf(1, Buffer.alloc(2 ** 20, "x")), 2);
    assert.equal(versionOf(20, randomBytes(1000)), 3, "twenty times the same");
    assert.equal(versionOf(1, randomBytes(20_000)), 2);
  });

  it("writes format version 3 as documented: the body of version 2, its length, and zstd", () => {
    const key = queueKey(3, queue, 5);
    const given = Array.from({ length: 60 }, (_, n) => event(250 + n));
    const value = new RecordEncoder().run(key, given, { from: 0, to: 60 });
    assert.equal(value.readUInt32BE(5), value.length - 9);
    const body = zstdDecompressSync(value.subarray(13));
    assert.equal(value.readUInt32BE(9), body.length);
    assert.equal(body.readUInt32BE(0), 60);
    const [first] = given;
    assert.ok(first !== undefined);
    const alone = new RecordEncoder().run(key, [first], { from: 0, to: 1 });
    assert.deepEqual(body.subarray(4, alone.length - 9), alone.subarray(13));
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
