import { withJobs } from "../../agent/snapshot-jobs.ts";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Checkpoint, SnapshotProgress } from "../../agent/change.ts";
import type { AppendBatch } from "../../agent/ports.ts";
import { addResync, type IndexWants, pauseReading, snapshotsAtStart } from "../../agent/snapshots.ts";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { checkpoint } from "../spool/fixtures.ts";

const all = defaultMapping.entities.length;

function at(snapshot?: SnapshotProgress): Checkpoint {
  return { ...checkpoint(1), ...(snapshot === undefined ? {} : { snapshot }) };
}

function stateOf(start: Checkpoint) {
  let now = start;
  return {
    checkpoint: () => now,
    append: async (batch: AppendBatch) => {
      now = batch.checkpoint;
    },
  };
}

const nothing: IndexWants = { wanted: () => [] };

describe("what SNAPSHOT_MODE asks for", () => {
  it("initial asks until its wish is on disk, and never again", () => {
    const wanted = snapshotsAtStart({ snapshotMode: "initial", startPosition: null }, nothing);
    assert.equal(wanted(defaultMapping, null).length, all);
    assert.equal(wanted(defaultMapping, null).length, all, "the first loop ended before it was on disk");
    const begun = withJobs(undefined, wanted(defaultMapping, null));
    assert.equal(wanted(defaultMapping, at(begun)).length, 0);
    assert.equal(wanted(defaultMapping, at({ ...begun, jobs: [] })).length, 0);
    const later = snapshotsAtStart({ snapshotMode: "initial", startPosition: null }, nothing);
    assert.equal(later(defaultMapping, at({ ...begun, jobs: [] })).length, 0, "after a restart");
  });

  it("initial asks for nothing where START_POSITION names the beginning, never asks for nothing", () => {
    const place = { kind: "file", file: "b.000001", position: 4 } as const;
    assert.deepEqual(
      snapshotsAtStart({ snapshotMode: "initial", startPosition: place }, nothing)(defaultMapping, null),
      [],
    );
    assert.deepEqual(
      snapshotsAtStart({ snapshotMode: "never", startPosition: null }, nothing)(defaultMapping, null),
      [],
    );
  });

  it("initial still asks where only keys were ever read: the mode was never before", () => {
    const job = { table: "sales_order", reason: "index", scope: { kind: "all" }, topic: null } as const;
    const index: IndexWants = {
      wanted: (_, others) => (others.length > 0 ? [] : [{ ...job, purpose: "index" }]),
    };
    const never = snapshotsAtStart({ snapshotMode: "never", startPosition: null }, index);
    const scanned = withJobs(undefined, never(defaultMapping, null));
    assert.equal(scanned.jobs.length, 1);
    const initial = snapshotsAtStart({ snapshotMode: "initial", startPosition: null }, index);
    const read = withJobs(scanned, initial(defaultMapping, at(scanned)));
    assert.equal(read.jobs.length, 1 + all);
    assert.equal(initial(defaultMapping, at({ ...read, jobs: [] })).length, 1, "asked for once");
  });

  it("always asks once in the life of a process", () => {
    const before: SnapshotProgress = { generation: 4, paused: false, jobs: [] };
    const wanted = snapshotsAtStart({ snapshotMode: "always", startPosition: null }, nothing);
    assert.equal(wanted(defaultMapping, at(before)).length, all);
    const begun = withJobs(before, wanted(defaultMapping, at(before)));
    assert.equal(wanted(defaultMapping, at(begun)).length, 0);
    const restarted = snapshotsAtStart({ snapshotMode: "always", startPosition: null }, nothing);
    assert.equal(restarted(defaultMapping, at({ ...begun, jobs: [] })).length, all);
  });
});

describe("a resync", () => {
  it("stands behind what waits, with a generation of its own", async () => {
    const state = stateOf(at());
    const request = { entity: "order", scope: { kind: "all" }, topic: null } as const;
    assert.deepEqual(await addResync(state, defaultMapping, request), {
      entity: "order",
      generation: 1,
      ahead: 0,
    });
    assert.deepEqual(await addResync(state, defaultMapping, request), {
      entity: "order",
      generation: 2,
      ahead: 1,
    });
    assert.equal((await pauseReading(state, true)).paused, true);
    assert.deepEqual(
      state.checkpoint().snapshot?.jobs.map(({ generation, table }) => [generation, table]),
      [
        [1, "sales_order"],
        [2, "sales_order"],
      ],
    );
  });

  it("is refused with the reason where it cannot be done", async () => {
    const state = stateOf(at());
    const refusals = [
      [{ entity: "odrer", scope: { kind: "all" }, topic: null }, /no entity "odrer"/],
      [{ entity: "stock", scope: { kind: "range", from: "1", to: "2" }, topic: null }, /has no range/],
      [{ entity: "stock", scope: { kind: "keys", keys: ["12"] }, topic: null }, /has 2 parts/],
      [
        { entity: "order", scope: { kind: "keys", keys: Array.from({ length: 501 }, String) }, topic: null },
        /501 keys are more than 500/,
      ],
    ] as const;
    for (const [request, message] of refusals) {
      await assert.rejects(addResync(state, defaultMapping, request), { code: "COMMAND_REFUSED", message });
    }
    assert.equal(state.checkpoint().snapshot, undefined);
  });
});
