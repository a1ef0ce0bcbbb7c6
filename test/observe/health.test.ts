import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { computeHealth, statusLine } from "../../agent/observe/health.ts";
import { LagMeter } from "../../agent/observe/lag.ts";
import { computeLiveness } from "../../agent/observe/liveness.ts";
import { factsOf, NOW_MS } from "./facts.ts";

const limits = { lagUnhealthySeconds: 30 };

describe("/health", () => {
  it("has the five checks, each with status, message and latency", () => {
    const report = computeHealth(factsOf(), limits);
    assert.equal(report.status, "healthy");
    assert.equal(report.timestamp, "2026-01-15T12:00:00.000Z");
    assert.deepEqual(Object.keys(report.checks), [
      "magento_database",
      "dapr",
      "sync_lag",
      "spool",
      "binlog_runway",
    ]);
    for (const check of Object.values(report.checks))
      assert.deepEqual(Object.keys(check), ["status", "message", "latency"]);
  });

  it("is unhealthy while the database is away, and says what it waits for", () => {
    const source = {
      state: "waiting",
      reason: "SOURCE_AUTH: access denied",
      server: null,
      silentMs: null,
      reconnects: 3,
    };
    const report = computeHealth(factsOf({ source: { ...source, state: "waiting" } }), limits);
    assert.equal(report.status, "unhealthy");
    assert.match(report.checks.magento_database.message, /waiting: SOURCE_AUTH/);
  });

  it("is unhealthy while a topic is held, and names topic, code and reason", () => {
    const held = [
      { topic: "migration.order.changed", code: "ERR_PUBSUB_FORBIDDEN", message: "scope denied", sinceMs: 1 },
    ];
    const report = computeHealth(factsOf({ held }), limits);
    assert.equal(report.checks.dapr.status, "unhealthy");
    assert.match(report.checks.dapr.message, /migration\.order\.changed: ERR_PUBSUB_FORBIDDEN scope denied/);
  });

  it("is unhealthy when the lag is over the limit, and healthy at it", () => {
    assert.equal(
      computeHealth(factsOf({ lagSeconds: new Map([["sales_order", 30]]) }), limits).status,
      "healthy",
    );
    const report = computeHealth(
      factsOf({
        lagSeconds: new Map([
          ["a", 1],
          ["sales_order", 30.5],
        ]),
      }),
      limits,
    );
    assert.equal(report.checks.sync_lag.status, "unhealthy");
    assert.match(report.checks.sync_lag.message, /30\.5 s on sales_order/);
  });

  it("is unhealthy while the spool takes nothing", () => {
    const intakeClosed = { code: "DISK_FULL", message: "the volume is at its floor" };
    const report = computeHealth(factsOf({ intakeClosed }), limits);
    assert.match(report.checks.spool.message, /reading waits: the volume is at its floor/);
    assert.equal(report.status, "unhealthy");
  });

  it("has a status line in one line", () => {
    assert.equal(
      statusLine(factsOf({ lagSeconds: new Map([["a", 0.25]]) })),
      "streaming, lag 0.3 s, spool 12 events, 1.9 MiB (2 %), last accepted 2 s ago",
    );
  });
});

describe("lag", () => {
  const head = {
    queue: "q",
    lane: "live",
    table: "sales_order",
    op: "u",
    capturedAtMs: NOW_MS,
    waiting: 1,
  } as const;

  it("is the age of the oldest event that waits, and grows", () => {
    const meter = new LagMeter();
    meter.delivered("sales_order", NOW_MS - 100, NOW_MS);
    const heads = [{ ...head, commitTimeMs: NOW_MS - 5000 }];
    assert.equal(meter.seconds(heads, NOW_MS).get("sales_order"), 5);
    assert.equal(meter.seconds(heads, NOW_MS + 60_000).get("sales_order"), 65);
  });

  it("is what the newest delivery took when nothing waits, and then zero", () => {
    const meter = new LagMeter();
    meter.delivered("sales_order", NOW_MS - 1500, NOW_MS);
    assert.equal(meter.seconds([], NOW_MS + 1000).get("sales_order"), 1.5);
    assert.equal(meter.seconds([], NOW_MS + 31_000).get("sales_order"), 0);
  });

  it("does not count snapshot rows, nor negative ages of clocks that disagree", () => {
    const meter = new LagMeter();
    assert.equal(meter.seconds([{ ...head, op: "r", commitTimeMs: 0 }], NOW_MS).size, 0);
    assert.equal(meter.seconds([{ ...head, commitTimeMs: NOW_MS + 5000 }], NOW_MS).get("sales_order"), 0);
  });
});

describe("/livez", () => {
  const pulse = (lastMs: number, waitsFor: string | null) => ({
    name: "capture",
    lastProgressMs: () => lastMs,
    waitsFor: () => waitsFor,
  });

  it("fails when a loop comes round no more without a reason", () => {
    assert.equal(computeLiveness([pulse(0, null), pulse(99_000, null)], 100_000, 60_000).live, false);
    assert.equal(computeLiveness([pulse(50_000, null)], 100_000, 60_000).live, true);
  });

  it("does not fail while a loop waits for something outside", () => {
    const liveness = computeLiveness([pulse(0, "the spool is full")], 10_000_000, 60_000);
    assert.equal(liveness.live, true);
    assert.equal(liveness.loops[0]?.waitsFor, "the spool is full");
  });
});
