/**
 * Events that are about the stream and not about one entity (spec.md section 5), and dead letters.
 * None of them is hot: they are made as objects and encoded by JSON.stringify.
 */
import { createHash } from "node:crypto";
import type { Checkpoint, OutboundEvent, Position, SpooledEvent, TableEvent } from "../change.ts";
import type { ControlEncoder, EncodeContext, EventFacts, GivenUp, HeartbeatFacts } from "../ports.ts";
import { aboutEvent, literalText } from "./about-event.ts";
import { ControlEnvelopes } from "./control-envelope.ts";
import type { Envelope } from "./control-envelope.ts";
import type { EntityPlan, Installation } from "./entity-plan.ts";
import {
  idOf,
  idPrefix,
  sequenceOf,
  endSequenceOf,
  streamSequencePrefix,
  traceIdOf,
  transactionName,
} from "./sequence.ts";

/** Types of control events; the names are part of the contract. */
export const controlTypes = {
  heartbeat: "magento.heartbeat",
  snapshotStarted: "magento.snapshot.started",
  snapshotCompleted: "magento.snapshot.completed",
  range: "magento.range",
  digest: "magento.digest",
  verified: "magento.verified",
  reset: "magento.reset",
  gap: "magento.gap",
  schemaChanged: "magento.schema.changed",
} as const;

export const deadLetterType = "magento.dead-letter";

export interface ControlTopics {
  readonly control: string;
  readonly deadLetters: string;
}

/** What a changed mapping means for one entity. */
export interface SchemaChangeFacts {
  readonly entity: string;
  readonly schemaVersion: number;
  readonly previousVersion: number | null;
  readonly epoch: number;
  /** What was captured up to here has the old form. */
  readonly position: Position;
  readonly nowMs: number;
}

/** A part of a topic's stream that is lost, and lies between two checkpoints. */
export interface GapFacts {
  readonly queue: string;
  /** Numbers in the spool: they tell two gaps apart. */
  readonly first: number;
  readonly last: number;
  readonly from: Position | null;
  readonly to: Position | null;
  readonly epoch: number;
  /** Whether the topic's entities are read again. */
  readonly resync: boolean;
  readonly nowMs: number;
}

/** The source's history between two places, which was not read; the second begins a new epoch. */
export interface HistoryGapFacts {
  readonly from: Pick<Checkpoint, "epoch" | "file" | "position" | "gtidSet" | "newestCommitMs">;
  readonly to: Pick<Checkpoint, "epoch" | "file" | "position" | "gtidSet">;
  readonly entities: readonly string[];
  /** Whether they are read again. */
  readonly resync: boolean;
  readonly nowMs: number;
}

/** Encodes control events and dead letters of one installation. Pure. */
export class ControlEvents implements ControlEncoder {
  readonly #installation: Installation;
  readonly #topics: ControlTopics;
  readonly #maxEventBytes: number;
  readonly #envelopes: ControlEnvelopes;

  constructor(installation: Installation, topics: ControlTopics, maxEventBytes: number) {
    this.#installation = installation;
    this.#topics = topics;
    this.#maxEventBytes = maxEventBytes;
    this.#envelopes = new ControlEnvelopes(installation, topics.control);
  }

  /** One heartbeat. Its id is of its moment: no two are the same. */
  heartbeat(facts: HeartbeatFacts): OutboundEvent {
    const { instance } = this.#installation;
    const id = idOf(controlTypes.heartbeat, instance, facts.epoch, facts.nowMs);
    const { completeUpToMs } = facts;
    const payload = this.#envelopes.payload({
      id,
      type: controlTypes.heartbeat,
      subject: this.#installation.shop,
      timeMs: facts.nowMs,
      topic: this.#topics.control,
      traceId: traceIdOf(id),
      sequence: heartbeatSequence(facts),
      data: {
        instance,
        epoch: facts.epoch,
        complete_up_to: completeUpToMs === null ? null : new Date(completeUpToMs).toISOString(),
        position: facts.file === null ? null : `${facts.file}:${facts.position ?? 0}`,
        gtid: facts.gtidSet,
        backlog_events: facts.backlogEvents,
        backlog_bytes: facts.backlogBytes,
        held: facts.held,
        quarantined: facts.quarantined,
        sent_at: new Date(facts.nowMs).toISOString(),
      },
    });
    return this.#envelopes.outbound({
      id,
      payload,
      timeMs: facts.nowMs,
      queue: this.#topics.control,
      barrier: false,
    });
  }

  /** A table was truncated, dropped, made or replaced: what a consumer has of the entity is void. */
  reset(event: TableEvent, context: EncodeContext, plan: EntityPlan): OutboundEvent {
    const prefix = idPrefix(event);
    const id = idOf(controlTypes.reset, prefix, plan.table);
    // Before the first row of its own group: CREATE TABLE ... SELECT has them.
    const sequence = sequenceOf(streamSequencePrefix(context.epoch, event.end), 0, 0);
    const payload = this.#envelopes.payload({
      id,
      type: controlTypes.reset,
      subject: plan.entity,
      timeMs: event.commitTimeMs,
      topic: this.#topics.control,
      traceId: traceIdOf(prefix),
      sequence,
      data: {
        entity: plan.entity,
        table: plan.table,
        reason: event.statement,
        synced_at: new Date(context.capturedAtMs).toISOString(),
        origin: {
          table: plan.table,
          server: event.serverId,
          position: `${event.end.file}:${event.end.position}`,
          gtid: event.gtid,
          ts_ms: event.commitTimeMs,
          transaction: transactionName(event),
          instance: this.#installation.instance,
        },
      },
    });
    const outbound = { id, payload, timeMs: event.commitTimeMs, queue: plan.topic, barrier: true };
    return { ...this.#envelopes.outbound(outbound), capturedAtMs: context.capturedAtMs };
  }

  /**
   * Changes between two places are lost to all entities. Its sequence is that of the new beginning:
   * what a consumer has with a smaller one may have changed, or be gone, without an event.
   */
  historyGap({ from, to, entities, resync, nowMs }: HistoryGapFacts): OutboundEvent {
    const { instance, shop } = this.#installation;
    const id = idOf(controlTypes.gap, instance, to.epoch);
    const payload = this.#envelopes.payload({
      id,
      type: controlTypes.gap,
      subject: shop,
      timeMs: nowMs,
      topic: this.#topics.control,
      traceId: traceIdOf(id),
      sequence: sequenceOf(streamSequencePrefix(to.epoch, to), 0, 0),
      data: {
        entities,
        from: `${from.file}:${from.position}`,
        to: `${to.file}:${to.position}`,
        from_gtid: from.gtidSet,
        to_gtid: to.gtidSet,
        from_time: from.newestCommitMs === 0 ? null : new Date(from.newestCommitMs).toISOString(),
        reason: "POSITION_LOST",
        resync: resync ? entities : [],
        previous_epoch: from.epoch,
        epoch: to.epoch,
        instance,
      },
    });
    return this.#envelopes.outbound({
      id,
      payload,
      timeMs: nowMs,
      queue: this.#topics.control,
      barrier: false,
    });
  }

  /** The mapping of an entity changed; a barrier in its queue. */
  schemaChanged(facts: SchemaChangeFacts, plan: EntityPlan): OutboundEvent {
    const { entity, schemaVersion, nowMs } = facts;
    const id = idOf(
      controlTypes.schemaChanged,
      this.#installation.instance,
      facts.epoch,
      entity,
      schemaVersion,
    );
    const payload = this.#envelopes.payload({
      id,
      type: controlTypes.schemaChanged,
      subject: entity,
      timeMs: nowMs,
      topic: this.#topics.control,
      traceId: traceIdOf(id),
      sequence: endSequenceOf(facts.epoch, facts.position),
      data: {
        entity,
        table: plan.table,
        cause: "mapping",
        schema_version: schemaVersion,
        previous_version: facts.previousVersion,
        fields: plan.fields.map((field) => field.name),
        epoch: facts.epoch,
        instance: this.#installation.instance,
      },
    });
    return this.#envelopes.outbound({ id, payload, timeMs: nowMs, queue: plan.topic, barrier: true });
  }

  /** Events of a topic were lost and could not be read again; a barrier in their place. */
  gap(facts: GapFacts, entities: readonly string[]): OutboundEvent {
    const { instance } = this.#installation;
    const { queue, first, last, from, to, epoch, nowMs } = facts;
    const id = idOf(controlTypes.gap, instance, epoch, queue, first, last, nowMs);
    const place = (at: Position | null): string | null => (at === null ? null : `${at.file}:${at.position}`);
    const payload = this.#envelopes.payload({
      id,
      type: controlTypes.gap,
      subject: queue,
      timeMs: nowMs,
      topic: this.#topics.control,
      traceId: traceIdOf(id),
      sequence: null,
      data: {
        entities,
        topic: queue,
        from: place(from),
        to: place(to),
        events: last - first + 1,
        reason: "SPOOL_CORRUPT",
        resync: facts.resync ? entities : [],
        epoch,
        instance,
      },
    });
    return this.#envelopes.outbound({ id, payload, timeMs: nowMs, queue, barrier: true });
  }

  /**
   * The dead letter of an event: what it was about and why it was refused. `payload` is the text of
   * the refused CloudEvent, whose size and hash are told in any case; it is left out when the dead
   * letter would be over the limit itself.
   */
  deadLetter(event: SpooledEvent, verdict: GivenUp, withPayload = true): OutboundEvent {
    const text = literalText(event.payload);
    const about = aboutEvent(event, text);
    const id = idOf(deadLetterType, event.id);
    const data = {
      code: verdict.code,
      reason: verdict.reason,
      attempts: verdict.attempts,
      entity: about.entity,
      id: about.id,
      magento_id: about.magentoId,
      event_id: event.id,
      sequence: about.sequence,
      topic: event.topic,
      bytes: about.bytes,
      sha256: createHash("sha256").update(text, "utf8").digest("hex"),
      instance: this.#installation.instance,
    };
    const envelope: Omit<Envelope, "data"> = {
      id,
      type: deadLetterType,
      subject: about.id ?? event.id,
      timeMs: event.commitTimeMs,
      topic: this.#topics.deadLetters,
      traceId: about.traceId ?? traceIdOf(event.id),
      sequence: about.sequence,
    };
    // Escaped twice more, the text grows; one that could not fit anyway is not tried.
    let payload: Buffer | null = null;
    if (withPayload && text.length <= this.#maxEventBytes) {
      payload = this.#envelopes.payload({ ...envelope, data: { ...data, payload: text } });
      if (payload.length > this.#maxEventBytes) payload = null;
    }
    payload ??= this.#envelopes.payload({ ...envelope, data });
    const { deadLetters } = this.#topics;
    const outbound = this.#envelopes.outbound({
      id,
      payload,
      timeMs: event.commitTimeMs,
      queue: deadLetters,
      barrier: false,
    });
    return { ...outbound, topic: deadLetters, table: event.table, capturedAtMs: event.capturedAtMs };
  }

  about(event: SpooledEvent): EventFacts | null {
    try {
      const { entity, id, magentoId, sequence, bytes } = aboutEvent(event, literalText(event.payload));
      return { entity, id, magentoId, sequence, bytes };
    } catch (error) {
      // Bytes that are no event of this agent's still have to be kept and listed.
      if (error instanceof SyntaxError) return null;
      throw error;
    }
  }
}

/** Greater than that of every change which the heartbeat promises, smaller than that of every later one. */
function heartbeatSequence({ epoch, file, position }: HeartbeatFacts): string | null {
  return file === null ? null : endSequenceOf(epoch, { file, position: position ?? 0 });
}
