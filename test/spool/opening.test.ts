import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import { AgentError } from "../../agent/kernel/errors.ts";
import { levelDatabase } from "../../agent/spool/database.ts";
import { metaKey, queueKey } from "../../agent/spool/keys.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import {
  checkpoint,
  CUSTOMERS,
  event,
  openSpool,
  ORDERS,
  randomOf,
  readAll,
  seedOf,
  spooled,
  stateDirOf,
  Witness,
} from "./fixtures.ts";

const COUNT = 400;
const orders = Array.from({ length: COUNT }, (_, n) => event(n));
const customers = Array.from({ length: COUNT }, (_, n) => event(n, { queue: CUSTOMERS }));

/** A state with 400 records in each of two queues: orders first, then customers. */
async function filled(t: TestContext): Promise<string> {
  const dir = await stateDirOf(t);
  const spool = await openSpool(dir);
  for (const [at, each] of [...orders, ...customers].entries()) {
    await spool.append({ events: [each], checkpoint: checkpoint(at + 1) });
  }
  await spool.close();
  return dir;
}

/** Changes the database behind the spool's back. */
async function tamper(
  dir: string,
  change: (database: ReturnType<typeof levelDatabase>) => Promise<void>,
): Promise<void> {
  const database = levelDatabase(join(dir, "spool"), { createIfMissing: false });
  await database.open();
  await change(database);
  await database.close();
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    assert.ok(error instanceof AgentError, String(error));
    return error.code;
  }
}

describe("opening the spool", () => {
  it("lets nobody else read the state: directories 0700, files 0600", async (t) => {
    const dir = join(await stateDirOf(t), "state");
    const spool = await openSpool(dir);
    await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
    await spool.close();
    assert.equal((await stat(dir)).mode & 0o777, 0o700);
    for (const entry of await readdir(dir, { withFileTypes: true, recursive: true })) {
      const { mode } = await stat(join(entry.parentPath, entry.name));
      assert.equal(mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, entry.name);
    }
  });

  it("refuses a directory that is in use", async (t) => {
    const dir = await stateDirOf(t);
    const spool = await openSpool(dir);
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_LOCKED");
    assert.equal(await codeOf(verifySpool(dir)), "SPOOL_LOCKED");
    await spool.close();
    await (await openSpool(dir)).close();
  });

  it("refuses a newer format, by its marker and by its records", async (t) => {
    const dir = await filled(t);
    await tamper(dir, async (database) => {
      const key = metaKey("format");
      const value = await database.get(key);
      assert.ok(value !== undefined);
      value[0] = 2;
      const batch = database.batch();
      batch.put(key, value);
      await batch.write({ sync: true });
    });
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_FORMAT");
    await writeFile(join(dir, "state.json"), '{"formatVersion":2,"createdMs":1}');
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_FORMAT");
    assert.equal(await codeOf(verifySpool(dir)), "SPOOL_FORMAT");
  });

  it("does not take a lost database for a first start", async (t) => {
    const dir = await filled(t);
    await rm(join(dir, "spool"), { recursive: true });
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_CORRUPT");
    await mkdir(join(dir, "spool"), { recursive: true });
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_CORRUPT");
  });

  it("names queue and record of a missing head, tail or middle, and of a strange one", async (t) => {
    const queue = { tag: 1, lane: "live" } as const;
    const cases = [
      { seq: 1, atOpen: true },
      { seq: COUNT, atOpen: true },
      { seq: 200, atOpen: false },
    ];
    for (const { seq, atOpen } of cases) {
      const dir = await filled(t);
      await tamper(dir, async (database) => {
        const batch = database.batch();
        batch.del(queueKey(queue, seq));
        await batch.write({ sync: true });
      });
      const message = new RegExp(`Record ${seq} of queue ${ORDERS.replaceAll(".", "\\.")}`);
      if (atOpen) {
        await assert.rejects(openSpool(dir), { code: "SPOOL_CORRUPT", message });
      } else {
        const spool = await openSpool(dir);
        assert.equal((await spool.read(ORDERS, 190, { maxEvents: 99, maxBytes: 1e6 })).length, 9);
        await assert.rejects(readAll(spool, ORDERS), { code: "SPOOL_CORRUPT", message });
        assert.equal((await readAll(spool, CUSTOMERS)).length, COUNT, "another queue goes on");
        await spool.close();
      }
      const { faults } = await verifySpool(dir);
      assert.deepEqual(faults, [{ queue: ORDERS, seq, what: "it is missing" }]);
    }
    const dir = await filled(t);
    await tamper(dir, async (database) => {
      const batch = database.batch();
      batch.put(queueKey({ tag: 9, lane: "live" }, 1), Buffer.from("?"));
      await batch.write({ sync: true });
    });
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_CORRUPT");
  });

  it("keeps the bytes of a damaged record as evidence and delivers what is sound before it", async (t) => {
    const dir = await filled(t);
    const key = queueKey({ tag: 1, lane: "live" }, 150);
    let damaged = Buffer.alloc(0);
    await tamper(dir, async (database) => {
      damaged = Buffer.from((await database.get(key)) ?? "");
      damaged[40] = (damaged[40] ?? 0) ^ 4;
      const batch = database.batch();
      batch.put(key, damaged);
      await batch.write({ sync: true });
    });
    const spool = await openSpool(dir);
    const sound = await spool.read(ORDERS, 100, { maxEvents: 400, maxBytes: 1e6 });
    assert.deepEqual(
      sound,
      orders.slice(100, 149).map((each, at) => spooled(each, 101 + at)),
    );
    await assert.rejects(spool.read(ORDERS, 149, { maxEvents: 1, maxBytes: 1 }), {
      code: "SPOOL_CORRUPT",
      message: /Record 150 of queue migration\.order\.changed is damaged: wrong checksum/,
    });
    await spool.close();
    const evidence = join(dir, "evidence", "1-live-150.record");
    assert.deepEqual(await readFile(evidence), damaged);
    assert.equal((await stat(evidence)).mode & 0o777, 0o600);
    const { faults } = await verifySpool(dir);
    assert.deepEqual(faults, [{ queue: ORDERS, seq: 150, what: "wrong checksum" }]);
  });

  it("never delivers what a flipped bit on disk made, and never loses silently (invariant 8)", async (t) => {
    const random = randomOf(seedOf(t));
    for (const compacted of [false, true]) {
      for (let round = 0; round < 12; round++) await flipOneBit(await filled(t), compacted, random);
    }
  });
});

/** After it, every record is either delivered as it was, or named, or the checkpoint is before it. */
async function flipOneBit(dir: string, compacted: boolean, random: () => number): Promise<void> {
  const path = join(dir, "spool");
  if (compacted) {
    await tamper(dir, (database) => database.compactRange(Buffer.from([0]), Buffer.from([255])));
  }
  const ending = compacted ? ".ldb" : ".log";
  const sizes = await Promise.all(
    (await readdir(path))
      .filter((name) => name.endsWith(ending))
      .map(async (name) => ({ name, bytes: (await stat(join(path, name))).size })),
  );
  const { name } = sizes.reduce((most, each) => (each.bytes > most.bytes ? each : most));
  const bytes = await readFile(join(path, name));
  const at = Math.floor(random() * bytes.length);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random() * 8));
  await writeFile(join(path, name), bytes);

  const witness = new Witness();
  const place = `byte ${at} of ${name}`;
  let spool;
  try {
    spool = await openSpool(dir, { witness });
  } catch (error) {
    assert.ok(error instanceof AgentError && error.code === "SPOOL_CORRUPT", `${place}: ${String(error)}`);
    return;
  }
  const covered = spool.checkpoint()?.position ?? 0;
  let named = false;
  let delivered = 0;
  for (const [queue, events] of [
    [ORDERS, orders],
    [CUSTOMERS, customers],
  ] as const) {
    let after = 0;
    try {
      for (;;) {
        const more = await spool.read(queue, after, { maxEvents: 50, maxBytes: 1e6 });
        if (more.length === 0) break;
        const expected = events.slice(after, after + more.length);
        assert.deepEqual(
          more,
          expected.map((each, i) => spooled(each, after + 1 + i)),
          place,
        );
        after += more.length;
        delivered += more.length;
      }
    } catch (error) {
      assert.ok(error instanceof AgentError && error.code === "SPOOL_CORRUPT", `${place}: ${String(error)}`);
      named = true;
    }
  }
  await spool.close();
  if (!named) assert.equal(delivered, covered, `${place}: everything before the checkpoint is there`);
  if (covered < COUNT * 2) assert.ok(witness.warnings.length > 0, `${place}: the lost tail is told of`);
}
