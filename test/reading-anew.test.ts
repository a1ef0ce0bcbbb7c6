import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { SnapshotJob, SnapshotProgress, WantedJob } from "../agent/change.ts";
import { afterLossOf, readAnew } from "../agent/reading-anew.ts";
import { completed, withJobs } from "../agent/snapshot-jobs.ts";
import { wholeTable } from "../agent/snapshots.ts";
import { defaultMapping } from "../agent/transform/default-mapping.ts";
import { makeTransform } from "./transform/parts.ts";

const mapped = { mapping: defaultMapping, rooms: { transform: makeTransform() } };
const orders = mapped.rooms.transform.topics.entities["order"] ?? "";
const elsewhere: WantedJob = { ...wholeTable("sales_order", "resync"), topic: "elsewhere" };

function lossOf(topic: string, progress?: SnapshotProgress, snapshotMode: "initial" | "never" = "initial") {
  return afterLossOf(topic, progress, { settings: { snapshotMode }, mapped });
}

/** The jobs with the first of them half done. */
function underWay(...wanted: readonly WantedJob[]): SnapshotProgress {
  const progress = withJobs(undefined, wanted);
  const begun = { epoch: 1, position: { file: "b.000001", position: 4 }, atMs: 0, rowsEstimated: 9 };
  const half = (job: SnapshotJob): SnapshotJob => ({ ...job, begun, after: ["MQ=="], rows: 5 });
  return { ...progress, jobs: progress.jobs.map((job, index) => (index === 0 ? half(job) : job)) };
}

describe("after events of a topic were lost", () => {
  it("its entities are read as a whole, and no others", () => {
    const { progress, isHealing } = lossOf(orders);
    assert.deepEqual(progress.jobs, withJobs(undefined, [wholeTable("sales_order", "resync")]).jobs);
    assert.deepEqual(progress.lost, { sales_order: 0 });
    assert.equal(isHealing, true);
  });

  it("what waits for that already is not asked for twice, and what is half done begins again", () => {
    const waiting = withJobs(undefined, [wholeTable("sales_order", "initial")]);
    assert.deepEqual(lossOf(orders, waiting).progress.jobs, waiting.jobs);
    const half = underWay(wholeTable("sales_order", "initial"));
    assert.deepEqual(lossOf(orders, half).progress.jobs, waiting.jobs);
    const keys = underWay({ ...wholeTable("sales_order", "resync"), scope: { kind: "keys", keys: ["1"] } });
    assert.deepEqual(
      lossOf(orders, keys).progress.jobs.map(({ scope, begun }) => [scope.kind, begun]),
      [
        ["keys", null],
        ["all", null],
      ],
    );
  });

  it("a resync to that topic begins again where it was under way, and else nothing can be promised", () => {
    const half = lossOf("elsewhere", underWay(elsewhere));
    assert.deepEqual(half.progress.jobs, withJobs(undefined, [elsewhere]).jobs);
    assert.equal(half.isHealing, true);
    assert.equal(lossOf("elsewhere", underWay(wholeTable("sales_order", "initial"))).isHealing, false);
    const other = underWay(elsewhere);
    assert.deepEqual(lossOf(orders, other).progress.jobs[0], other.jobs[0], "it is not of this topic");
  });

  it("nothing is asked for with SNAPSHOT_MODE=never, and the loss stands in the state", () => {
    const { progress, isHealing } = lossOf(orders, undefined, "never");
    assert.deepEqual([progress.jobs, progress.lost, isHealing], [[], { sales_order: 0 }, false]);
  });
});

describe("once a statement put other rows into a table", () => {
  const settings = { snapshotMode: "initial" } as const;
  const whole = wholeTable("sales_order", "resync");

  it("it is read as a whole, and counts as unread until a job that begins from now on has done so", () => {
    const first = readAnew(
      { ...withJobs(undefined, []), complete: ["sales_order", "other"] },
      ["sales_order"],
      settings,
    );
    assert.deepEqual(first.jobs, withJobs(undefined, [whole]).jobs);
    assert.deepEqual([first.complete, first.lost], [["other"], { sales_order: 0 }]);
    assert.deepEqual(readAnew(first, ["sales_order"], settings), first, "again, before it has begun");
    const [job] = first.jobs;
    assert.ok(job);
    assert.deepEqual(completed(first, job)?.complete, ["other", "sales_order"]);
  });

  it("what reads only some of its rows, or sends them elsewhere, does not make up for it", () => {
    const keys: WantedJob = { ...whole, scope: { kind: "keys", keys: ["1"] } };
    const before = withJobs(undefined, [keys, elsewhere]);
    assert.deepEqual(readAnew(before, ["sales_order"], settings).jobs, withJobs(before, [whole]).jobs);
  });

  it("nothing is asked for with SNAPSHOT_MODE=never, and the table stands in the state", () => {
    const { jobs, lost } = readAnew(undefined, ["sales_order"], { snapshotMode: "never" });
    assert.deepEqual([jobs, lost], [[], { sales_order: 0 }]);
  });
});
