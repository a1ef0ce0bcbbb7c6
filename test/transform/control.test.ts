import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { OutboundEvent, SpooledEvent, TableEvent } from "../../agent/change.ts";
import { Changes, context, makeTransform, partOf, readEvent, textOf } from "./parts.ts";
import { sampleOf } from "./rows.ts";
import { sampleControlEvents } from "./generated.ts";
import { endSequenceOf, sequenceOf, streamSequencePrefix } from "../../agent/transform/sequence.ts";

function tableEvent(what: TableEvent["what"]): TableEvent {
  const { end, gtid, serverId, commitTimeMs, checkpoint } = partOf([]);
  return {
    kind: "table",
    table: 4,
    what,
    statement: "TRUNCATE TABLE",
    end,
    gtid,
    serverId,
    commitTimeMs,
    checkpoint,
  };
}

test("a reset table is a barrier in its entity's queue, and goes to the control topic", () => {
  const [event] = makeTransform().encode(tableEvent("reset"), context);
  assert.ok(event !== undefined);
  assert.deepEqual(
    [event.kind, event.queue, event.topic, event.barrier],
    ["control", "migration.order.changed", "migration.control", true],
  );
  const { type, data, sequence } = readEvent(event);
  assert.deepEqual(
    [type, data["entity"], data["table"], data["reason"]],
    ["magento.reset", "order", "sales_order", "TRUNCATE TABLE"],
  );
  assert.equal(data["sequence"], sequence);
});

test("a table that other rows stand in gives the same event", () => {
  const [replaced, reset] = (["replaced", "reset"] as const).map((what) =>
    makeTransform().encode(tableEvent(what), context).map(textOf),
  );
  assert.deepEqual(replaced, reset);
});

test("a reset comes before every row of its own group, which CREATE TABLE ... SELECT has", () => {
  const transform = makeTransform();
  const [reset] = transform.encode(tableEvent("reset"), context);
  const rows = new Changes(transform).insert("sales_order", { entity_id: 1 }).list;
  const [row] = transform.encode(partOf(rows), context);
  assert.ok(reset !== undefined && row !== undefined);
  const [before, after] = [readEvent(reset).sequence, readEvent(row).sequence];
  const placeOf = (sequence: string) => sequence.split(".").slice(0, 3);
  assert.deepEqual(placeOf(before), placeOf(after), "they are of one group");
  assert.ok(before < after, `${before} < ${after}`);
});

test("an altered table gives no event", () => {
  assert.deepEqual(makeTransform().encode(tableEvent("altered"), context), []);
});

test("a heartbeat says up to where everything was accepted", () => {
  const facts = {
    epoch: 5,
    completeUpToMs: 1000,
    file: "b.000001",
    position: 4,
    gtidSet: null,
    backlogEvents: 2,
    backlogBytes: 3,
    held: ["t"],
    quarantined: 1,
    nowMs: 9000,
  };
  const { type, data } = readEvent(makeTransform().control.heartbeat(facts));
  assert.equal(type, "magento.heartbeat");
  assert.deepEqual(
    [data["complete_up_to"], data["position"], data["held"]],
    ["1970-01-01T00:00:01.000Z", "b.000001:4", ["t"]],
  );
});

test("a changed mapping is told in the entity's queue", () => {
  const event = makeTransform().schemaChanged({
    entity: "coupon",
    schemaVersion: 2,
    previousVersion: 1,
    epoch: 5,
    position: { file: "b.000001", position: 4 },
    nowMs: 9000,
  });
  assert.deepEqual(
    [event.queue, event.barrier, readEvent(event).data["schema_version"]],
    ["migration.coupon.changed", true, 2],
  );
});

function refused(maxEventBytes: number): { event: SpooledEvent; letter: OutboundEvent } {
  const transform = makeTransform({ maxEventBytes });
  const [event] = transform.encode(
    partOf(new Changes(transform).insert("sales_order", sampleOf("order").row).list),
    context,
  );
  assert.ok(event !== undefined);
  const spooled = { ...event, seq: 1, otherLaneThrough: 0 };
  const verdict = { code: "ERR_PUBSUB_CLOUD_EVENTS_SER", reason: "refused", attempts: 3 };
  return { event: spooled, letter: transform.control.deadLetter(spooled, verdict) };
}

test("a dead letter carries the refused event's text, size and hash", () => {
  const { event, letter } = refused(100_000);
  const { type, data } = readEvent(letter);
  const text = textOf(event);
  assert.deepEqual(
    [type, letter.topic, data["attempts"], data["magento_id"]],
    ["magento.dead-letter", "migration.dlq", 3, 1001],
  );
  assert.deepEqual(
    [data["entity"], data["id"], data["sequence"]],
    ["order", readEvent(event).subject, readEvent(event).sequence],
  );
  assert.deepEqual([data["payload"], data["bytes"]], [text, Buffer.byteLength(text)]);
  assert.equal(data["sha256"], createHash("sha256").update(text).digest("hex"));
});

test("a dead letter over the limit leaves the payload out, and tells its size and hash all the same", () => {
  const { letter } = refused(4000);
  const { data } = readEvent(letter);
  assert.equal("payload" in data, false);
  assert.ok(
    letter.payload.length <= 4000 && typeof data["sha256"] === "string" && Number(data["bytes"]) > 1000,
  );
});

test("every control event's data holds type, id and sequence, for SDKs that show nothing else", () => {
  const events = sampleControlEvents();
  assert.equal(events.length, 11);
  for (const event of events) {
    const { id, type, data, sequence } = event;
    assert.deepEqual([data["type"], data["shop"]], [type, "demo"], type);
    // A dead letter names the event that it is about.
    if (type !== "magento.dead-letter") assert.equal(data["event_id"], id, type);
    assert.equal(data["sequence"], sequence ?? null, type);
  }
  const without = events.filter(({ sequence }) => sequence === undefined);
  assert.deepEqual(
    without.map(({ type, data }) => [type, data["position"]]),
    [["magento.heartbeat", null]],
    "only a heartbeat before the first position has none",
  );
});

test("a control event's place lies between what it covers and what comes later", () => {
  const end = { file: "b.000009", position: 500 };
  const at = (position: number, ordinal: number): string =>
    sequenceOf(streamSequencePrefix(5, { ...end, position }), ordinal, 1);
  const place = endSequenceOf(5, end);
  assert.equal(place.length, at(500, 0).length);
  assert.ok(at(500, 9_999_999_999) <= place && place < at(501, 0));
});
