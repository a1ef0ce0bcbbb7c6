/**
 * What consumers are told of a snapshot or resync beside its rows (spec.md section 5): that it began,
 * that it is complete, and the range. All three stand in the bulk lane behind the rows that they are
 * about, as barriers.
 *
 * A range is a floor: each row that exists there got an event behind `sequence`, from the rows that
 * were read or from the stream. So what a consumer has there with a smaller one is gone, also when
 * that comes later.
 */
import type { BegunJob, OutboundEvent, SnapshotChunk, SnapshotScope } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { ControlEnvelopes } from "./control-envelope.ts";
import { controlTypes } from "./control.ts";
import type { EntityPlan, Installation } from "./entity-plan.ts";
import { idOf, readSequencePrefix, sequenceOf, traceIdOf } from "./sequence.ts";

export class SnapshotEvents {
  readonly #installation: Installation;
  readonly #envelopes: ControlEnvelopes;
  readonly #controlTopic: string;

  constructor(installation: Installation, controlTopic: string) {
    this.#installation = installation;
    this.#controlTopic = controlTopic;
    this.#envelopes = new ControlEnvelopes(installation, controlTopic);
  }

  started(chunk: SnapshotChunk, plan: EntityPlan): OutboundEvent {
    const { job } = chunk;
    return this.event(controlTypes.snapshotStarted, chunk, plan, {
      sequence: this.floorOf(job),
      data: { rows_estimated: job.begun.rowsEstimated },
    });
  }

  /** The source's table has other columns than when it was last read; rows that follow have them. */
  reshaped(chunk: SnapshotChunk, plan: EntityPlan, schemaVersion: number): OutboundEvent {
    const { position, checkpoint, job } = chunk;
    return this.event(controlTypes.schemaChanged, chunk, plan, {
      sequence: sequenceOf(readSequencePrefix(checkpoint.epoch, position, job.generation), 0, 0),
      // A table can change more than once while one job reads it.
      idParts: [`${position.file}:${position.position}`],
      data: {
        cause: "source",
        schema_version: schemaVersion,
        previous_version: schemaVersion,
        fields: plan.fields.map((field) => field.name),
      },
    });
  }

  range(chunk: SnapshotChunk, plan: EntityPlan): OutboundEvent {
    const { job } = chunk;
    return this.event(controlTypes.range, chunk, plan, {
      sequence: this.floorOf(job),
      data: scopeData(job.scope, plan),
    });
  }

  completed(chunk: SnapshotChunk, plan: EntityPlan): OutboundEvent {
    const { job, position, checkpoint } = chunk;
    const prefix = readSequencePrefix(checkpoint.epoch, position, job.generation);
    return this.event(controlTypes.snapshotCompleted, chunk, plan, {
      sequence: sequenceOf(prefix, 9_999_999_999, 1),
      data: {
        rows: job.rows + chunk.rows.length,
        started_at: new Date(job.begun.atMs).toISOString(),
        from_sequence: this.floorOf(job),
      },
    });
  }

  get instance(): string {
    return this.#installation.instance;
  }

  /** Smaller than that of every row of the job (their ordinals begin with 1), greater than what came before it. */
  floorOf({ begun, generation }: BegunJob): string {
    return sequenceOf(readSequencePrefix(begun.epoch, begun.position, generation), 0, 0);
  }

  /** A barrier of the bulk lane about a job; `idParts` tell those of one type apart. */
  event(
    type: string,
    chunk: SnapshotChunk,
    plan: EntityPlan,
    more: {
      readonly sequence: string;
      readonly idParts?: readonly (string | number)[];
      readonly data: Readonly<Record<string, unknown>>;
    },
  ): OutboundEvent {
    const { job, readAtMs } = chunk;
    const { instance } = this.#installation;
    const { begun } = job;
    const { idParts = [] } = more;
    const id = idOf(type, instance, begun.epoch, plan.table, job.generation, begun.atMs, ...idParts);
    const topic = job.topic ?? this.#controlTopic;
    const payload = this.#envelopes.payload({
      id,
      type,
      subject: plan.entity,
      timeMs: readAtMs,
      topic,
      traceId: traceIdOf(id),
      sequence: more.sequence,
      data: {
        entity: plan.entity,
        table: plan.table,
        generation: job.generation,
        reason: job.reason,
        scope: job.scope.kind,
        ...more.data,
        instance,
      },
    });
    return this.#envelopes.outbound({
      id,
      payload,
      timeMs: readAtMs,
      queue: job.topic ?? plan.topic,
      topic,
      barrier: true,
      lane: "bulk",
    });
  }
}

/** What a job is about, for consumers. Null is no bound, or no list: the whole entity has neither. */
export function scopeData(
  scope: SnapshotScope,
  plan: EntityPlan,
): Readonly<Record<"from" | "to" | "keys", unknown>> {
  const range = scope.kind === "range" ? scope : null;
  const keys =
    scope.kind === "keys"
      ? scope.keys.map((key) => ({ id: plan.identity.uuidOf(key), magento_id: asMagentoId(plan, key) }))
      : null;
  return { from: range?.from ?? null, to: range?.to ?? null, keys };
}

/** Keys that an operator names are text; a single integer is a number in events. */
function asMagentoId(plan: EntityPlan, key: string): string | number {
  assert(key !== "", "a key is not empty");
  const number = Number(key);
  return plan.key.indices.length === 1 && /^\d+$/.test(key) && Number.isSafeInteger(number) ? number : key;
}
