/** What a consumer has after any of a source's items: the one-line rule, on rows. */
import type { Position, RowChange, SnapshotChunk, SourceItem, Value } from "../../../agent/change.ts";

interface Kept {
  readonly sequence: string;
  readonly row: readonly (Value | undefined)[] | null;
}

export class RowReplica {
  readonly #table: number;
  readonly #kept = new Map<string, Kept>();
  #floor = "";
  chunks = 0;

  constructor(table: number) {
    this.#table = table;
  }

  apply(items: readonly SourceItem[]): void {
    for (const item of items) {
      if (item.kind === "transaction") {
        for (const change of item.changes) if (change.table === this.#table) this.#change(change, item.end);
      } else if (item.kind === "chunk" && item.table === this.#table) this.#chunk(item);
    }
  }

  /** Rows that are there, by the text of their key. */
  rows(): Map<string, readonly (Value | undefined)[]> {
    const live = new Map<string, readonly (Value | undefined)[]>();
    for (const [key, { row, sequence }] of this.#kept) {
      if (row !== null && sequence >= this.#floor) live.set(key, row);
    }
    return live;
  }

  #chunk({ rows, position, job, isLast }: SnapshotChunk): void {
    this.chunks += 1;
    for (const row of rows) this.#put(text(row[0]), `${place(position)}.9`, row);
    if (isLast) this.#floor = `${place(job.begun.position)}.9`;
  }

  #change({ kind, row, old, ordinal }: RowChange, end: Position): void {
    const sequence = `${place(end)}.1.${String(ordinal).padStart(9, "0")}`;
    if (old !== null && old[0] !== undefined) this.#put(text(old[0]), sequence, null);
    this.#put(text(row[0]), sequence, kind === "delete" ? null : row);
  }

  #put(key: string, sequence: string, row: Kept["row"]): void {
    const known = this.#kept.get(key);
    if (known === undefined || known.sequence < sequence) this.#kept.set(key, { sequence, row });
  }
}

/** A column of the small test tables: a number, a short text, or nothing. */
export function text(value: Value | undefined): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function place({ file, position }: Position): string {
  return `${file}.${String(position).padStart(12, "0")}`;
}

/** The second column of each row at every place, from the stream alone. */
export class RowHistory {
  readonly #states = new Map<string, { readonly place: string; readonly name: string | null }[]>();

  constructor(before: readonly (readonly [key: string, name: string])[]) {
    for (const [key, name] of before) this.#states.set(key, [{ place: "", name }]);
  }

  take(items: readonly SourceItem[]): void {
    for (const item of items) {
      if (item.kind !== "transaction") continue;
      for (const { kind, row, old } of item.changes) {
        if (old !== null && old[0] !== undefined) this.#add(text(old[0]), item.end, null);
        this.#add(text(row[0]), item.end, kind === "delete" ? null : text(row[1]));
      }
    }
  }

  /** Null: the row was not there. */
  at(key: string, position: Position): string | null {
    const until = place(position);
    return this.#states.get(key)?.findLast((state) => state.place <= until)?.name ?? null;
  }

  #add(key: string, end: Position, name: string | null): void {
    const states = this.#states.get(key);
    if (states === undefined) this.#states.set(key, [{ place: place(end), name }]);
    else states.push({ place: place(end), name });
  }
}
