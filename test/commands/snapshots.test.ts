import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Checkpoint, SnapshotProgress, WantedJob } from "../../agent/change.ts";
import type { AppendBatch } from "../../agent/ports.ts";
import { completed, ofFollowed, replaced, withJobs, withLoss } from "../../agent/snapshot-jobs.ts";
import {
  addResync,
  type IndexWants,
  pauseReading,
  rowsFacts,
  snapshotsAtStart,
} from "../../agent/snapshots.ts";
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
      assert.equal(batch.durable, true, "whoever asked is told that it is taken");
      now = batch.checkpoint;
    },
  };
}

const nothing: IndexWants = { wanted: () => [] };

type Modes = Parameters<typeof snapshotsAtStart>[0];

const initial: Modes = { snapshotMode: "initial", startPosition: null };
const never: Modes = { snapshotMode: "never", startPosition: null };
const fromPlace: Modes = {
  snapshotMode: "initial",
  startPosition: { kind: "file", file: "b.000001", position: 4 },
};

/** All that waits is read to its end. */
function read(progress: SnapshotProgress): SnapshotProgress {
  let left: SnapshotProgress = progress;
  for (const job of progress.jobs) left = completed(left, job) ?? left;
  return left;
}

function asked(modes: Modes, progress?: SnapshotProgress, mapping = defaultMapping): readonly WantedJob[] {
  return snapshotsAtStart(modes, nothing)(mapping, at(progress));
}

describe("what SNAPSHOT_MODE asks for", () => {
  it("initial asks until its wish is on disk, and never again for what was read to the end", () => {
    const wanted = snapshotsAtStart(initial, nothing);
    assert.equal(wanted(defaultMapping, null).length, all);
    assert.equal(wanted(defaultMapping, null).length, all, "the first loop ended before it was on disk");
    const begun = withJobs(undefined, wanted(defaultMapping, null));
    assert.equal(wanted(defaultMapping, at(begun)).length, 0);
    assert.equal(wanted(defaultMapping, at(read(begun))).length, 0);
    assert.equal(asked(initial, read(begun)).length, 0, "after a restart");
  });

  it("initial asks for a table that came into the mapping later, or that could not be read, and for no other", () => {
    const [late, ...others] = defaultMapping.entities;
    assert.ok(late !== undefined);
    const before = read(
      withJobs(undefined, asked(initial, undefined, { ...defaultMapping, entities: others })),
    );
    const expected = [{ table: late.table, reason: "initial", scope: { kind: "all" }, topic: null }];
    assert.deepEqual(asked(initial, before), expected);
    const begun = withJobs(before, asked(initial, before));
    assert.deepEqual(asked(initial, begun), []);
    assert.deepEqual(asked(initial, replaced(begun, null)), expected, "its rows were left out");
  });

  it("initial asks again for a table that was out of the mapping for a while: nobody read what changed", () => {
    const [gone, ...others] = defaultMapping.entities;
    const before = read(withJobs(undefined, asked(initial)));
    const without = ofFollowed(before, others);
    assert.deepEqual(asked(initial, without, { ...defaultMapping, entities: others }), []);
    assert.deepEqual(
      asked(initial, without).map(({ table }) => table),
      [gone?.table],
    );
  });

  it("a part, another topic, digests or keys for the index are not all rows of a table", () => {
    const job = { table: "sales_order", reason: "resync", scope: { kind: "all" }, topic: null } as const;
    const others: readonly WantedJob[] = [
      { ...job, scope: { kind: "keys", keys: ["1"] } },
      { ...job, scope: { kind: "range", from: "1", to: "9" } },
      { ...job, topic: "elsewhere" },
      { ...job, purpose: "digests" },
      { ...job, purpose: "index" },
    ];
    const progress = withJobs(undefined, others);
    assert.equal(asked(initial, progress).length, all);
    assert.equal(asked(initial, read(progress)).length, all);
    assert.equal(asked(initial, read(withJobs(progress, [job]))).length, all - 1);
  });

  it("initial asks for nothing where START_POSITION names the beginning, never asks for nothing", () => {
    assert.deepEqual(snapshotsAtStart(fromPlace, nothing)(defaultMapping, null), []);
    assert.deepEqual(snapshotsAtStart(never, nothing)(defaultMapping, null), []);
  });

  it("initial still asks where only keys were ever read: the mode was never before", () => {
    const job = { table: "sales_order", reason: "index", scope: { kind: "all" }, topic: null } as const;
    const index: IndexWants = {
      wanted: (_, others) => (others.length > 0 ? [] : [{ ...job, purpose: "index" }]),
    };
    const scanned = withJobs(undefined, snapshotsAtStart(never, index)(defaultMapping, null));
    assert.equal(scanned.jobs.length, 1);
    const wanted = snapshotsAtStart(initial, index);
    const begun = withJobs(scanned, wanted(defaultMapping, at(scanned)));
    assert.equal(begun.jobs.length, 1 + all);
    assert.equal(wanted(defaultMapping, at(read(begun))).length, 1, "asked for once");
  });

  it("always asks once in the life of a process", () => {
    const before: SnapshotProgress = { generation: 4, paused: false, jobs: [] };
    const modes: Modes = { snapshotMode: "always", startPosition: null };
    const wanted = snapshotsAtStart(modes, nothing);
    assert.equal(wanted(defaultMapping, at(before)).length, all);
    const begun = withJobs(before, wanted(defaultMapping, at(before)));
    assert.equal(wanted(defaultMapping, at(begun)).length, 0);
    assert.equal(wanted(defaultMapping, at(read(begun))).length, 0);
    assert.equal(asked(modes, read(begun)).length, all);
  });
});

describe("a loss", () => {
  const order = { table: "sales_order", reason: "resync", scope: { kind: "all" }, topic: null } as const;
  const whole = read(withJobs(undefined, asked(initial)));

  it("is made up for by what begins behind it, not by what had begun, and asked for until it is", () => {
    const [first, ...rest] = withJobs(whole, [order, order]).jobs;
    assert.ok(first !== undefined);
    const begun = { epoch: 1, position: { file: "b.000001", position: 4 }, atMs: 0, rowsEstimated: 0 };
    const underWay = { ...withJobs(whole, [order, order]), jobs: [{ ...first, begun }, ...rest] };
    const lost = withLoss(underWay, ["sales_order"]);
    assert.deepEqual(asked(initial, lost), [], "the second will do");
    const afterFirst = completed(lost, first);
    assert.equal(rowsFacts(initial, defaultMapping, afterFirst).unread.join(), "sales_order");
    assert.equal(asked(initial, replaced(afterFirst, null)).length, 1, "none is left");
    assert.deepEqual(rowsFacts(initial, defaultMapping, read(afterFirst ?? lost)).unread, []);
  });

  it("is asked for also where START_POSITION names the beginning", () => {
    const lost = withLoss(undefined, ["sales_order"]);
    assert.deepEqual(asked(fromPlace, lost), [order]);
    assert.deepEqual(asked(never, lost), []);
  });

  it("is told of, in every mode, until all rows were read", () => {
    for (const modes of [initial, never, fromPlace]) {
      const lost = withLoss(whole, ["sales_order"]);
      assert.deepEqual(rowsFacts(modes, defaultMapping, lost).unread, ["sales_order"]);
      const healed = read(withJobs(lost, [order]));
      assert.deepEqual(rowsFacts(modes, defaultMapping, healed).unread, []);
    }
  });
});

describe("what consumers can have", () => {
  it("names the tables of which not all rows were read, or the setting by which that is nobody's business", () => {
    const facts = (modes: Modes, progress?: SnapshotProgress) => rowsFacts(modes, defaultMapping, progress);
    assert.equal(facts(initial).unread.length, all);
    assert.deepEqual(facts(never), { unread: [], isReading: false, trusted: "SNAPSHOT_MODE=never" });
    assert.deepEqual(facts(fromPlace), { unread: [], isReading: false, trusted: "START_POSITION" });
    const begun = withJobs(undefined, asked(initial));
    assert.deepEqual([facts(initial, begun).unread.length, facts(initial, begun).isReading], [all, true]);
    for (const modes of [initial, never, fromPlace])
      assert.deepEqual(facts(modes, read(begun)), { unread: [], isReading: false, trusted: null });
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
