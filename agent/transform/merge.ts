/**
 * One event per key and part: changes of one entity inside a part become one. What remains is the
 * difference between the entity before the part and after it, under the place of its last change.
 *
 * Two things stay two: a change of key (the old entity ends, the new one begins), and a delete with
 * a new insert of one key in a table that others hang on by foreign keys, because the delete
 * emptied its children.
 */
import type { RowChange, Value } from "../change.ts";
import { entityKeyOf } from "./identity.ts";
import type { KeyColumns } from "./identity.ts";
import { sameValue } from "./wire.ts";
import type { Step } from "./sequence.ts";

export type Row = readonly (Value | undefined)[];

/** A change of one entity, merged. */
export interface EntityChange {
  readonly table: number;
  readonly key: string;
  /** Merging makes no `r`: those are rows that were read. */
  readonly op: "c" | "u" | "d" | "r";
  readonly row: Row;
  /** For `u`: old values where they differ, `undefined` elsewhere. */
  readonly old: Row | null;
  readonly imageIndex: number;
  readonly ordinal: number;
  readonly step: Step;
}

/** What merging has to know of a table. */
export interface MergeTable {
  readonly key: KeyColumns;
  /** Others hang on it by foreign keys. */
  readonly cascades: boolean;
}

/** Changes of a part, merged, in the order of their place. Pure. */
export function mergeChanges(changes: readonly RowChange[], tables: readonly MergeTable[]): EntityChange[] {
  if (changes.length === 1) {
    const [only] = changes;
    return only === undefined ? [] : linksOf(only, tableAt(tables, only.table));
  }
  const chains = new Map<string, EntityChange | Chain>();
  for (const change of changes) {
    for (const link of linksOf(change, tableAt(tables, change.table))) {
      const known = chains.get(link.key);
      if (known === undefined) chains.set(link.key, link);
      else if (known instanceof Chain) known.add(link);
      else chains.set(link.key, new Chain(known, link));
    }
  }
  const merged: EntityChange[] = [];
  for (const chain of chains.values()) {
    if (chain instanceof Chain) chain.finish(merged, tableAt(tables, chain.table).cascades);
    else merged.push(chain);
  }
  // Most parts are in order already, and sorting a sorted array is cheap.
  return merged.sort(byPlace);
}

function byPlace(left: EntityChange, right: EntityChange): number {
  return left.ordinal - right.ordinal || left.step - right.step;
}

function tableAt(tables: readonly MergeTable[], index: number): MergeTable {
  const table = tables[index];
  if (table === undefined) throw new RangeError(`no followed table ${index}`);
  return table;
}

/** One row image as changes of entities: one, or two when the key changed. */
function linksOf(change: RowChange, table: MergeTable): EntityChange[] {
  const { row, old, imageIndex, ordinal } = change;
  const key = entityKeyOf(table.key, row);
  const base = { table: change.table, imageIndex, ordinal };
  if (change.kind === "update" && old !== null) {
    if (table.key.indices.some((index) => old[index] !== undefined)) {
      const before = overlay(row, old);
      const oldKey = entityKeyOf(table.key, before);
      if (oldKey !== key) {
        return [
          { ...base, key: oldKey, op: "d", row: before, old: null, step: 0 },
          { ...base, key, op: "c", row, old: null, step: 1 },
        ];
      }
    }
    return [{ table: change.table, key, op: "u", row, old, imageIndex, ordinal, step: 1 }];
  }
  const op = change.kind === "insert" ? "c" : "d";
  return [{ table: change.table, key, op, row, old: null, imageIndex, ordinal, step: 1 }];
}

/** The row before an update. */
function overlay(row: Row, old: Row): Row {
  return row.map((value, index) => {
    const before = old[index];
    return before === undefined ? value : before;
  });
}

/** Two and more changes of one key. */
class Chain {
  readonly table: number;
  readonly #before: Row | null;
  #after: Row | null;
  /** The last delete, if any. */
  #deleted: EntityChange | null = null;
  #last: EntityChange;

  constructor(first: EntityChange, second: EntityChange) {
    this.table = first.table;
    this.#last = first;
    this.#after = null;
    if (first.op === "c") this.#before = null;
    else this.#before = first.old === null ? first.row : overlay(first.row, first.old);
    this.add(first);
    this.add(second);
  }

  add(link: EntityChange): void {
    this.#last = link;
    if (link.op === "d") {
      this.#after = null;
      this.#deleted = link;
    } else {
      this.#after = link.row;
    }
  }

  /** Appends what remains of the chain: nothing, one change, or a delete and an insert. */
  finish(into: EntityChange[], cascades: boolean): void {
    const before = this.#before;
    const after = this.#after;
    const last = this.#last;
    if (before === null) {
      // Inserted and gone again within the part: nobody outside ever saw it.
      if (after !== null) into.push({ ...last, op: "c", row: after, old: null, step: 1 });
      return;
    }
    if (after === null) {
      into.push({ ...last, op: "d", row: before, old: null });
      return;
    }
    if (this.#deleted !== null && cascades) {
      into.push({ ...this.#deleted, op: "d", row: before, old: null, step: 0 });
      into.push({ ...last, op: "c", row: after, old: null, step: 1 });
      return;
    }
    const old = after.map((value, index) => (sameValue(value, before[index]) ? undefined : before[index]));
    into.push({ ...last, op: "u", row: after, old, step: 1 });
  }
}
