import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { Checkpoint, SnapshotProgress } from "../../agent/change.ts";
import { completed, withJobs } from "../../agent/snapshot-jobs.ts";
import { wholeTable } from "../../agent/snapshots.ts";
import { AskedJobs } from "../../agent/spool/asked-jobs.ts";
import { readMarker } from "../../agent/spool/marker.ts";
import { deleteKey } from "./damage-cases.ts";
import { progressKey } from "../../agent/spool/state.ts";
import { checkpoint, event, eventually, openSpool, stateDirOf } from "./fixtures.ts";

/** One mark, the first. */
const tuning = { everyBytes: 1e12, everyMs: 1e12 };

function at(position: number, snapshot: SnapshotProgress): Checkpoint {
  return { ...checkpoint(position), snapshot };
}

async function markerHas(dir: string, jobs: number): Promise<void> {
  await eventually(async () => {
    const marker = await readMarker(dir);
    return typeof marker === "object" && marker.asked?.length === jobs;
  }, `the marker has ${jobs} jobs`);
}

describe("what was asked for", () => {
  for (const [what, damage] of [
    ["a database that is gone", (dir: string) => rm(join(dir, "spool"), { recursive: true })],
    ["a checkpoint that is damaged", deleteKey(progressKey)],
  ] as const) {
    it(`outlives ${what}, also where it was read and not delivered; it begins again`, async (t) => {
      const dir = await stateDirOf(t);
      const before = withJobs(undefined, [wholeTable("customer_entity", "initial")]);
      const spool = await openSpool(dir, { tuning });
      await spool.append({ events: [event(1)], checkpoint: at(1, before) });
      spool.ack(event(1).queue, 1);
      await eventually(async () => {
        const marker = await readMarker(dir);
        return typeof marker === "object" && marker.checkpoint?.position === 1;
      }, "everything is delivered");
      await markerHas(dir, 0);
      const asked = withJobs(before, [wholeTable("sales_order", "resync")]);
      await spool.append({ events: [], checkpoint: at(1, asked), durable: true });
      await markerHas(dir, 1);
      const [first, second] = asked.jobs;
      assert.ok(first !== undefined && second !== undefined);
      const both = completed(completed(asked, first), second);
      assert.ok(both !== undefined);
      await spool.append({ events: [event(2, { lane: "bulk" })], checkpoint: at(2, both) });
      await spool.close();
      await damage(dir);
      const again = await openSpool(dir, { tuning });
      assert.deepEqual(again.checkpoint(), at(1, asked));
      // And once more, however soon.
      await again.close();
      await rm(join(dir, "spool"), { recursive: true });
      const third = await openSpool(dir, { tuning });
      assert.deepEqual(third.checkpoint(), at(1, asked));
      await third.close();
    });
  }

  it("is forgotten once everything behind it was delivered", () => {
    const jobs = new AskedJobs();
    const one = withJobs(undefined, [wholeTable("sales_order", "resync")]);
    const two = withJobs(one, [wholeTable("sales_order", "resync"), wholeTable("sales_order", "resync")]);
    jobs.note(at(1, one));
    jobs.note(at(2, two));
    jobs.note(at(3, { ...two, jobs: [] }));
    assert.deepEqual(jobs.behind(null), two.jobs);
    assert.equal(jobs.behind(null), jobs.behind(null), "the same list while nothing changes");
    assert.deepEqual(jobs.behind(at(1, one)), two.jobs.slice(1));
    assert.deepEqual(jobs.behind(at(3, two)), []);
  });

  it("has a bound: with too much of it whole tables take its place", () => {
    const jobs = new AskedJobs();
    const keys = { kind: "keys", keys: ["1"] } as const;
    let progress: SnapshotProgress | undefined;
    for (let count = 0; count < 1_000; count += 1) {
      const table = count % 2 === 0 ? "sales_order" : "customer_entity";
      progress = withJobs(progress, [{ ...wholeTable(table, "resync"), scope: keys }]);
      jobs.note(at(count, progress));
    }
    const kept = jobs.behind(null);
    assert.ok(kept.length <= 200);
    for (const table of ["sales_order", "customer_entity"])
      assert.ok(kept.some((job) => job.table === table && job.scope.kind === "all"));
    const generations = kept.map(({ generation }) => generation);
    assert.deepEqual(
      generations,
      generations.toSorted((a, b) => a - b),
    );
  });
});
