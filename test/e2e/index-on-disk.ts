/** The index as a stopped agent's database has it, against the source's tables. */
import { join } from "node:path";
import { indexRoom, indexKeyBody } from "../../agent/spool/keys.ts";
import { entriesOf, levelDatabase } from "../../agent/spool/database.ts";
import { openFrame } from "../../agent/spool/record.ts";
import { isVoid, readState, type RelationState } from "../../agent/index-state.ts";
import { readChildKey, readLookup } from "../../agent/transform/index-entry.ts";
import { relations } from "../../agent/transform/relations.ts";
import { entities } from "../oracle/entities.ts";
import type { Stack } from "./stack.ts";

export interface IndexOnDisk {
  readonly states: ReadonlyMap<number, RelationState>;
  /** Entries that count, by relation: `child of parent`. */
  readonly children: ReadonlyMap<number, readonly string[]>;
  /** `parent of child`, from the lookups. */
  readonly lookups: ReadonlyMap<number, readonly string[]>;
  /** Entries that lie there and do not count. */
  readonly voids: number;
  /** Bytes of keys and values. */
  readonly bytes: number;
}

/** Reads all of it; a damaged record throws. */
export async function readIndex(stateDir: string): Promise<IndexOnDisk> {
  const database = levelDatabase(join(stateDir, "spool"), { createIfMissing: false });
  await database.open();
  const states = new Map<number, RelationState>();
  const children = new Map(relations.map(({ id }) => [id, new Array<string>()]));
  const lookups = new Map(relations.map(({ id }) => [id, new Array<string>()]));
  let voids = 0;
  let bytes = 0;
  try {
    for await (const [key, framed] of entriesOf(database, indexRoom)) {
      const body = indexKeyBody(key);
      const value = openFrame(key, framed);
      const relation = body.readUInt8(1);
      bytes += key.length + framed.length;
      // Keys of states sort before those of entries.
      if (body[0] === 0) {
        const state = readState(value);
        if (state !== null) states.set(relation, state);
        continue;
      }
      if (isVoid(value, states.get(relation)?.floor ?? 0)) {
        voids += 1;
        continue;
      }
      const child = readChildKey(body);
      if (child !== null) children.get(relation)?.push(text(child.child, child.parent));
      const lookup = readLookup(body, value);
      if (lookup !== null) lookups.get(relation)?.push(text(lookup.child, lookup.parent));
    }
  } finally {
    await database.close();
  }
  return { states, children: sorted(children), lookups: sorted(lookups), voids, bytes };
}

/** What the tables have of each relation now, in the same words. */
export async function childrenOfSource(stack: Stack): Promise<ReadonlyMap<number, readonly string[]>> {
  const found = new Map<number, string[]>();
  const { database, prefix } = stack.identity;
  for (const { id, table, column } of relations) {
    const keys = entities.find((spec) => spec.table === table)?.keyColumns ?? [];
    const rows = await stack.database.query(
      `SELECT ${[...keys, column].map((name) => `\`${name}\``).join(", ")} FROM \`${database}\`.\`${prefix}${table}\` WHERE \`${column}\` IS NOT NULL`,
    );
    found.set(
      id,
      rows.map((row) =>
        text(
          keys.map((key) => row[key]),
          row[column],
        ),
      ),
    );
  }
  return sorted(found);
}

function text(child: readonly unknown[], parent: unknown): string {
  return `${child.map(String).join(":")} of ${String(parent)}`;
}

function sorted(lists: ReadonlyMap<number, readonly string[]>): ReadonlyMap<number, readonly string[]> {
  return new Map([...lists].map(([id, list]) => [id, list.toSorted()]));
}
