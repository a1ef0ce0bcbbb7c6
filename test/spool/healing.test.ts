import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { it } from "node:test";
import { Healing } from "../../agent/healing.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import { withJobs } from "../../agent/snapshot-jobs.ts";
import { wholeTable } from "../../agent/snapshots.ts";
import { type Database, entriesOf } from "../../agent/spool/database.ts";
import { queueKey } from "../../agent/spool/keys.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import { flipValue, orderKey } from "./damage-cases.ts";
import { capture, COUNT, filled, tuning } from "./damage-model.ts";
import {
  checkpoint,
  copyOpenState,
  event,
  eventually,
  memoryDatabase,
  openSpool,
  ORDERS,
  readAll,
  stateDirOf,
  Witness,
} from "./fixtures.ts";

/** What it does, in words, goes into `healed`. */
function healingOf(
  spool: Spool,
  canResume: () => Promise<boolean>,
): { readonly healing: Healing; readonly healed: readonly string[] } {
  const healed: string[] = [];
  const healing = new Healing({
    damages: spool.damages,
    checkpoint: () => spool.checkpoint(),
    canResume,
    atRest: (change) => change(),
    afterLossOf: (queue, progress) => ({
      progress: withJobs(progress, [wholeTable(queue, "resync")]),
      isHealing: true,
    }),
    gapEvent: ({ queue, first, last, resync }) =>
      event(9999, {
        queue,
        kind: "control",
        barrier: true,
        topic: "migration.control",
        id: `id-gap ${first} ${last} ${resync ? "is read again" : ""}`,
      }),
    beforeRewind: () => Promise.resolve(),
    rewound: () => healed.push("completeness is void"),
    healed: (how) => healed.push(how),
    clock: { ...systemClock, sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 5), signal) },
    log: new Witness(),
  });
  return { healing, healed };
}

for (const hasBinlog of [true, false]) {
  it(`waits for the database, and then ${hasBinlog ? "reads the lost part again" : "puts a gap event in its place"}`, async (t) => {
    const dir = await stateDirOf(t);
    const consumer = await filled(dir);
    await flipValue(await orderKey("middle")(dir), 60)(dir);
    const spool = await openSpool(dir, { tuning });
    let asked = 0;
    const { healing, healed } = healingOf(spool, async () => {
      asked += 1;
      if (asked < 3) throw new AgentError("SOURCE_UNREACHABLE", "it is away");
      return hasBinlog;
    });
    const stopping = new AbortController();
    const running = healing.run(stopping.signal);
    await consumer.deliver(spool);
    await eventually(() => healed.length > 0, "it is healed");
    assert.ok(asked >= 3);
    if (hasBinlog) {
      assert.deepEqual(healed, ["completeness is void", "rewound"]);
      await capture(spool);
      await consumer.deliver(spool);
      consumer.check();
    } else {
      assert.deepEqual(healed, ["gap"]);
      const { acked } = spool.queues().find(({ queue }) => queue === ORDERS) ?? assert.fail();
      const [gap] = await spool.read(ORDERS, acked, { maxEvents: 1, maxBytes: 1 });
      assert.match(gap?.id ?? "", /^id-gap \d+ \d+ is read again$/);
      assert.equal(spool.checkpoint()?.position, COUNT, "the checkpoint stays");
    }
    stopping.abort();
    await running;
    await spool.close();
  });
}

type Image = readonly (readonly [key: Buffer, value: Buffer])[];

/** A database that keeps what would lie on disk after each of its writes. */
function filmed(database: Database): { readonly database: Database; readonly images: Image[] } {
  const images: Image[] = [];
  const all = { gte: Buffer.from([0]), lte: Buffer.from([255, 255]) };
  const batch: Database["batch"] = () => {
    const inner = database.batch();
    return {
      put: (key, value) => inner.put(key, value),
      del: (key) => inner.del(key),
      write: async (options) => {
        await inner.write(options);
        const image: [Buffer, Buffer][] = [];
        for await (const entry of entriesOf(database, all)) image.push(entry);
        images.push(image);
      },
    };
  };
  return { database: { ...database, batch }, images };
}

async function databaseOf(image: Image): Promise<Database> {
  const database = memoryDatabase();
  await database.open();
  const batch = database.batch();
  for (const [key, value] of image) batch.put(key, value);
  await batch.write({ sync: true });
  return database;
}

it("leaves no moment at which a crash keeps the gap event and loses what is to be read for it", async (t) => {
  const dir = await stateDirOf(t);
  const memory = memoryDatabase();
  const { database, images } = filmed(memory);
  const spool = await openSpool(dir, { database });
  for (let n = 1; n <= 5; n += 1) await spool.append({ events: [event(n)], checkpoint: checkpoint(n) });
  const key = queueKey(1, { tag: 1, lane: "live" }, 3);
  const value = Buffer.from((await memory.get(key)) ?? "");
  value[50] = (value[50] ?? 0) ^ 0x10;
  const batch = memory.batch();
  batch.put(key, value);
  await batch.write({ sync: true });
  images.length = 0;
  const { healing, healed } = healingOf(spool, async () => false);
  const stopping = new AbortController();
  const running = healing.run(stopping.signal);
  assert.equal((await readAll(spool, ORDERS)).length, 2);
  await eventually(() => healed.length > 0, "it is healed");
  await spool.meta.put("later", 1);
  stopping.abort();
  await running;
  const seen = new Set<string>();
  for (const [index, image] of images.entries()) {
    const copy = `${dir}-${index}`;
    await copyOpenState(dir, copy);
    const again = await openSpool(copy, { database: await databaseOf(image) });
    const isTold = (await readAll(again, ORDERS)).some(({ id }) => id.startsWith("id-gap"));
    const isAsked = again.checkpoint()?.snapshot?.jobs.length === 1;
    seen.add(`${isTold} ${isAsked}`);
    await again.close();
    await rm(copy, { recursive: true });
  }
  assert.deepEqual(
    [...seen].filter((both) => both !== "false false"),
    ["true true"],
  );
  await spool.close();
});
