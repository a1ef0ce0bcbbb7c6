/**
 * The transform room's door: parts of transactions in, events on the wire out. Pure: no I/O, no
 * clock; what it needs to know of the world is handed in.
 */
import { createHmac, hash } from "node:crypto";
import type { FollowedTable, OutboundEvent, SnapshotChunk, TableEvent, TransactionPart } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { assert } from "../kernel/assert.ts";
import type { EncodeContext, EventEncoder, IndexEncoder } from "../ports.ts";
import { ChildIndex } from "./child-index.ts";
import { ControlEvents } from "./control.ts";
import { DigestEvents } from "./digest-events.ts";
import type { GapFacts, SchemaChangeFacts } from "./control.ts";
import { EventComposer } from "./encode.ts";
import type { PlannedEvent } from "./encode.ts";
import { chunkFrame, partFrame } from "./frame.ts";
import { FieldText, compileMapping, eventPieces, followedTable } from "./entity-plan.ts";
import type { EntityPlan } from "./entity-plan.ts";
import type { LookupUuid } from "./identity.ts";
import { topicOf } from "./mapping.ts";
import type { EntityMapping, Mapping } from "./mapping.ts";
import { mergeChanges } from "./merge.ts";
import { isSecretColumn, isSecretTable } from "./secrets.ts";
import { SnapshotEvents } from "./snapshot-events.ts";

export interface TransformOptions {
  readonly mapping: Mapping;
  readonly shop: string;
  readonly database: string;
  /** UUID that every id is made in. */
  readonly namespace: string;
  /** Name of Dapr's pub/sub component. */
  readonly pubsub: string;
  /** Identity of the agent's state. */
  readonly instance: string;
  /** Per entity; the caller raises one when its fingerprint changed. Missing ones are 1. */
  readonly schemaVersions: Readonly<Record<string, number>>;
  /** Key of hashed fields; null where there is none, then no field may be hashed. */
  readonly fieldHashKey: string | null;
  /** Largest payload, in bytes, as it stands in a bulk request. */
  readonly maxEventBytes: number;
  readonly lookupUuid?: LookupUuid;
}

export interface Transform extends EventEncoder {
  /** What the index keeps of the mapping's tables. */
  readonly index: IndexEncoder;
  readonly control: ControlEvents;
  /** The barrier that tells consumers of a changed mapping. */
  schemaChanged(facts: SchemaChangeFacts): OutboundEvent;
  /** The barrier that takes the place of events that were lost. */
  gap(facts: GapFacts): OutboundEvent;
  /** Topics of the entities, and those of control events and dead letters. */
  readonly topics: {
    readonly entities: Readonly<Record<string, string>>;
    readonly control: string;
    readonly deadLetters: string;
  };
}

/** Makes the transform of an installation. Throws MAPPING_INVALID when the mapping names a secret. */
export function createTransform(options: TransformOptions): Transform {
  refuseUnsafe(options);
  const lookupUuid = options.lookupUuid ?? null;
  const plans = compileMapping({ ...options, lookupUuid });
  return new RowTransform(options, plans);
}

class RowTransform implements Transform {
  readonly tables: readonly FollowedTable[];
  readonly index: IndexEncoder;
  readonly control: ControlEvents;
  readonly topics: Transform["topics"];
  readonly #plans: readonly EntityPlan[];
  readonly #composer: EventComposer;
  readonly #options: TransformOptions;
  readonly #snapshots: SnapshotEvents;
  readonly #digests: DigestEvents;
  #suppressed = 0;

  constructor(options: TransformOptions, plans: readonly EntityPlan[]) {
    const control = topicOf(options.mapping.controlTopic, options.shop);
    const deadLetters = topicOf(options.mapping.deadLetterTopic, options.shop);
    this.#plans = plans;
    this.#options = options;
    this.#snapshots = new SnapshotEvents(options, control);
    this.tables = plans.map(followedTable);
    this.index = new ChildIndex(plans);
    this.#composer = new EventComposer(new FieldText(options.fieldHashKey), options.maxEventBytes);
    this.#digests = new DigestEvents(this.#snapshots, this.#composer);
    this.control = new ControlEvents(options, { control, deadLetters }, options.maxEventBytes);
    this.topics = {
      entities: Object.fromEntries(plans.map((plan) => [plan.entity, plan.topic])),
      control,
      deadLetters,
    };
  }

  encode(item: TransactionPart | TableEvent | SnapshotChunk, context: EncodeContext): OutboundEvent[] {
    if (item.kind === "chunk") return this.#encodeChunk(item, context);
    if (item.kind === "table") {
      // Changed columns alone void nothing; rows of the new form say themselves what they hold.
      if (item.what === "altered") return [];
      return [this.control.reset(item, context, this.#planAt(item.table))];
    }
    const planned: PlannedEvent[] = [];
    for (const change of mergeChanges(item.changes, this.#plans)) {
      const event = this.#composer.plan(this.#planAt(change.table), change);
      if (event === null) this.#suppressed += 1;
      else planned.push(event);
    }
    if (planned.length === 0) return [];
    const frame = partFrame(item, context, {
      instance: this.#options.instance,
      eventsInPart: planned.length,
    });
    return planned.map((event) => this.#composer.encode(event, frame));
  }

  #encodeChunk(chunk: SnapshotChunk, context: EncodeContext): OutboundEvent[] {
    // What is read for the index alone concerns no consumer.
    if (chunk.job.purpose === "index") return [];
    const plan = this.#planAt(chunk.table);
    const { topic, purpose } = chunk.job;
    if (purpose === "digests") return this.#digests.encode(chunk, plan, context);
    const elsewhere =
      topic === null ? null : { topic, pieces: eventPieces(plan.entity, topic, "r", this.#options) };
    const frame = chunkFrame(chunk, context, { instance: this.#options.instance, elsewhere });
    const events = chunk.isFirst ? [this.#snapshots.started(chunk, plan)] : [];
    if (chunk.isReshaped) {
      const version = this.#options.schemaVersions[plan.entity] ?? 1;
      events.push(this.#snapshots.reshaped(chunk, plan, version));
    }
    for (let row = 0; row < chunk.rows.length; row += 1)
      events.push(this.#composer.encodeRead(plan, chunk.rows, row, frame));
    if (chunk.isLast) events.push(this.#snapshots.range(chunk, plan), this.#snapshots.completed(chunk, plan));
    return events;
  }

  takeSuppressed(): number {
    const taken = this.#suppressed;
    this.#suppressed = 0;
    return taken;
  }

  schemaChanged(facts: SchemaChangeFacts): OutboundEvent {
    const plan = this.#plans.find((candidate) => candidate.entity === facts.entity);
    assert(plan !== undefined, `the mapping has an entity "${facts.entity}"`);
    return this.control.schemaChanged(facts, plan);
  }

  gap(facts: GapFacts): OutboundEvent {
    const plans = this.#plans.filter(({ topic }) => topic === facts.queue);
    return this.control.gap(
      facts,
      plans.map(({ entity }) => entity),
    );
  }

  #planAt(table: number): EntityPlan {
    const plan = this.#plans[table];
    assert(plan !== undefined, `followed table ${table} is one of the mapping's`);
    return plan;
  }
}

/** The last fence: whoever made the mapping, a secret is not encoded. */
function refuseUnsafe(options: TransformOptions): void {
  for (const { table, keys, fields } of options.mapping.entities) {
    const columns = [...keys, ...fields.map((field) => field.column)];
    const secret = isSecretTable(table) ? table : columns.find((column) => isSecretColumn(table, column));
    if (secret !== undefined) {
      throw new AgentError(
        "MAPPING_INVALID",
        `the mapping of ${table} names "${secret}", which never leaves the host`,
      );
    }
    if (options.fieldHashKey === null && fields.some((field) => field.treatment.kind === "hash")) {
      throw new AgentError(
        "MAPPING_INVALID",
        `the mapping of ${table} hashes a field and no field hash key is set`,
      );
    }
  }
}

/**
 * What an entity's events depend on, as 32 hexadecimal digits: when it changes, `schema_version`
 * has to rise. Topics and what is done with oversize events are not part of it. A new hash key
 * changes it, because hashed values change; the key cannot be told from it.
 */
export function mappingFingerprint(entity: EntityMapping, fieldHashKey: string | null): string {
  const hashes = entity.fields.some((field) => field.treatment.kind === "hash");
  const keyMark =
    hashes && fieldHashKey !== null
      ? createHmac("sha256", fieldHashKey).update("fingerprint").digest("hex")
      : null;
  const fields = entity.fields.map((field) => [field.column, field.field, field.ref, field.treatment]);
  const text = JSON.stringify([entity.table, entity.keys, entity.deletes, fields, keyMark]);
  return hash("sha256", text, "hex").slice(0, 32);
}
