/** Quarantine on disk: what overtakes an event, what outlives a restart, and what goes when. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { OutboundEvent, SpooledEvent } from "../../agent/change.ts";
import { systemClock, type Clock } from "../../agent/kernel/service.ts";
import type { QuarantineVerdict } from "../../agent/ports.ts";
import { type Database, entriesOf } from "../../agent/spool/database.ts";
import { quarantineRoom } from "../../agent/spool/keys.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import {
  checkpoint,
  CUSTOMERS,
  event,
  eventually,
  memoryDatabase,
  openSpool,
  ORDERS,
  quarantinedIn,
  readAll,
  stateDirOf,
  Witness,
} from "./fixtures.ts";

function verdictOf(sequence: string | null): QuarantineVerdict {
  const about = { entity: "order", id: "uuid", magentoId: 1, sequence, bytes: 10 };
  return { code: "X", reason: "refused", attempts: 3, deadLetterAccepted: true, about };
}

/** Appends the events and gives them back as they are read. */
async function spooledIn(spool: Spool, ...events: OutboundEvent[]): Promise<SpooledEvent[]> {
  await spool.append({ events, checkpoint: checkpoint(spool.queues().length * 1000 + events.length) });
  return (await Promise.all(spool.queues().map(({ queue }) => readAll(spool, queue)))).flat();
}

/** What overtook the entry of that event; "gone" when there is no such entry. */
async function overtakenBy(spool: Spool, id: string): Promise<string | null> {
  const found = await spool.quarantined.find(id);
  return found === null ? "gone" : found.overtakenBy;
}

async function opened(t: TestContext): Promise<{ spool: Spool; reopen: () => Promise<Spool> }> {
  const dir = await stateDirOf(t);
  let spool = await openSpool(dir);
  const reopen = async (): Promise<Spool> => {
    await spool.close();
    spool = await openSpool(dir);
    return spool;
  };
  return { spool, reopen };
}

test("a newer accepted event of the entity overtakes a quarantined one, durably; no other does", async (t) => {
  const { spool, reopen } = await opened(t);
  const [old, other] = await spooledIn(spool, event(1), event(2));
  assert.ok(old !== undefined && other !== undefined);
  await spool.quarantine(old, verdictOf("5"));
  assert.equal(spool.quarantined.concerns(other), false, "another entity is nobody's business");
  const later = { ...old, seq: 3, id: "later" };
  assert.equal(spool.quarantined.concerns(later), true);
  spool.quarantined.accepted({ ...old, seq: 9, id: "re-read" }, "4");
  assert.equal(await overtakenBy(spool, "id-1"), null, "a repeat of something older overtakes nothing");
  spool.quarantined.accepted(later, "6");
  spool.quarantined.accepted({ ...later, seq: 4 }, "7");
  assert.equal(await overtakenBy(spool, "id-1"), "6", "the first one is enough");
  assert.equal(spool.quarantined.concerns(later), false, "and no more is looked at");
  spool.ack(ORDERS, 2);
  const again = await reopen();
  assert.equal(await overtakenBy(again, "id-1"), "6");
  assert.equal(again.quarantined.concerns(later), false);
});

test("a control event in the queue overtakes every older event of that queue", async (t) => {
  const { spool } = await opened(t);
  const [order, customer] = await spooledIn(spool, event(1), event(2, { queue: CUSTOMERS }));
  assert.ok(order !== undefined && customer !== undefined);
  await spool.quarantine(order, verdictOf("5"));
  await spool.quarantine(customer, verdictOf("5"));
  const reset: SpooledEvent = { ...order, seq: 8, kind: "control", entityKey: "", barrier: true };
  assert.equal(spool.quarantined.concerns(reset), true);
  spool.quarantined.accepted({ ...reset, lane: "bulk" }, "6");
  assert.equal(await overtakenBy(spool, "id-1"), null, "the end of a resync of other rows is none");
  spool.quarantined.accepted(reset, null);
  assert.equal(await overtakenBy(spool, "id-1"), null, "one without a place says nothing");
  spool.quarantined.accepted(reset, "6");
  assert.equal(await overtakenBy(spool, "id-1"), "6");
  assert.equal(await overtakenBy(spool, "id-2"), null, "another queue is untouched");
});

test("an event that is accepted after all is in quarantine no longer, after a restart too", async (t) => {
  const { spool, reopen } = await opened(t);
  const [first, second] = await spooledIn(spool, event(1), event(2, { entityKey: "sales_order:1" }));
  assert.ok(first !== undefined && second !== undefined);
  await spool.quarantine(first, verdictOf("5"));
  await spool.quarantine(second, verdictOf("6"));
  assert.equal(spool.quarantined.has(ORDERS, 2), true);
  spool.quarantined.accepted(second, "6");
  assert.equal(spool.quarantined.has(ORDERS, 2), false);
  assert.equal(spool.quarantined.count, 1);
  assert.equal(await overtakenBy(spool, "id-1"), "6");
  const again = await reopen();
  assert.deepEqual([await overtakenBy(again, "id-1"), await overtakenBy(again, "id-2")], ["6", "gone"]);
});

/** As transform makes it: class 9 is a snapshot or resync. */
function readSequence(generation: number, ordinal: string): string {
  return `0000000001.0000000001.0000000000000200.9.${String(generation).padStart(6, "0")}.${ordinal}.1`;
}
const END = "9999999999";

test("an event whose row is read again leaves quarantine with that row, after a restart too", async (t) => {
  const { spool, reopen } = await opened(t);
  const [order] = await spooledIn(spool, event(1));
  assert.ok(order !== undefined);
  const stream = "0000000001.0000000001.0000000000000100.1.000000.0000000001.1";
  await spool.quarantine(order, verdictOf(stream));
  spool.quarantined.accepted({ ...order, seq: 9 }, stream.replace("100", "150"));
  await spool.quarantined.awaitResync(new Set(["id-1"]), 7);
  const again = await reopen();
  const found = await again.quarantined.find("id-1");
  assert.deepEqual([found?.resync, found?.overtakenBy], [7, stream.replace("100", "150")]);
  const row: SpooledEvent = { ...order, seq: 3, id: "row", lane: "bulk" };
  assert.equal(again.quarantined.concerns(row), true);
  const elsewhere = { ...row, queue: CUSTOMERS };
  again.quarantined.accepted({ ...order, seq: 10 }, stream.replace("100", "180"));
  again.quarantined.accepted(row, readSequence(6, "0000000001"));
  again.quarantined.accepted(elsewhere, readSequence(7, "0000000001"));
  assert.equal(again.quarantined.count, 1, "no change of the stream, no earlier resync, no other topic");
  again.quarantined.accepted(row, readSequence(7, "0000000001"));
  assert.equal(again.quarantined.count, 0);
  assert.equal((await reopen()).quarantined.count, 0);
});

test("where there is no such row, the end of the resync takes it out; where the row was refused too, it stays", async (t) => {
  const { spool } = await opened(t);
  const [gone, refused] = await spooledIn(spool, event(1), event(2, { entityKey: "sales_order:2" }));
  assert.ok(gone !== undefined && refused !== undefined);
  await spool.quarantine(gone, verdictOf("5"));
  await spool.quarantine(refused, verdictOf("5"));
  await spool.quarantined.awaitResync(new Set(["id-1", "id-2"]), 7);
  await spool.quarantine({ ...refused, seq: 3, id: "row" }, verdictOf(readSequence(7, "0000000001")));
  const control: SpooledEvent = { ...gone, seq: 8, kind: "control", entityKey: "", barrier: true };
  spool.quarantined.accepted(control, readSequence(7, "0000000000"));
  assert.equal(spool.quarantined.count, 3, "its beginning says nothing");
  spool.quarantined.accepted(control, readSequence(7, END));
  assert.deepEqual(spool.quarantined.idsOf("").sort(), ["id-2", "row"]);
});

test("what is accepted by another topic overtakes nothing", async (t) => {
  const { spool } = await opened(t);
  const [order] = await spooledIn(spool, event(1));
  assert.ok(order !== undefined);
  await spool.quarantine(order, verdictOf("5"));
  spool.quarantined.accepted({ ...order, queue: CUSTOMERS, seq: 9 }, "6");
  assert.equal(await overtakenBy(spool, "id-1"), null);
});

test("a refused retry replaces the verdict and keeps the time", async (t) => {
  const clock: Clock & { nowMs: number } = { ...systemClock, nowMs: Date.now(), wallMs: () => clock.nowMs };
  const spool = await openSpool(await stateDirOf(t), { clock });
  const [one] = await spooledIn(spool, event(1));
  assert.ok(one !== undefined);
  await spool.quarantine(one, verdictOf("5"));
  const atMs = clock.nowMs;
  clock.nowMs += 60_000;
  await spool.quarantine(one, { ...verdictOf("5"), attempts: 4 });
  const found = await spool.quarantined.find("id-1");
  assert.deepEqual([found?.verdict.attempts, found?.quarantinedAtMs, spool.quarantined.count], [4, atMs, 1]);
});

test("an event goes when it is QUARANTINE_KEEP_DAYS old, and not a minute earlier", async (t) => {
  const clock: Clock & { nowMs: number } = { ...systemClock, nowMs: Date.now(), wallMs: () => clock.nowMs };
  const dir = await stateDirOf(t);
  const database = memoryDatabase();
  const spool = await openSpool(dir, { clock, database, quarantineKeepDays: 2 });
  const [first, second] = await spooledIn(spool, event(1), event(2));
  assert.ok(first !== undefined && second !== undefined);
  await spool.quarantine(first, verdictOf("5"));
  spool.quarantined.accepted({ ...first, seq: 9 }, "6");
  clock.nowMs += 60_000;
  await spool.quarantine(second, verdictOf("5"));
  clock.nowMs += 2 * 86_400_000 - 60_000;
  assert.equal(await spool.quarantined.expire(), 0, "exactly two days");
  clock.nowMs += 1;
  assert.equal(await spool.quarantined.expire(), 1);
  assert.equal(await overtakenBy(spool, "id-1"), "gone");
  clock.nowMs += 60_000;
  assert.equal(await spool.quarantined.expire(), 1);
  assert.equal(spool.quarantined.count, 0);
  await spool.close();
  await database.open();
  const left: string[] = [];
  const everything = { gte: Buffer.from([0]), lte: Buffer.from([255]) };
  for await (const [key] of entriesOf(database, everything)) left.push(key.toString("latin1"));
  assert.ok(
    left.every((key) => !key.startsWith("\u0004") && !key.includes("overtaken")),
    left.join(" "),
  );
});

test("a damaged entry is listed and can be dropped; the others are served", async (t) => {
  const dir = await stateDirOf(t);
  const database = memoryDatabase();
  let spool = await openSpool(dir, { database });
  const [first, second] = await spooledIn(spool, event(1), event(2));
  assert.ok(first !== undefined && second !== undefined);
  await spool.quarantine(first, verdictOf("5"));
  await spool.quarantine(second, verdictOf("6"));
  await spool.close();
  await database.open();
  const damaged = await damageFirst(database);
  await database.close();
  const witness = new Witness();
  spool = await openSpool(dir, { database, witness });
  assert.equal(spool.quarantined.count, 2);
  assert.ok(witness.warnings.some((line) => line.includes("quarantined event is damaged")));
  const listed = [];
  for await (const one of spool.quarantined.list()) listed.push("damage" in one ? "damaged" : one.entry.id);
  assert.deepEqual(listed, ["damaged", "id-2"]);
  assert.equal(await spool.quarantined.dropIds(new Set([damaged])), 1);
  await eventually(() => spool.quarantined.count === 1, "only the sound one is left");
  assert.equal((await quarantinedIn(spool)).length, 1);
});

/** Flips a byte of the first entry's value; says its key in hexadecimal. */
async function damageFirst(database: Database): Promise<string> {
  for await (const [key, value] of entriesOf(database, quarantineRoom)) {
    const flipped = Buffer.from(value);
    flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 0xff;
    const batch = database.batch();
    batch.put(key, flipped);
    await batch.write({ sync: true });
    return key.toString("hex");
  }
  throw new Error("nothing is in quarantine");
}
