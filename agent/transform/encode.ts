/**
 * Changes of entities -> events on the wire (spec.md section 4). Encode once: what is made here
 * goes to the spool and from there to Dapr byte by byte.
 */
import type { OutboundEvent, PackedRows, Value } from "../change.ts";
import { treatedUnits } from "./entity-plan.ts";
import type { EntityPlan, FieldPlan, FieldText } from "./entity-plan.ts";
import type { PartFrame } from "./frame.ts";
import { entityKeyOf, magentoIdOf } from "./identity.ts";
import type { EntityChange } from "./merge.ts";
import { RowWriter } from "./row-writer.ts";
import { eventId, readId, sequenceOf, traceparentOf } from "./sequence.ts";
import { embed, embedValue, numberText, stringText, textUnits } from "./wire.ts";

/** A change that gives an event. `names` and `before` are wire text of an update's differences. */
export interface PlannedEvent {
  readonly plan: EntityPlan;
  readonly change: EntityChange;
  readonly names: string;
  readonly before: string;
  /** An old value may be a text that is not valid in its character set. */
  readonly oldObjects: boolean;
}

/** What of an event is left out because the whole is too large. */
interface Cut {
  readonly fields: ReadonlySet<FieldPlan>;
  readonly before: boolean;
  /** The event is only ids and origin; the size it would have had. */
  readonly stubBytes: number | null;
}

const nothing: Cut = { fields: new Set(), before: false, stubBytes: null };
const literalStart = `"${embed('{"specversion":"1.0","id":"')}`;
const afterSubject = embed('","time":"');
const afterTime = embed('","datacontenttype":"application/json","sequence":"');
const afterSequence = embed('","partitionkey":"');
const afterTraceparent = embed('","traceid":"');
const afterDataId = embed('","magento_id":');
const afterEventId = embed('","sequence":"');
const endQuote = embed('"');
const changedStart = embed(',"changed":[');
const beforeStart = embed(',"before":{');
const changedEnd = embed("]");
const objectEnd = embed("}");

/** Encodes the events of entities. Pure but for the caches of what it computes. */
export class EventComposer {
  readonly #text: FieldText;
  readonly #maxEventBytes: number;
  readonly #writers = new Map<EntityPlan, RowWriter>();

  constructor(text: FieldText, maxEventBytes: number) {
    this.#text = text;
    this.#maxEventBytes = maxEventBytes;
  }

  /** The differences of an update, or null when it touches nothing that leaves the host. */
  plan(plan: EntityPlan, change: EntityChange): PlannedEvent | null {
    const { old, row } = change;
    if (old === null) return { plan, change, names: "", before: "", oldObjects: false };
    const text = this.#text;
    let names = "";
    let before = "";
    let oldObjects = false;
    for (const field of plan.fields) {
      const oldValue = old[field.index];
      if (oldValue === undefined) continue;
      if (typeof oldValue === "object" && oldValue !== null) oldObjects = true;
      const value = row[field.index];
      if (value !== undefined && !text.differs(field, oldValue, value)) continue;
      names += field.quoted + field.companionQuoted;
      // A value that alone is over the limit is not encoded; `#shrink` will leave `before` out.
      if (treatedUnits(field, oldValue) <= this.#maxEventBytes) before += text.entryOf(field, oldValue);
    }
    return names === "" ? null : { plan, change, names, before, oldObjects };
  }

  encode(planned: PlannedEvent, frame: PartFrame): OutboundEvent {
    const { plan, change } = planned;
    const id =
      change.op === "r"
        ? readId(frame.idPrefix, plan.table, change.key)
        : eventId(frame.idPrefix, plan.table, change.imageIndex, change.step);
    if (leastUnits(change) <= this.#maxEventBytes) {
      const payload = this.#payload(planned, frame, nothing, id);
      if (payload.length <= this.#maxEventBytes)
        return outbound(planned, frame, id, { payload, oversize: false });
    }
    return this.#shrink(planned, frame, id);
  }

  /** One row that was read; `ordinal` from 1. */
  encodeRead(plan: EntityPlan, rows: PackedRows, row: number, frame: PartFrame): OutboundEvent {
    const keys: (Value | undefined)[] = [];
    for (const index of plan.key.indices) keys[index] = rows.valueOf(row, index);
    const change: EntityChange = {
      table: 0,
      key: entityKeyOf(plan.key, keys),
      op: "r",
      row: keys,
      old: null,
      imageIndex: 0,
      ordinal: row + 1,
      step: 1,
    };
    const planned = { plan, change, names: "", before: "", oldObjects: false };
    const writer = this.#writerOf(plan);
    const bound = writer.bound(rows, row);
    const id = readId(frame.idPrefix, plan.table, change.key);
    if (bound !== null) {
      const head = headText(plan, change, frame, id);
      const tail = plan.originStart + frame.originRest;
      const bytesMax = bound + (head.length + tail.length) * 3;
      const payload = frame.payloads.compose(bytesMax, (target, start) => {
        const end = writer.write(rows, row, target, start + target.write(head, start));
        return end + target.write(tail, end);
      });
      if (payload.length <= this.#maxEventBytes)
        return outbound(planned, frame, id, { payload, oversize: false });
    }
    return this.encode({ ...planned, change: { ...change, row: rows.rowOf(row) } }, frame);
  }

  #writerOf(plan: EntityPlan): RowWriter {
    let writer = this.#writers.get(plan);
    if (writer === undefined) this.#writers.set(plan, (writer = new RowWriter(plan, this.#text)));
    return writer;
  }

  #payload(planned: PlannedEvent, frame: PartFrame, cut: Cut, id: string): Buffer {
    const { plan, change } = planned;
    let text = headText(plan, change, frame, id);
    if (cut.stubBytes === null) text += this.#body(planned, cut);
    else text += embed(`,"bytes":${cut.stubBytes}`);
    return frame.payloads.write(text + plan.originStart + frame.originRest);
  }

  #body(planned: PlannedEvent, cut: Cut): string {
    const { plan, change, names, before } = planned;
    let text = "";
    let hasObjects = false;
    if (change.op !== "d" || plan.deletes === "full") {
      const { row } = change;
      for (const field of plan.fields) {
        const value = row[field.index];
        if (value === undefined) continue;
        if (cut !== nothing && cut.fields.has(field)) continue;
        if (typeof value === "object" && value !== null) hasObjects = true;
        text += this.#text.entryOf(field, value);
      }
    }
    if (hasObjects || planned.oldObjects) text += invalidText(planned, cut);
    if (cut !== nothing) text += omittedText(cut);
    if (change.op === "u") {
      text += changedStart + names.slice(1) + changedEnd + beforeStart;
      text += (cut.before ? "" : before.slice(1)) + objectEnd;
    }
    return text;
  }

  /**
   * Too large. First the old values go: they are worth least. Then, where the mapping says omit,
   * and in a delete always, because its ids are what matters, the largest fields. Else only ids and
   * origin remain, for the dead letters.
   */
  #shrink(planned: PlannedEvent, frame: PartFrame, id: string): OutboundEvent {
    const max = this.#maxEventBytes;
    const costs = this.#costs(planned);
    const size = costs.reduce((sum, { bytes }) => sum + bytes, 0);
    const fits = (cut: Cut): Buffer | null => {
      const payload = this.#payload(planned, frame, cut, id);
      return payload.length <= max ? payload : null;
    };
    const dropsFields = planned.plan.oversize === "omit" || planned.change.op === "d";
    const before = planned.change.op === "u";
    const fields = new Set<FieldPlan>();
    let total = size;
    // A treatment may have made it small: then nothing has to go.
    let payload = total <= max && leastBeforeUnits(planned) <= max ? fits(nothing) : null;
    for (let next = 0; payload === null && next <= costs.length; next += 1) {
      if (total <= max && (before || next > 0)) payload = fits({ fields, before, stubBytes: null });
      const largest = costs[next];
      if (payload !== null || !dropsFields || largest === undefined) break;
      fields.add(largest.field);
      total -= largest.bytes;
    }
    if (payload !== null) return outbound(planned, frame, id, { payload, oversize: false });
    const stub = { fields, before, stubBytes: Math.max(max + 1, size) };
    return outbound(planned, frame, id, { payload: this.#payload(planned, frame, stub, id), oversize: true });
  }

  /** What each field takes, largest first; what is over the limit by itself is not encoded. */
  #costs({ plan, change }: PlannedEvent): { readonly field: FieldPlan; readonly bytes: number }[] {
    const costOf = (field: FieldPlan, value: Value): number => {
      const units = treatedUnits(field, value);
      return units > this.#maxEventBytes
        ? units
        : Buffer.byteLength(this.#text.entryOf(field, value), "utf8");
    };
    if (change.op === "d" && plan.deletes === "keys") return [];
    return plan.fields
      .map((field) => ({ field, value: change.row[field.index] }))
      .filter((entry): entry is { field: FieldPlan; value: Value } => entry.value !== undefined)
      .map(({ field, value }) => ({ field, bytes: costOf(field, value) }))
      .sort((left, right) => right.bytes - left.bytes);
  }
}

/** Everything before the fields. */
function headText(plan: EntityPlan, change: EntityChange, frame: PartFrame, id: string): string {
  const sequence = sequenceOf(frame.sequencePrefix, change.ordinal, change.step);
  const traceparent = traceparentOf(frame.traceId, id);
  const magentoId = magentoIdOf(plan.key, change.row);
  const uuid = plan.identity.uuidOf(magentoId);
  const pieces = frame.elsewhere?.pieces ?? plan.pieces[change.op];
  let text = literalStart + id + pieces.afterId + uuid + afterSubject + frame.time + afterTime + sequence;
  text += afterSequence + uuid + pieces.afterPartitionKey + traceparent + afterTraceparent + traceparent;
  text += pieces.dataStart + uuid + afterDataId;
  text += typeof magentoId === "number" ? numberText(magentoId) : stringText(magentoId);
  text += plan.afterMagentoId + id + afterEventId + sequence;
  return text + plan.beforeSyncedAt + frame.syncedAt + endQuote;
}

/** Cheap, and never too high but for treated fields; `#shrink` looks at these again. */
function leastUnits(change: EntityChange): number {
  let units = 0;
  for (const value of change.row) units += textUnits(value);
  if (change.old !== null)
    for (const value of change.old) units += value === undefined ? 0 : textUnits(value);
  return units;
}

/** Old values as they would leave the host, without encoding them. */
function leastBeforeUnits({ plan, change }: PlannedEvent): number {
  const { old } = change;
  if (old === null) return 0;
  return plan.fields.reduce(
    (sum, field) => sum + (old[field.index] === undefined ? 0 : treatedUnits(field, old[field.index])),
    0,
  );
}

function omittedText(cut: Cut): string {
  const names = [...cut.fields].map((field) => field.name);
  if (cut.before) names.push("before");
  return embed(`,"omitted":${JSON.stringify(names)}`);
}

/**
 * Bytes of texts that are not valid in their character set, beside their reading. A treated field
 * has none here: the bytes would say what the treatment hides.
 */
function invalidText({ plan, change }: PlannedEvent, cut: Cut): string {
  let bytes: Record<string, string> | null = null;
  for (const field of plan.fields) {
    if (field.treatment.kind !== "none" || cut.fields.has(field)) continue;
    const value = change.row[field.index];
    if (typeof value === "object" && value !== null && "base64" in value) {
      bytes ??= {};
      bytes[field.name] = value.base64;
    }
    const old = change.old === null || cut.before ? undefined : change.old[field.index];
    if (typeof old === "object" && old !== null && "base64" in old) {
      bytes ??= {};
      bytes[`before.${field.name}`] = old.base64;
    }
  }
  return bytes === null ? "" : `${embed(',"invalid_text":')}${embedValue(bytes)}`;
}

function outbound(
  planned: PlannedEvent,
  frame: PartFrame,
  id: string,
  encoded: { readonly payload: Buffer; readonly oversize: boolean },
): OutboundEvent {
  const { plan, change } = planned;
  const topic = frame.elsewhere?.topic ?? plan.topic;
  return {
    kind: "entity",
    queue: topic,
    lane: frame.lane,
    topic,
    table: plan.table,
    op: change.op,
    id,
    entityKey: change.key,
    commitTimeMs: frame.timeMs,
    capturedAtMs: frame.capturedAtMs,
    barrier: false,
    oversize: encoded.oversize,
    payload: encoded.payload,
  };
}
