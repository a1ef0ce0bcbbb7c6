import assert from "node:assert/strict";
import { test } from "node:test";
import { binlogRunway, bytesWritten, type Retention } from "../../agent/source/retention.ts";

const NOW_MS = 1_800_000_000_000;
const hour = 3_600_000;

function retentionOf(changes: Partial<Retention> = {}): Retention {
  const files = new Map([
    ["binlog.000007", 100],
    ["binlog.000008", 1000],
    ["binlog.000009", 50],
  ]);
  return { expireSeconds: 10 * 3600, totalBytesMax: null, replicasNeeded: 0, files, ...changes };
}

function runway(file: string, ageHours: number, retention = retentionOf(), pace: number | null = null) {
  const checkpoint = { file, newestCommitMs: NOW_MS - ageHours * hour };
  const { purgeNotBeforeMs, by } = binlogRunway(retention, checkpoint, pace, NOW_MS);
  return [(purgeNotBeforeMs - NOW_MS) / hour, by];
}

test("the newest file stays for the whole time, however long the shop has been silent", () => {
  assert.deepEqual(runway("binlog.000009", 300), [10, "age"]);
});

test("an older file may go when its newest commit that was read is of age", () => {
  assert.deepEqual(runway("binlog.000008", 4), [6, "age"]);
  assert.deepEqual(runway("binlog.000008", 40), [0, "age"]);
  assert.deepEqual(runway("binlog.000008", -2), [10, "age"], "a clock that goes ahead gives no more time");
});

test("a file that is not there any more is purged", () => {
  assert.deepEqual(runway("binlog.000006", 1), [0, "purged"]);
});

test("nothing purges by itself where neither age nor size is limited", () => {
  assert.deepEqual(runway("binlog.000007", 99, retentionOf({ expireSeconds: null })), [Infinity, "none"]);
});

test("the size of all files counts with the pace at which they grow, from the needed one on", () => {
  const bySize = retentionOf({ totalBytesMax: 1150 + 7200 });
  assert.deepEqual(runway("binlog.000007", 0, bySize, 1), [2, "size"]);
  assert.deepEqual(runway("binlog.000009", 0, bySize, 100), [(8350 - 50) / 100 / 3600, "size"]);
  assert.deepEqual(runway("binlog.000009", 0, bySize, null), [10, "age"]);
  assert.deepEqual(runway("binlog.000007", 0, retentionOf({ totalBytesMax: 1000 }), 0), [0, "size"]);
});

test("what was written between two readings counts across new and purged files", () => {
  const before = retentionOf();
  const files = new Map([
    ["binlog.000009", 80],
    ["binlog.000010", 500],
    ["binlog.000011", 7],
  ]);
  assert.equal(bytesWritten(before, retentionOf({ files })), 30 + 500 + 7);
  assert.equal(bytesWritten(before, before), 0);
});
