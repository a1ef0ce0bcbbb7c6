/**
 * What consumers compare to prove that they hold what the source holds (`verify`): digests instead of
 * rows, and at the end what they were made of. All are barriers of the bulk lane in the entity's
 * queue, so everything of the entity that is older was accepted before them.
 *
 * A digest's sequence is that of the last row that its chunk could have: of its keys it holds the
 * state at that place, and what has a greater sequence is newer.
 */
import type { KeyRange, OutboundEvent, SnapshotChunk, Value } from "../change.ts";
import type { EncodeContext } from "../ports.ts";
import { literalText } from "./about-event.ts";
import { controlTypes } from "./control.ts";
import type { EventComposer } from "./encode.ts";
import type { EntityPlan } from "./entity-plan.ts";
import { chunkFrame } from "./frame.ts";
import { entityKeyOf, type MagentoId, magentoIdOf } from "./identity.ts";
import { rangeHash, rowHash } from "./row-hash.ts";
import { readSequencePrefix, sequenceOf } from "./sequence.ts";
import { scopeData, type SnapshotEvents } from "./snapshot-events.ts";

/** Most rows and bytes of the list of one digest. */
const ROWS_MAX = 1_000;
const LIST_BYTES_MAX = 256 * 1024;

/** Null: the row's event is too large to be delivered, so that nobody can compare it. */
type Entry = readonly [magentoId: MagentoId, hash: string | null];

/** A part of a chunk that goes into one event. */
interface Part {
  readonly entries: readonly Entry[];
  readonly range: KeyRange | null;
  /** Rows that earlier digests of the verification list. */
  readonly offset: number;
}

export class DigestEvents {
  readonly #events: SnapshotEvents;
  readonly #composer: EventComposer;

  constructor(events: SnapshotEvents, composer: EventComposer) {
    this.#events = events;
    this.#composer = composer;
  }

  encode(chunk: SnapshotChunk, plan: EntityPlan, context: EncodeContext): OutboundEvent[] {
    const events = partsOf(chunk, this.#entriesOf(chunk, plan, context)).map((part) =>
      this.#digest(chunk, plan, part),
    );
    return chunk.isLast ? [...events, this.#verified(chunk, plan)] : events;
  }

  #entriesOf(chunk: SnapshotChunk, plan: EntityPlan, context: EncodeContext): Entry[] {
    // These payloads are looked at and dropped: they take nothing of the batch's memory.
    const { epoch, capturedAtMs, eventsBefore } = context;
    const own = { epoch, capturedAtMs, eventsBefore };
    const frame = chunkFrame(chunk, own, { instance: this.#events.instance, elsewhere: null });
    return Array.from(chunk.rows, (row, index): Entry => [
      magentoIdOf(plan.key, row),
      this.#hashOf(plan, row, { frame, ordinal: index + 1 }),
    ]);
  }

  #hashOf(
    plan: EntityPlan,
    row: readonly (Value | undefined)[],
    place: { readonly frame: ReturnType<typeof chunkFrame>; readonly ordinal: number },
  ): string | null {
    const change = {
      table: 0,
      key: entityKeyOf(plan.key, row),
      op: "r",
      row,
      old: null,
      imageIndex: 0,
      ordinal: place.ordinal,
      step: 1,
    } as const;
    const planned = this.#composer.plan(plan, change);
    if (planned === null) return null;
    const { oversize, payload } = this.#composer.encode(planned, place.frame);
    if (oversize) return null;
    const event: { readonly data: Readonly<Record<string, unknown>> } = JSON.parse(literalText(payload));
    return rowHash(magentoIdOf(plan.key, row), event.data);
  }

  #digest(chunk: SnapshotChunk, plan: EntityPlan, { entries, range, offset }: Part): OutboundEvent {
    const { position } = chunk;
    const hashes = entries.map(([, hash]) => hash);
    return this.#events.event(controlTypes.digest, chunk, plan, {
      sequence: endOf(chunk),
      idParts: [position.file, position.position, offset],
      data: {
        offset,
        // The first key is not part of it, the last one is. Null is no bound.
        range: range === null ? null : { after: range.after, through: range.through },
        count: entries.length,
        hash: hashes.every((hash) => hash !== null) ? rangeHash(hashes) : null,
        rows: entries,
      },
    });
  }

  #verified(chunk: SnapshotChunk, plan: EntityPlan): OutboundEvent {
    const { job, rows } = chunk;
    return this.#events.event(controlTypes.verified, chunk, plan, {
      sequence: endOf(chunk),
      data: {
        ...scopeData(job.scope, plan),
        rows: job.rows + rows.length,
        started_at: new Date(job.begun.atMs).toISOString(),
        from_sequence: this.#events.floorOf(job),
      },
    });
  }
}

/** Greater than that of every row which the chunk's job could read there, smaller than what comes later. */
function endOf({ checkpoint, position, job }: SnapshotChunk): string {
  return sequenceOf(readSequencePrefix(checkpoint.epoch, position, job.generation), 9_999_999_999, 1);
}

/** At least one: also a range without rows is told. */
function partsOf({ job, keyRange }: SnapshotChunk, entries: readonly Entry[]): Part[] {
  const lists: Entry[][] = [[]];
  let bytes = 0;
  for (const entry of entries) {
    // As it stands in the literal: quotes and backslashes are escaped twice.
    const size = JSON.stringify(JSON.stringify(entry)).length;
    bytes += size;
    if (bytes > LIST_BYTES_MAX || lists.at(-1)?.length === ROWS_MAX) {
      lists.push([]);
      bytes = size;
    }
    lists.at(-1)?.push(entry);
  }
  let offset = job.rows;
  let after = keyRange?.after ?? null;
  return lists.map((list, index) => {
    const isLast = index === lists.length - 1;
    const through = isLast ? (keyRange?.through ?? null) : String(list.at(-1)?.[0] ?? "");
    const part = { entries: list, range: keyRange === undefined ? null : { after, through }, offset };
    offset += list.length;
    after = through;
    return part;
  });
}
