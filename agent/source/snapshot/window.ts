/**
 * What the stream says between the marks of a chunk. The rows of the chunk are brought forward to the
 * high mark by it: a row that changed takes its last state, one that was deleted goes.
 */
import type { FollowedTable, PackedRows, Position, Row, RowChange, SourceItem, Value } from "../../change.ts";
import { packRows, RowPacker } from "../../packed-rows.ts";
import { comparePositions } from "../stream-position.ts";
import type { RangeRule } from "./key-range.ts";

/** Changes that are remembered; with more the chunk is given up and read again, smaller. */
const CHANGES_MAX = 50_000;

interface SeenChange {
  readonly end: Position;
  readonly key: string;
  /** Null: the row is gone. */
  readonly row: Row | null;
}

/** Why a chunk that was read is no good. */
export type Flaw = "table" | "parent" | "overflow";

/** Of one table, from when it is made until the chunk is taken. */
export class Window {
  readonly #table: number;
  readonly #key: readonly number[];
  readonly #changes: SeenChange[] = [];
  /** By table: where rows of it were deleted, or got another key, for the first time. */
  readonly #firstGone = new Map<number, Position>();
  #isAltered = false;
  #overflowed = false;

  constructor(table: number, followed: FollowedTable) {
    this.#table = table;
    this.#key = followed.keyColumns;
  }

  /** Whether a statement was about the table. */
  get isAltered(): boolean {
    return this.#isAltered;
  }

  add(items: readonly SourceItem[]): void {
    for (const item of items) {
      if (item.kind === "table") {
        if (item.table === this.#table) this.#isAltered = true;
        else this.#gone(item.table, item.end);
      } else if (item.kind === "transaction") {
        for (const change of item.changes) this.#see(change, item.end);
      }
    }
  }

  /**
   * What makes a chunk with this high mark useless, or null. `parents` are the tables whose deletes
   * change rows of this one without a word, this one itself among them where it refers to itself.
   */
  flawAt(high: Position, parents: ReadonlySet<number>): Flaw | null {
    if (this.#overflowed) return "overflow";
    // Behind the mark, too: the index has taken that up already, and rows of before would come after it.
    if (this.#isAltered) return "table";
    for (const parent of parents) {
      const gone = this.#firstGone.get(parent);
      if (gone !== undefined && comparePositions(gone, high) <= 0) return "parent";
    }
    return null;
  }

  /** The rows as they are at the high mark; with a rule also those of its range that came to be meanwhile. */
  broughtForward(rows: PackedRows, high: Position, rule: RangeRule | null = null): PackedRows {
    const last = this.#newest((end) => comparePositions(end, high) <= 0);
    if (last.size === 0) return rows;
    const made = new RowPacker(rows.width);
    for (let index = 0; index < rows.length; index += 1) {
      const key = keyText((column) => rows.valueOf(index, column), this.#key);
      const state = last.get(key);
      if (state === undefined) made.copy(rows, index);
      else if (state !== null) made.add(state);
      last.delete(key);
    }
    if (rule === null) return made;
    for (const row of last.values()) if (row !== null && rule.holds(row)) made.add(row);
    return packRows(
      rows.width,
      [...made].sort((one, other) => rule.compare(one, other)),
    );
  }

  /**
   * The chunk's rows, by number, that the stream has changed behind the high mark already, as they are
   * now: it may be further on when the chunk comes. Events have a sequence that says which is newer;
   * what keeps the order in which things come has to take these instead.
   */
  overtaken(rows: PackedRows, high: Position): ReadonlyMap<number, Row | null> {
    const later = this.#newest((end) => comparePositions(end, high) > 0);
    const overtaken = new Map<number, Row | null>();
    if (later.size === 0) return overtaken;
    for (let index = 0; index < rows.length; index += 1) {
      const row = later.get(keyText((column) => rows.valueOf(index, column), this.#key));
      if (row !== undefined) overtaken.set(index, row);
    }
    return overtaken;
  }

  /** The last state of each row, by its key, of the changes that end at such places. */
  #newest(isMeant: (end: Position) => boolean): Map<string, Row | null> {
    const newest = new Map<string, Row | null>();
    for (const { end, key, row } of this.#changes) if (isMeant(end)) newest.set(key, row);
    return newest;
  }

  #see(change: RowChange, end: Position): void {
    const { row, old, table } = change;
    // An update may change a column that others refer to.
    if (change.kind === "delete" || (old !== null && table !== this.#table)) this.#gone(table, end);
    if (table !== this.#table) return;
    this.#overflowed ||= this.#changes.length >= CHANGES_MAX;
    if (this.#overflowed) return;
    const key = keyText((column) => row[column], this.#key);
    if (old !== null && this.#key.some((index) => old[index] !== undefined)) {
      const before = keyText((column) => old[column] ?? row[column], this.#key);
      if (before !== key) this.#changes.push({ end, key: before, row: null });
    }
    this.#changes.push({ end, key, row: change.kind === "delete" ? null : row });
  }

  #gone(table: number, end: Position): void {
    if (!this.#firstGone.has(table)) this.#firstGone.set(table, end);
  }
}

/** Keys of one table as text: equal for equal keys, whichever way the row came. */
function keyText(valueOf: (column: number) => Value | undefined, key: readonly number[]): string {
  let text = "";
  for (const index of key) {
    const value = valueOf(index);
    const part = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
    text += `${part.length}:${part}|`;
  }
  return text;
}
