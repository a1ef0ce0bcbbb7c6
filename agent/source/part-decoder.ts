/** Committed row events to row changes, in their final values. */
import type { RowChange, RowKind, TransactionPart, Value } from "../change.ts";
import type { SourceObserver } from "../ports.ts";
import { countRows, decodeRows, type RowSink } from "./decode/rows.ts";
import type { RawPart } from "./group-sink.ts";

/** One for a stream: it keeps its counters from part to part to save allocations. */
export class PartDecoder {
  readonly #images: Int32Array;
  readonly #sink: RowSink;
  #changes: RowChange[] = [];
  #table = 0;
  #imageIndex = 0;
  #ordinal = 0;

  constructor(tables: number, observer: SourceObserver) {
    this.#images = new Int32Array(tables);
    this.#sink = {
      row: (kind, row, old) => this.#take(kind, row, old),
      oddity: (what, table) => observer.oddity(what, table),
    };
  }

  /** Throws SOURCE_UNREADABLE when a row cannot be read without loss. */
  decode(raw: RawPart): TransactionPart {
    this.#changes = [];
    this.#images.fill(0);
    this.#ordinal = 0;
    for (const { shape, type, body, ordinal, imageIndex, live } of raw.events) {
      const { plan } = shape;
      this.#table = plan.table;
      if (ordinal >= 0) {
        this.#ordinal = ordinal;
        this.#imageIndex = imageIndex;
      } else this.#imageIndex = this.#images[plan.table] ?? 0;
      if (live) decodeRows(plan, type, body, this.#sink);
      else {
        const count = countRows(plan, type, body);
        this.#ordinal += count;
        this.#imageIndex += count;
      }
      this.#images[plan.table] = this.#imageIndex;
    }
    const { start, end, gtid, serverId, commitTimeMs, firstOrdinal, isLast, checkpoint } = raw;
    const changes = this.#changes;
    this.#changes = [];
    return {
      kind: "transaction",
      start,
      end,
      gtid,
      serverId,
      commitTimeMs,
      changes,
      firstOrdinal,
      isLast,
      checkpoint,
    };
  }

  #take(
    kind: RowKind,
    row: readonly (Value | undefined)[],
    old: readonly (Value | undefined)[] | null,
  ): void {
    this.#changes.push({
      table: this.#table,
      kind,
      row,
      old,
      imageIndex: this.#imageIndex,
      ordinal: this.#ordinal,
    });
    this.#imageIndex += 1;
    this.#ordinal += 1;
  }
}
