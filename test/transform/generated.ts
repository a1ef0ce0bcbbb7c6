/** Files that are made from the code, and their texts; a test fails when they differ. */
import type { SnapshotChunk, SnapshotPurpose, TableEvent, Value } from "../../agent/change.ts";
import { packRows } from "../../agent/packed-rows.ts";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { eventJsonSchema, eventTypes, personalFieldsSource } from "../../agent/transform/json-schema.ts";
import { mappingFileSchema } from "../../agent/transform/mapping-schema.ts";
import { Changes, context, makeTransform, partOf, readEvent, type ReadEvent } from "./parts.ts";
import { sampleOf, sampleRows } from "./rows.ts";

function pretty(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Create, update and delete of each entity's sample row, as consumers receive them. */
function goldenEvents(): [path: string, text: string][] {
  const transform = makeTransform();
  return sampleRows.map(({ entity, table, row, update }) => {
    const after = { ...row, ...update };
    const transactions = [
      new Changes(transform).insert(table, row),
      new Changes(transform).update(table, row, after),
      new Changes(transform).delete(table, after),
    ];
    const events = transactions.flatMap((changes, index) => {
      const end = { file: "mariadb-bin.000042", position: 98_765 + index * 1000 };
      return transform
        .encode(partOf(changes.list, { end, gtid: `0-1-${12_345 + index}` }), context)
        .map(readEvent);
    });
    return [`docs/events/${entity}.json`, pretty(events)];
  });
}

/** A whole entity of one row, read at a place where the stream stands. */
export function sampleChunk(
  transform: ReturnType<typeof makeTransform>,
  purpose: SnapshotPurpose = "rows",
): SnapshotChunk {
  const { end, serverId, checkpoint } = partOf([]);
  const table = transform.tables.findIndex((one) => one.table === "salesrule_coupon");
  const row: Readonly<Record<string, Value>> = sampleOf("coupon").row;
  const columns = transform.tables[table]?.columns ?? [];
  return {
    kind: "chunk",
    table,
    job: {
      generation: purpose === "rows" ? 7 : 8,
      table: "salesrule_coupon",
      reason: purpose === "rows" ? "initial" : "verify",
      scope: { kind: "all" },
      purpose,
      topic: null,
      begun: { epoch: context.epoch, position: end, atMs: context.capturedAtMs - 5000, rowsEstimated: 1 },
      after: null,
      rows: 0,
    },
    isFirst: true,
    isReshaped: true,
    isLast: true,
    rows: packRows(columns.length, [columns.map((column) => row[column])]),
    overtaken: new Map(),
    position: { ...end, position: end.position + 4000 },
    ...(purpose === "rows" ? {} : { keyRange: { after: null, through: null } }),
    serverId,
    readAtMs: context.capturedAtMs - 20,
    commitTimeMs: null,
    checkpoint,
  };
}

/** One of each control event, and a dead letter, as consumers receive them. */
export function sampleControlEvents(): ReadEvent[] {
  const transform = makeTransform();
  const { end, gtid, serverId, commitTimeMs, checkpoint } = partOf([]);
  const table = transform.tables.findIndex((one) => one.table === "sales_order");
  const statement = "TRUNCATE TABLE";
  const reset: TableEvent = {
    kind: "table",
    table,
    what: "reset",
    statement,
    end,
    gtid,
    serverId,
    commitTimeMs,
    checkpoint,
  };
  const heartbeat = {
    epoch: context.epoch,
    completeUpToMs: commitTimeMs - 1,
    file: end.file,
    position: end.position,
    gtidSet: gtid,
    backlogEvents: 12,
    backlogBytes: 14_400,
    held: ["migration.stock.changed"],
    quarantined: 1,
    nowMs: context.capturedAtMs,
  };
  const nothingYet = { ...heartbeat, completeUpToMs: null, file: null, position: null, gtidSet: null };
  const [refused] = transform.encode(
    partOf(new Changes(transform).insert("salesrule_coupon", sampleOf("coupon").row).list),
    context,
  );
  if (refused === undefined) throw new Error("the sample coupon gives an event");
  const verdict = { code: "ERR_PUBSUB_EVENTS_SER", reason: "Dapr refused the event", attempts: 3 };
  return [
    transform.control.heartbeat(heartbeat),
    transform.control.heartbeat({ ...nothingYet, nowMs: context.capturedAtMs - 10_000 }),
    ...transform.encode(reset, context),
    transform.schemaChanged({
      entity: "coupon",
      schemaVersion: 2,
      previousVersion: 1,
      epoch: context.epoch,
      position: end,
      nowMs: context.capturedAtMs,
    }),
    ...transform.encode(sampleChunk(transform), context).filter(({ kind }) => kind === "control"),
    ...transform.encode(sampleChunk(transform, "digests"), context),
    transform.control.deadLetter({ ...refused, seq: 1, otherLaneThrough: 0 }, verdict),
  ].map(readEvent);
}

/** Path from the root of the repository -> text. */
export function generatedFiles(): ReadonlyMap<string, string> {
  const files = new Map<string, string>(goldenEvents());
  files.set("docs/events/control.json", pretty(sampleControlEvents()));
  files.set("docs/mapping.schema.json", pretty(mappingFileSchema));
  for (const entity of defaultMapping.entities) {
    files.set(`cluster/schemas/${entity.entity}.schema.json`, pretty(eventJsonSchema(entity)));
  }
  files.set("cluster/schemas/events.ts", eventTypes(defaultMapping));
  files.set("cluster/schemas/personal-fields.ts", personalFieldsSource(defaultMapping));
  return files;
}
