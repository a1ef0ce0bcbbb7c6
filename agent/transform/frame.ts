/** What the events of one part or chunk share, computed once for all of them. */
import type { Lane, SnapshotChunk, TransactionPart } from "../change.ts";
import { composeApart } from "../payload-arena.ts";
import type { EncodeContext, PayloadWriter } from "../ports.ts";
import type { EventPieces } from "./entity-plan.ts";
import {
  idPrefix,
  readSequencePrefix,
  streamSequencePrefix,
  traceIdOf,
  transactionName,
} from "./sequence.ts";
import { embed } from "./wire.ts";

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

const objectEnd = embed("}");

const ownMemory: PayloadWriter = {
  write: (text) => Buffer.from(text, "utf8"),
  compose: composeApart,
};

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
