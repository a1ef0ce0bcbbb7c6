/** Limits and a full disk, on a small volume of its own. Needs the right to mount. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import { systemClock } from "../../agent/kernel/service.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import {
  checkpoint,
  event,
  eventually,
  openSpool,
  ORDERS,
  readAll,
  stateDirOf,
  Witness,
} from "./fixtures.ts";

const MB = 1024 * 1024;
const tuning = { compactStepBytes: MB, compactIdleMs: 300, segmentBytes: MB };

async function volumeOf(t: TestContext, megabytes: number): Promise<string> {
  const dir = await stateDirOf(t, (path) => execFileSync("umount", ["-l", path]));
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", dir]);
  return dir;
}

/** Bytes that Snappy cannot make smaller. */
function noise(bytes: number, seed: number): Buffer {
  const buffer = Buffer.allocUnsafe(bytes);
  let state = seed | 1;
  for (let i = 0; i < bytes; i++) {
    state = Math.imul(state, 1103515245) + 12345;
    buffer[i] = state >>> 16;
  }
  return buffer;
}

let made = 0;
function append(spool: Spool, signal?: AbortSignal): Promise<void> {
  const events = Array.from({ length: 20 }, () => {
    made += 1;
    return event(made, { payload: noise(5000, made) });
  });
  return spool.append({ events, checkpoint: checkpoint(made) }, signal);
}

/** Appends until one waits; returns that one. */
async function appendUntilItWaits(
  spool: Spool,
  signal?: AbortSignal,
): Promise<{ readonly waiting: Promise<void> }> {
  for (;;) {
    const appended = append(spool, signal);
    appended.catch(() => undefined);
    const done = await Promise.race([
      appended.then(
        () => true,
        () => true,
      ),
      systemClock.sleep(1500).then(() => false),
    ]);
    if (!done) return { waiting: appended };
  }
}

async function drain(spool: Spool): Promise<number> {
  const events = await readAll(spool, ORDERS);
  const last = events.at(-1);
  if (last !== undefined) spool.ack(ORDERS, last.seq);
  return events.length;
}

describe("limits of the spool", () => {
  it("waits at SPOOL_BYTES_MAX, loses nothing, and goes on when there is room (invariant 7)", async (t) => {
    const dir = await volumeOf(t, 64);
    const witness = new Witness();
    const limits = { bytesMax: 12 * MB, diskFreeMin: 0 };
    const spool = await openSpool(dir, { limits, witness, tuning });
    const first = made;
    const { waiting } = await appendUntilItWaits(spool);
    const stats = spool.stats();
    assert.equal(stats.intake, "SPOOL_FULL");
    assert.equal(stats.waitingBatches, 1);
    assert.ok(stats.directoryBytes <= 12 * MB, `${stats.directoryBytes} bytes`);
    assert.deepEqual(witness.intake, ["SPOOL_FULL"]);
    let drained = await drain(spool);
    await waiting;
    await eventually(() => spool.stats().intake === "open", "the intake opens");
    await append(spool);
    drained += await drain(spool);
    assert.equal(drained, made - first, "every event came, the one that waited too");
    await spool.close();
  });

  it("waits at DISK_FREE_MIN when others fill the volume, and goes on when they free it", async (t) => {
    const dir = await volumeOf(t, 64);
    const witness = new Witness();
    const limits = { bytesMax: 2 ** 40, diskFreeMin: 20 * MB };
    const spool = await openSpool(dir, { limits, witness, tuning });
    await append(spool);
    await writeFile(join(dir, "database-file"), noise(48 * MB, 1));
    const { waiting } = await appendUntilItWaits(spool);
    assert.equal(spool.stats().intake, "DISK_FULL");
    await rm(join(dir, "database-file"));
    await waiting;
    await eventually(() => spool.stats().intake === "open", "the intake opens");
    assert.deepEqual(witness.intake, ["DISK_FULL", "open"]);
    await spool.close();
  });

  it("takes a batch larger than the limit when the spool is empty", async (t) => {
    const dir = await volumeOf(t, 64);
    const spool = await openSpool(dir, { limits: { bytesMax: MB, diskFreeMin: 0 }, tuning });
    const events = Array.from({ length: 5 }, (_, n) => event(n, { payload: noise(MB, n) }));
    for (let position = 1; position <= 3; position++) {
      await spool.append({ events, checkpoint: checkpoint(position) });
      assert.equal(await drain(spool), 5);
    }
    await spool.close();
  });

  it("gives up a wait for room when asked, without having written any of it", async (t) => {
    const dir = await volumeOf(t, 64);
    const spool = await openSpool(dir, { limits: { bytesMax: 6 * MB, diskFreeMin: 0 }, tuning });
    const stopping = new AbortController();
    const { waiting } = await appendUntilItWaits(spool, stopping.signal);
    const closed = append(spool);
    closed.catch(() => undefined);
    const before = spool.checkpoint();
    const { events } = spool.stats();
    stopping.abort();
    await assert.rejects(waiting, { name: "AbortError" });
    await Promise.all([assert.rejects(closed, { name: "AbortError" }), spool.close()]);
    const again = await openSpool(dir, { tuning });
    assert.deepEqual(again.checkpoint(), before);
    assert.equal(again.stats().events, events);
    await again.close();
  });

  it("still writes acknowledgements, quarantine and values while the intake is closed", async (t) => {
    const dir = await volumeOf(t, 64);
    const spool = await openSpool(dir, { limits: { bytesMax: 8 * MB, diskFreeMin: 0 }, tuning });
    const { waiting } = await appendUntilItWaits(spool);
    const [head] = await spool.read(ORDERS, 0, { maxEvents: 1, maxBytes: 1 });
    assert.ok(head !== undefined);
    await spool.quarantine(head, {
      code: "X",
      reason: "",
      attempts: 1,
      deadLetterAccepted: true,
      about: null,
    });
    spool.ack(ORDERS, 1);
    await spool.meta.put("identity", { shop: "magento" });
    waiting.catch(() => undefined);
    await spool.close();
    const again = await openSpool(dir, { tuning });
    assert.equal(again.queues()[0]?.acked, 1);
    assert.equal(again.stats().quarantined, 1);
    await again.close();
  });

  it("ends with SPOOL_IO on a full disk, and what was acknowledged is there afterwards", async (t) => {
    const dir = await volumeOf(t, 16);
    const spool = await openSpool(dir, { tuning });
    const first = made;
    let acknowledged = 0;
    await assert.rejects(
      async () => {
        for (;;) {
          await append(spool);
          acknowledged += 20;
        }
      },
      { code: "SPOOL_IO" },
    );
    await assert.rejects(append(spool), { code: "SPOOL_IO" });
    await spool.close();
    const elsewhere = await stateDirOf(t);
    execFileSync("cp", ["-a", `${dir}/.`, elsewhere]);
    const again = await openSpool(elsewhere, { tuning });
    const events = await readAll(again, ORDERS);
    assert.ok(acknowledged > 0 && events.length >= acknowledged, `${events.length} of ${acknowledged}`);
    assert.deepEqual(
      events.map(({ id }) => id),
      events.map((_, at) => `id-${first + 1 + at}`),
    );
    assert.equal(again.checkpoint()?.position, first + events.length);
    await again.close();
    assert.deepEqual((await verifySpool(elsewhere)).faults, []);
  });
});

describe("room of delivered events", () => {
  it("comes back: a drained spool takes about a megabyte and holds no delivered value", async (t) => {
    const dir = await stateDirOf(t);
    const spool = await openSpool(dir, { tuning });
    for (let round = 0; round < 300; round++) await append(spool);
    await eventually(() => spool.stats().directoryBytes > 18 * MB, "the spool is filled");
    await drain(spool);
    await eventually(() => spool.stats().directoryBytes < 1.2 * MB, "the room comes back");
    await spool.close();
  });

  it("comes back after the longest time even when next to nothing happens", async (t) => {
    const dir = await stateDirOf(t);
    const canary = "canary-of-a-delivered-event";
    const age = { compactStepBytes: 1e12, compactIdleMs: 1e12, compactAgeMs: 500 };
    const spool = await openSpool(dir, { tuning: age });
    await spool.append({ events: [event(1, { payload: Buffer.from(canary) })], checkpoint: checkpoint(1) });
    const holdsCanary = (): boolean => {
      try {
        execFileSync("grep", ["-rqa", canary, dir]);
        return true;
      } catch {
        return false;
      }
    };
    assert.equal(holdsCanary(), true);
    await drain(spool);
    await eventually(() => !holdsCanary(), "the value is gone from every file");
    await spool.close();
  });
});
