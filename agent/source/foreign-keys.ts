/** Foreign keys as the shop's schema declares them. */
import { openControl, textOf } from "./control-connection.ts";
import type { SourceSettings } from "./settings.ts";
import { translateError } from "./source-errors.ts";

/** One column of a foreign key. Tables are without prefix. */
export interface ForeignKey {
  readonly table: string;
  readonly column: string;
  readonly parentTable: string;
  readonly parentColumn: string;
  /** CASCADE, SET NULL, RESTRICT, NO ACTION. */
  readonly onDelete: string;
}

/** All of the shop's schema, on a connection of its own. Rejects while the server cannot be asked. */
export async function readForeignKeys(settings: SourceSettings): Promise<readonly ForeignKey[]> {
  const { database, tablePrefix } = settings;
  try {
    await using control = await openControl(settings);
    const rows = await control.query(
      `SELECT k.TABLE_NAME AS child, k.COLUMN_NAME AS child_column, k.REFERENCED_TABLE_NAME AS parent,
         k.REFERENCED_COLUMN_NAME AS parent_column, r.DELETE_RULE AS on_delete
       FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r
         ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME
       WHERE k.CONSTRAINT_SCHEMA = ? AND k.TABLE_SCHEMA = ? AND k.REFERENCED_TABLE_NAME IS NOT NULL`,
      [database, database],
    );
    const plain = (name: string): string =>
      name.startsWith(tablePrefix) ? name.slice(tablePrefix.length) : name;
    return rows.map((row) => ({
      table: plain(textOf(row, "child")),
      column: textOf(row, "child_column"),
      parentTable: plain(textOf(row, "parent")),
      parentColumn: textOf(row, "parent_column"),
      onDelete: textOf(row, "on_delete"),
    }));
  } catch (thrown) {
    throw translateError(thrown);
  }
}
