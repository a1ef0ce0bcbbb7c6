import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { entityEvent, isRecord } from "../../cluster/consumer/event.ts";
import * as consumer from "../../cluster/consumer/row-hash.ts";
import type { OutboundEvent, SnapshotChunk, SnapshotScope, Value } from "../../agent/change.ts";
import { packRows } from "../../agent/packed-rows.ts";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import type { Treatment } from "../../agent/transform/mapping.ts";
import { canonicalJson, rangeHash, rowHash } from "../../agent/transform/row-hash.ts";
import { endSequenceOf, sequenceOf, streamSequencePrefix } from "../../agent/transform/sequence.ts";
import { Changes, context, makeTransform, partOf, readEvent, type ReadEvent } from "./parts.ts";
import { sampleOf, sampleRows } from "./rows.ts";
import { sampleChunk } from "./generated.ts";

const docs = join(import.meta.dirname, "..", "..", "docs");
type Transform = ReturnType<typeof makeTransform>;
type Row = Readonly<Record<string, Value>>;

/** A chunk of a table's rows, of a job that read others before. */
function chunkOf(
  transform: Transform,
  table: string,
  rows: readonly Row[],
  more: {
    readonly scope?: SnapshotScope;
    readonly before?: number;
    readonly changed?: Partial<SnapshotChunk>;
  } = {},
): SnapshotChunk {
  const sample = sampleChunk(transform, "digests");
  const { keyRange: _range, ...chunk } = sample;
  const index = transform.tables.findIndex((one) => one.table === table);
  const columns = transform.tables[index]?.columns ?? [];
  const { scope = { kind: "all" }, before = 0 } = more;
  return {
    ...chunk,
    table: index,
    job: { ...chunk.job, table, scope, rows: before },
    rows: packRows(
      columns.length,
      rows.map((row) => columns.map((column) => row[column])),
    ),
    ...more.changed,
  };
}

function listOf(event: ReadEvent): readonly (readonly [string | number, string | null])[] {
  const { rows } = event.data;
  assert.ok(Array.isArray(rows));
  return rows;
}

/** The digest's hash of one row. */
function hashIn(transform: Transform, table: string, row: Row): string | null {
  const [digest] = transform.encode(chunkOf(transform, table, [row]), context).map(readEvent);
  assert.ok(digest !== undefined && digest.type === "magento.digest");
  return listOf(digest)[0]?.[1] ?? null;
}

/** As a consumer hashes what it was sent. */
function hashOfDelivered(event: OutboundEvent | undefined): string {
  assert.ok(event !== undefined);
  const { magentoId, fields } = entityEvent(readEvent(event).data);
  return consumer.rowHash(magentoId, fields);
}

test("the worked example of docs/events.md is right, by its own words", () => {
  const page = readFileSync(join(docs, "events.md"), "utf8");
  const [, canonical = "", hash = ""] = /```json\n(\[31,.*\])\n```\n+.*`([0-9a-f]{16})`/.exec(page) ?? [];
  const events: readonly ReadEvent[] = JSON.parse(readFileSync(join(docs, "events", "coupon.json"), "utf8"));
  const { magentoId, fields } = entityEvent(events[0]?.data ?? {});
  assert.equal(canonical, canonicalJson([magentoId, fields]));
  assert.equal(createHash("sha256").update(canonical, "utf8").digest("hex").slice(0, 16), hash);
  const control: readonly ReadEvent[] = JSON.parse(
    readFileSync(join(docs, "events", "control.json"), "utf8"),
  );
  const digest = control.find(({ type }) => type === "magento.digest");
  assert.ok(digest !== undefined);
  assert.deepEqual(listOf(digest), [[31, hash]]);
  assert.equal(digest.data["hash"], rangeHash([hash]));
});

test("a row's hash is that of every event which brings it: created, updated, read", () => {
  const transform = makeTransform();
  for (const { table, row, update } of sampleRows) {
    const after = { ...row, ...update };
    const events = [
      ...transform.encode(partOf(new Changes(transform).insert(table, after).list), context),
      ...transform.encode(partOf(new Changes(transform).update(table, row, after).list), context),
      ...transform
        .encode({ ...chunkOf(transform, table, [after]), job: sampleChunk(transform).job }, context)
        .filter(({ kind }) => kind === "entity"),
    ];
    assert.equal(events.length, 3, table);
    for (const event of events) assert.equal(hashIn(transform, table, after), hashOfDelivered(event), table);
    assert.notEqual(hashIn(transform, table, row), hashIn(transform, table, after), table);
  }
});

test("what is masked, hashed or truncated is hashed as it is delivered; bytes of an old value are no part of it", () => {
  const treatments: Readonly<Record<string, Treatment>> = {
    code: { kind: "hash" },
    created_at: { kind: "mask" },
    usage_limit: { kind: "none" },
  };
  const mapping = {
    ...defaultMapping,
    entities: defaultMapping.entities.map((entity) => ({
      ...entity,
      fields: entity.fields.map((field) => ({
        ...field,
        treatment: treatments[field.column] ?? field.treatment,
      })),
    })),
  };
  const transform = makeTransform({ mapping, fieldHashKey: "a key" });
  const { row } = sampleOf("coupon");
  const [event] = transform.encode(
    partOf(new Changes(transform).insert("salesrule_coupon", row).list),
    context,
  );
  assert.equal(hashIn(transform, "salesrule_coupon", row), hashOfDelivered(event));
  const other = { ...row, created_at: "2001-01-01T00:00:00Z" };
  assert.equal(hashIn(transform, "salesrule_coupon", other), hashIn(transform, "salesrule_coupon", row));

  const plain = makeTransform();
  const invalid = (base64: string): Row => ({ ...row, code: { text: "\uFFFD", base64 } });
  const [updated] = plain.encode(
    partOf(new Changes(plain).update("salesrule_coupon", invalid("gA=="), invalid("gQ==")).list),
    context,
  );
  assert.equal(hashIn(plain, "salesrule_coupon", invalid("gQ==")), hashOfDelivered(updated));
  assert.notEqual(
    hashIn(plain, "salesrule_coupon", invalid("gQ==")),
    hashIn(plain, "salesrule_coupon", invalid("gA==")),
  );
});

test("a row too large to be delivered has no hash, and one that is delivered without its largest fields has theirs", () => {
  const large = { ...sampleOf("coupon").row, code: "x".repeat(9_000) };
  const transform = makeTransform({ maxEventBytes: 8_000 });
  const [digest] = transform.encode(chunkOf(transform, "salesrule_coupon", [large]), context).map(readEvent);
  assert.ok(digest !== undefined);
  assert.deepEqual([listOf(digest), digest.data["hash"], digest.data["count"]], [[[31, null]], null, 1]);

  const entities = defaultMapping.entities.map((one) => ({ ...one, oversize: "omit" as const }));
  const cutting = makeTransform({ maxEventBytes: 8_000, mapping: { ...defaultMapping, entities } });
  const [event] = cutting.encode(
    partOf(new Changes(cutting).insert("salesrule_coupon", large).list),
    context,
  );
  assert.ok(event !== undefined && !event.oversize);
  assert.equal(hashIn(cutting, "salesrule_coupon", large), hashOfDelivered(event));
});

test("digests are barriers of the bulk lane, newer than all up to their place and older than all behind it", () => {
  const transform = makeTransform();
  const chunk = chunkOf(transform, "salesrule_coupon", [sampleOf("coupon").row]);
  const [digest, verified] = transform.encode(chunk, context);
  assert.ok(digest !== undefined && verified !== undefined);
  for (const event of [digest, verified]) {
    assert.deepEqual(
      [event.kind, event.queue, event.lane, event.topic, event.barrier],
      ["control", "migration.coupon.changed", "bulk", "migration.control", true],
    );
    const { sequence } = readEvent(event);
    const later = { ...chunk.position, position: chunk.position.position + 1 };
    assert.ok(endSequenceOf(context.epoch, chunk.position) < sequence);
    assert.ok(sequence < sequenceOf(streamSequencePrefix(context.epoch, later), 0, 0));
    const read = { ...chunk, job: { ...chunk.job, purpose: "rows" as const } };
    const row = transform
      .encode(read, context)
      .map(readEvent)
      .find(({ type }) => type === "magento.coupon.read");
    assert.ok(row !== undefined && row.sequence < sequence);
  }
});

test("a large chunk is told in several digests, whose ranges and rows follow each other without a gap", () => {
  const transform = makeTransform();
  const rows = Array.from({ length: 3_500 }, (_, index) => ({
    ...sampleOf("coupon").row,
    coupon_id: 1_000 + index * 2,
  }));
  const chunk = chunkOf(transform, "salesrule_coupon", rows, {
    before: 40,
    changed: { isLast: false, keyRange: { after: "998", through: "8000" } },
  });
  const digests = transform.encode(chunk, context).map(readEvent);
  assert.equal(digests.length, 4);
  assert.equal(new Set(digests.map(({ id }) => id)).size, 4);
  let [after, offset]: [unknown, number] = ["998", 40];
  for (const { data } of digests) {
    const { range } = data;
    assert.ok(isRecord(range));
    assert.deepEqual([range["after"], data["offset"]], [after, offset]);
    after = range["through"];
    offset += Number(data["count"]);
  }
  assert.deepEqual([after, offset], ["8000", 3_540]);
  assert.deepEqual(
    digests.flatMap(listOf).map(([key]) => key),
    rows.map((row) => row.coupon_id),
  );

  const long = Array.from({ length: 900 }, (_, index) => ({
    ...sampleOf("source-item").row,
    sku: `${"\u0001".repeat(250)}${index}`,
  }));
  const encoded = transform.encode(chunkOf(transform, "inventory_source_item", long), context);
  assert.ok(encoded.length > 2);
  for (const { payload } of encoded) assert.ok(payload.length < 1_000_000, String(payload.length));
  const [first] = encoded.map(readEvent);
  assert.equal(first?.data["range"], null, "its key is no single integer");
});

test("a chunk without rows is told too, and the end says what was asked for", () => {
  const transform = makeTransform();
  const scope: SnapshotScope = { kind: "keys", keys: ["5", "31"] };
  const [digest, verified] = transform
    .encode(chunkOf(transform, "salesrule_coupon", [], { scope, before: 12 }), context)
    .map(readEvent);
  assert.deepEqual([digest?.data["count"], digest?.data["offset"], digest?.data["rows"]], [0, 12, []]);
  const { keys, rows, from, to } = verified?.data ?? {};
  assert.ok(Array.isArray(keys));
  assert.deepEqual(
    [keys.map((key: unknown) => (isRecord(key) ? key["magento_id"] : null)), rows, from, to],
    [[5, 31], 12, null, null],
  );
});

test("the agent and the consumer write the same canonical JSON, which is RFC 8785's", () => {
  // From the RFC's own examples.
  const parsed: unknown = JSON.parse(
    '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001,-0],"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false],"\\u20ac":1,"\\r":2,"\\ufb33":3,"1":4,"\\ud83d\\ude00":5,"\\u0080":6,"\\u00f6":7}',
  );
  const expected =
    '{"\\r":2,"1":4,"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,0],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/","\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}';
  assert.equal(canonicalJson(parsed), expected);
  assert.equal(consumer.canonicalJson(parsed), expected);
  for (const fields of [
    { b: 1, a: null, invalid_text: { "before.a": "gA==" } },
    { b: 1, a: "\ud800", invalid_text: { "before.a": "gA==", a: "gQ==" } },
    { nested: { y: [1.5, { z: 2, a: [] }], x: {} } },
  ]) {
    assert.equal(rowHash("1:5", { op: "r", sequence: "9", ...fields }), consumer.rowHash("1:5", fields));
  }
});
