/**
 * Entries of the index that rows give: of which parent each child is. Pure; what is on disk is not
 * looked at. Each change puts and deletes whole entries, so that the same changes again, in the same
 * order, end with the same entries.
 */
import type { RowChange, SnapshotChunk, TransactionPart } from "../change.ts";
import type { IndexChange, IndexEncoder, IndexRelation } from "../ports.ts";
import type { EntityPlan } from "./entity-plan.ts";
import { EntryKeys, NUMBER_BYTES, type Part, relationPrefixes } from "./index-entry.ts";
import type { Row } from "./merge.ts";
import { type Relation, relationFingerprint, relationName, relations, relationsOf } from "./relations.ts";

/** A relation of a followed table: where its columns stand in a row. */
interface Kept {
  readonly relation: Relation;
  readonly key: readonly number[];
  readonly column: number;
  /** Its number as a value; made anew when the number is another. */
  number: number;
  value: Buffer;
}

/** A child's entry, as a row has it; null where the row has no parent. */
interface Link {
  readonly parent: Part;
  readonly child: readonly Part[];
}

export class ChildIndex implements IndexEncoder {
  readonly relations: readonly IndexRelation[];
  /** By followed table; null where none is kept of it. */
  readonly #kept: readonly (readonly Kept[] | null)[];
  readonly #keys = new EntryKeys();

  constructor(plans: readonly EntityPlan[]) {
    this.#kept = plans.map((plan) => {
      const kept = relationsOf(plan.table).map((relation) => keptOf(relation, plan));
      return kept.length === 0 ? null : kept;
    });
    this.relations = relations.map((relation): IndexRelation => {
      const followed = plans.findIndex(({ table }) => table === relation.table);
      const plan = plans[followed];
      return {
        id: relation.id,
        name: relationName(relation),
        table: relation.table,
        followed,
        fingerprint: plan === undefined ? null : relationFingerprint(relation, plan.key.columns),
        prefixes: relationPrefixes(relation.id),
      };
    });
  }

  addEntries(
    item: TransactionPart | SnapshotChunk,
    numberOf: (relation: number) => number,
    into: IndexChange[],
  ): void {
    if (item.kind === "chunk") {
      for (const kept of this.#kept[item.table] ?? []) {
        numbered(kept, numberOf(kept.relation.id));
        const wanted = [kept.column, ...kept.key];
        for (let row = 0; row < item.rows.length; row += 1) {
          // Entries of newer changes are written already; one of before would stay for ever.
          const newest = item.overtaken.get(row);
          const known = newest === undefined ? item.rows.rowOf(row, wanted) : newest;
          if (known !== null) this.#put(kept, linkOf(kept, known), into);
        }
      }
      return;
    }
    for (const change of item.changes) {
      const all = this.#kept[change.table];
      if (all === null || all === undefined) continue;
      for (const kept of all) this.#follow(kept, change, numberOf, into);
    }
  }

  #follow(
    kept: Kept,
    { kind, row, old }: RowChange,
    numberOf: (relation: number) => number,
    into: IndexChange[],
  ): void {
    let before: Link | null = null;
    if (kind === "delete") before = linkOf(kept, row);
    else if (old !== null) {
      // Nothing of the entry changed: the usual update, and it costs no more than this look.
      if (old[kept.column] === undefined && kept.key.every((index) => old[index] === undefined)) return;
      before = linkOf(
        kept,
        row.map((value, index) => (old[index] === undefined ? value : old[index])),
      );
    }
    if (before !== null) this.#remove(kept, before, into);
    if (kind === "delete") return;
    numbered(kept, numberOf(kept.relation.id));
    this.#put(kept, linkOf(kept, row), into);
  }

  #put({ relation, number, value }: Kept, link: Link | null, into: IndexChange[]): void {
    if (link === null) return;
    into.push({ key: this.#keys.child(relation.id, link.parent, link.child), value });
    if (!relation.bothWays) return;
    into.push({
      key: this.#keys.lookup(relation.id, link.child),
      value: this.#keys.lookupValue(number, link.parent),
    });
  }

  #remove({ relation }: Kept, { parent, child }: Link, into: IndexChange[]): void {
    into.push({ key: this.#keys.child(relation.id, parent, child), value: null });
    if (relation.bothWays) into.push({ key: this.#keys.lookup(relation.id, child), value: null });
  }
}

/** The mapped columns of an entity's table, and those that the index wants of it beside them. */
export function withIndexColumns(table: string, mapped: readonly string[]): string[] {
  const columns = [...new Set(mapped)];
  for (const { column } of relationsOf(table)) if (placeOf(column, columns) < 0) columns.push(column);
  return columns;
}

/** Where the columns stand that the index wants of the table. */
export function indexPlaces(table: string, columns: readonly string[]): readonly number[] {
  return relationsOf(table).map(({ column }) => placeOf(column, columns));
}

/** A mapping may write a column's name in its own way. */
function placeOf(name: string, columns: readonly string[]): number {
  return columns.findIndex((column) => column.toLowerCase() === name);
}

function keptOf(relation: Relation, plan: EntityPlan): Kept {
  const column = placeOf(relation.column, plan.columns);
  return { relation, key: plan.key.indices, column, number: -1, value: Buffer.alloc(NUMBER_BYTES) };
}

function numbered(kept: Kept, number: number): void {
  if (kept.number === number) return;
  kept.number = number;
  // The changes that hold the one before may not be written yet.
  kept.value = Buffer.alloc(NUMBER_BYTES);
  kept.value.writeUInt32BE(number);
}

function linkOf({ key, column }: Kept, row: Row): Link | null {
  const parent = row[column];
  if (parent === null || parent === undefined) return null;
  const child: Part[] = [];
  for (const index of key) {
    const part = row[index];
    // Without its key a row is nobody's; the transform refuses it.
    if (part === null || part === undefined) return null;
    child.push(part);
  }
  return { parent, child };
}
