/**
 * Changes of entities -> events on the wire (spec.md section 4). Encode once: what is made here
 * goes to the spool and from there to Dapr byte by byte.
 */
import type { Lane, OutboundEvent, SnapshotChunk, TransactionPart, Value } from "../change.ts";
import type { EncodeContext, PayloadWriter } from "../ports.ts";
import { treatedUnits } from "./entity-plan.ts";
import type { EntityPlan, EventPieces, FieldPlan, FieldText } from "./entity-plan.ts";
import { magentoIdOf } from "./identity.ts";
import type { EntityChange } from "./merge.ts";
import {
  eventId,
  idPrefix,
  readId,
  readSequencePrefix,
  sequenceOf,
  streamSequencePrefix,
  traceIdOf,
  traceparentOf,
  transactionName,
} from "./sequence.ts";
import { embed, embedValue, numberText, stringText, textUnits } from "./wire.ts";

/** What all events of one part or chunk share. */
export interface PartFrame {
  readonly timeMs: number;
  readonly lane: Lane;
  readonly capturedAtMs: number;
  readonly payloads: PayloadWriter;
  readonly sequencePrefix: string;
  readonly idPrefix: string;
  readonly traceId: string;
  readonly time: string;
  readonly syncedAt: string;
  /** `origin` after its table, to the end of the literal. */
  readonly originRest: string;
  /** Where rows that were read go; null: to their entity's topic. */
  readonly elsewhere: { readonly topic: string; readonly pieces: EventPieces } | null;
}

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

const ownMemory: PayloadWriter = { write: (text) => Buffer.from(text, "utf8") };

/**
 * @param instance identity of the agent's state
 * @param eventsInPart events that this part makes
 */
export function partFrame(
  part: TransactionPart,
  context: EncodeContext,
  facts: { readonly instance: string; readonly eventsInPart: number },
): PartFrame {
  const prefix = idPrefix(part);
  const origin = JSON.stringify({
    server: part.serverId,
    position: `${part.end.file}:${part.end.position}`,
    gtid: part.gtid,
    ts_ms: part.commitTimeMs,
    transaction: transactionName(part),
    transaction_events: part.isLast ? context.eventsBefore + facts.eventsInPart : null,
    instance: facts.instance,
  });
  return {
    timeMs: part.commitTimeMs,
    lane: "live",
    capturedAtMs: context.capturedAtMs,
    payloads: context.payloads ?? ownMemory,
    sequencePrefix: streamSequencePrefix(context.epoch, part.end),
    idPrefix: prefix,
    traceId: traceIdOf(prefix),
    time: new Date(part.commitTimeMs).toISOString(),
    syncedAt: new Date(context.capturedAtMs).toISOString(),
    originRest: originRest(origin),
    elsewhere: null,
  };
}

/**
 * Of rows that were read. Their ids do not hold the epoch, as no id does; those of one place and
 * generation are of one state of the table.
 */
export function chunkFrame(
  chunk: SnapshotChunk,
  context: EncodeContext,
  facts: { readonly instance: string; readonly elsewhere: PartFrame["elsewhere"] },
): PartFrame {
  const place = `${chunk.position.file}:${chunk.position.position}`;
  const { generation } = chunk.job;
  const transaction = `read:${generation}:${place}`;
  const prefix = `${transaction}\n${chunk.serverId}\n${facts.instance}\n`;
  const origin = JSON.stringify({
    server: chunk.serverId,
    position: place,
    gtid: null,
    ts_ms: chunk.readAtMs,
    transaction,
    transaction_events: null,
    instance: facts.instance,
  });
  return {
    timeMs: chunk.readAtMs,
    lane: "bulk",
    capturedAtMs: context.capturedAtMs,
    payloads: context.payloads ?? ownMemory,
    sequencePrefix: readSequencePrefix(context.epoch, chunk.position, generation),
    idPrefix: prefix,
    traceId: traceIdOf(prefix),
    time: new Date(chunk.readAtMs).toISOString(),
    syncedAt: new Date(context.capturedAtMs).toISOString(),
    originRest: originRest(origin),
    elsewhere: facts.elsewhere,
  };
}

/** Closes origin (its own brace), data, the CloudEvent, and the literal. */
function originRest(origin: string): string {
  return `${embed(origin.slice(1))}${objectEnd}${objectEnd}"`;
}

/** Encodes the events of entities. Pure but for the caches of what it computes. */
export class EventComposer {
  readonly #text: FieldText;
  readonly #maxEventBytes: number;

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

  #payload(planned: PlannedEvent, frame: PartFrame, cut: Cut, id: string): Buffer {
    const { plan, change } = planned;
    const { op } = change;
    const sequence = sequenceOf(frame.sequencePrefix, change.ordinal, change.step);
    const traceparent = traceparentOf(frame.traceId, id);
    const magentoId = magentoIdOf(plan.key, change.row);
    const uuid = plan.identity.uuidOf(magentoId);
    const pieces = frame.elsewhere?.pieces ?? plan.pieces[op];
    let text = literalStart + id + pieces.afterId + uuid + afterSubject + frame.time + afterTime + sequence;
    text += afterSequence + uuid + pieces.afterPartitionKey + traceparent + afterTraceparent + traceparent;
    text += pieces.dataStart + uuid + afterDataId;
    text += typeof magentoId === "number" ? numberText(magentoId) : stringText(magentoId);
    text +=
      plan.afterMagentoId + id + afterEventId + sequence + plan.beforeSyncedAt + frame.syncedAt + endQuote;
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
