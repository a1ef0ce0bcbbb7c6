import assert from "node:assert/strict";
import { it } from "node:test";
import { cutoverConditions } from "../../agent/commands/cutover.ts";
import { statusReport } from "../../agent/commands/status-report.ts";
import type { RowsFacts } from "../../agent/observe/facts.ts";
import type { SnapshotStatus } from "../../agent/ports.ts";
import { factsOf } from "../observe/facts.ts";

const limits = { lagUnhealthySeconds: 30 };

function rowsCondition(rows: Partial<RowsFacts>, snapshot: SnapshotStatus | null = null) {
  const facts = factsOf({ rows: { unread: [], isReading: false, trusted: null, ...rows }, snapshot });
  const report = statusReport(facts, { live: true, loops: [] }, limits);
  const found = cutoverConditions(report).find(({ name }) => name === "all rows were read");
  assert.ok(found !== undefined);
  return [found.holds, found.says];
}

it("a switch-over waits for all rows of every table, and says which are not read, or by which setting none are", () => {
  const snapshot: SnapshotStatus = {
    table: "sales_order",
    reason: "resync",
    purpose: "rows",
    generation: 3,
    rows: 5,
    rowsEstimated: 10,
    rowsPerSecond: 0,
    waiting: 0,
    paused: true,
    waitsFor: null,
  };
  assert.deepEqual(rowsCondition({}), [true, "all were read"]);
  assert.deepEqual(rowsCondition({ unread: ["sales_order", "salesrule_coupon"] }), [
    false,
    "not all were read: sales_order, salesrule_coupon",
  ]);
  const [holds, says] = rowsCondition({ isReading: true }, snapshot);
  assert.equal(holds, false);
  assert.match(String(says), /sales_order \(resync\): 5 rows of about 10.*paused/);
  assert.deepEqual(rowsCondition({ trusted: "SNAPSHOT_MODE=never" }), [
    true,
    "SNAPSHOT_MODE=never: what was there before the agent is not read",
  ]);
  assert.deepEqual(rowsCondition({ trusted: "SNAPSHOT_MODE=never", unread: ["sales_order"] }), [
    false,
    "not all were read: sales_order; SNAPSHOT_MODE=never: what was there before the agent is not read",
  ]);
  assert.deepEqual(rowsCondition({}, { ...snapshot, purpose: "digests" }), [true, "all were read"]);
});
