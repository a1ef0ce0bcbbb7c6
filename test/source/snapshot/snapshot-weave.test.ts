import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Capture } from "../../../agent/capture.ts";
import type { SnapshotJob, SnapshotProgress, SourceItem, TableEvent } from "../../../agent/change.ts";
import { systemClock } from "../../../agent/kernel/service.ts";
import type { AppendBatch } from "../../../agent/ports.ts";
import { readAnew } from "../../../agent/reading-anew.ts";
import { awaitsAllRows, withJobs } from "../../../agent/snapshot-jobs.ts";
import { wholeTable } from "../../../agent/snapshots.ts";
import { SnapshotWeave } from "../../../agent/source/snapshot/snapshot-weave.ts";
import type { StreamView } from "../../../agent/source/snapshot/weave-parts.ts";
import { LinesLog } from "../../observe/facts.ts";
import { makeTransform, partOf, readEvent } from "../../transform/parts.ts";

const transform = makeTransform();
const { tables } = transform;
const initial = wholeTable("sales_order", "initial");
const again = wholeTable("sales_order", "resync");
/** Without a connection nothing is read. */
const view: StreamView = {
  connection: () => null,
  delivered: () => null,
  deliveredCheckpoint: () => null,
  endsAt: () => false,
  wakeUp: () => undefined,
};
const settings = {
  host: "127.0.0.1",
  port: 1,
  socketPath: null,
  user: "",
  password: () => "",
  database: "magento_db",
  tablePrefix: "",
  serverId: 7,
  tls: "off",
  tlsCa: null,
  startPosition: null,
} as const;

function weaveFrom(progress: SnapshotProgress | undefined, snapshotMode: "initial" | "never" = "initial") {
  const log = new LinesLog();
  const rules = {
    mayRead: () => null,
    rateMax: null,
    afterReplacement: (table: string, before: SnapshotProgress | undefined) =>
      readAnew(before, [table], { snapshotMode }),
  };
  const observer = { oddity: () => undefined };
  return {
    weave: new SnapshotWeave({ settings, tables, observer, clock: systemClock, log, ...rules }, progress),
    log,
  };
}

function statement(what: TableEvent["what"], redefines?: TableEvent["redefines"]): TableEvent {
  const { end, gtid, serverId, commitTimeMs, checkpoint } = partOf([]);
  const table = tables.findIndex((one) => one.table === "sales_order");
  return {
    kind: "table",
    table,
    what,
    ...(redefines === undefined ? {} : { redefines }),
    statement: "RENAME TABLE sales_order",
    end,
    gtid,
    serverId,
    commitTimeMs,
    checkpoint,
  };
}

function halfDone(...wanted: Parameters<typeof withJobs>[1]): SnapshotProgress {
  const begun = { epoch: 1, position: { file: "b.000001", position: 4 }, atMs: 0, rowsEstimated: 9 };
  const progress = withJobs(undefined, wanted);
  const jobs = progress.jobs.map((job): SnapshotJob => ({ ...job, begun, after: ["MQ=="], rows: 5 }));
  return { ...progress, jobs };
}

const jobsAfter = (items: readonly SourceItem[] | null) => items?.at(-1)?.checkpoint.snapshot?.jobs;

describe("a statement about the table that is being read", () => {
  it("that put other rows there makes it be read as a whole, in the batch that has the statement", async () => {
    const { weave } = weaveFrom(undefined);
    const items = weave.weave([statement("replaced"), partOf([])], view);
    assert.ok(items !== null);
    const batches: AppendBatch[] = [];
    const capture = new Capture({
      source: {
        async *batches() {
          yield items;
        },
        status: () => ({ state: "streaming", reason: null, server: null, silentMs: 0, reconnects: 0 }),
      },
      encoder: transform,
      spool: { checkpoint: () => null, append: async (batch) => void batches.push(batch) },
      observer: { batchCaptured: () => undefined, commitSeen: () => undefined },
      clock: systemClock,
    });
    await capture.run();
    // Invariant 1: no crash comes between the two.
    const [batch] = batches;
    assert.ok(batches.length === 1 && batch !== undefined);
    assert.deepEqual(
      batch.events.map((event) => readEvent(event).type),
      ["magento.reset"],
    );
    assert.deepEqual(batch.checkpoint.snapshot?.jobs, withJobs(undefined, [again]).jobs);
  });

  it("that put other rows there makes what is half done begin again, whatever it reads them for", () => {
    const index = { ...initial, reason: "index", purpose: "index" } as const;
    const other = wholeTable("customer_entity", "initial");
    const { weave } = weaveFrom(halfDone(initial, other, index));
    const jobs = jobsAfter(weave.weave([statement("replaced")], view));
    assert.deepEqual(
      jobs?.map(({ table, begun, after, rows }) => [table, begun === null, after, rows]),
      [
        ["sales_order", true, null, 0],
        ["customer_entity", false, ["MQ=="], 5],
        ["sales_order", true, null, 0],
      ],
    );
  });

  it("that emptied it asks for nothing, and what is half done begins again", () => {
    const { weave } = weaveFrom(halfDone(initial));
    assert.deepEqual(jobsAfter(weave.weave([statement("reset")], view)), withJobs(undefined, [initial]).jobs);
    assert.equal(jobsAfter(weaveFrom(undefined).weave.weave([statement("reset")], view)), undefined);
  });

  it("that altered it leaves what was read of it, and asks in its batch for a look at the columns", () => {
    const half = { ...halfDone(initial), shapes: { sales_order: "a b c" } };
    const items = weaveFrom(half).weave.weave([statement("altered"), partOf([])], view);
    const look = { ...again, unlessShape: "a b c" };
    assert.deepEqual(jobsAfter(items), [...half.jobs, ...withJobs(half, [look]).jobs.slice(-1)]);
    assert.equal(
      awaitsAllRows(items?.at(-1)?.checkpoint.snapshot, "sales_order"),
      true,
      "by what is half done",
    );
  });

  it("that altered it, where nothing is known of its columns, asks for a look, too", () => {
    const items = weaveFrom(undefined).weave.weave([statement("altered")], view);
    const { snapshot } = items?.at(-1)?.checkpoint ?? {};
    assert.deepEqual(snapshot?.jobs, withJobs(undefined, [{ ...again, unlessShape: "" }]).jobs);
    assert.equal(awaitsAllRows(snapshot, "sales_order"), false, "a look reads nothing");
  });

  it("that altered it asks for nothing where all of its rows will be read anyway, and once for several", () => {
    const waits = withJobs(undefined, [initial]);
    assert.deepEqual(jobsAfter(weaveFrom(waits).weave.weave([statement("altered")], view)), waits.jobs);
    const altered = [statement("altered", "once"), statement("altered"), statement("altered")];
    assert.equal(jobsAfter(weaveFrom(undefined).weave.weave(altered, view))?.length, 1);
  });

  it("that altered followed columns before a look at them, or moved values among them, makes it be read", () => {
    const done = { ...withJobs(undefined, []), shapes: { sales_order: "a b c" }, complete: ["sales_order"] };
    for (const items of [
      [statement("altered", "twice")],
      [statement("altered", "once"), statement("altered", "once")],
    ]) {
      const after = weaveFrom(done).weave.weave(items, view)?.at(-1)?.checkpoint.snapshot;
      assert.deepEqual(
        after?.jobs.map(({ table, unlessShape }) => [table, unlessShape]),
        [["sales_order", undefined]],
      );
      assert.deepEqual(after?.complete, []);
    }
    const { weave, log } = weaveFrom(done, "never");
    const never = weave.weave([statement("altered", "twice")], view)?.at(-1)?.checkpoint.snapshot;
    assert.deepEqual([never?.jobs, Object.keys(never?.lost ?? {})], [[], ["sales_order"]]);
    assert.match(JSON.stringify(log.lines), /"error".*since it was altered, and nothing reads them/);
  });

  it("is told of, with SNAPSHOT_MODE=never as what needs a resync", () => {
    const { weave, log } = weaveFrom(undefined, "never");
    const items = weave.weave([statement("replaced")], view);
    assert.deepEqual(items?.at(-1)?.checkpoint.snapshot, {
      ...withJobs(undefined, []),
      complete: [],
      lost: { sales_order: 0 },
    });
    assert.match(JSON.stringify(log.lines), /"error".*nothing reads them.*RENAME TABLE sales_order.*resync/);
  });
});
