/**
 * The greatest sequence of each entity's events that ever came. Whatever is held with a greater one was
 * sent by nobody: it was changed behind the consumer's back.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { allRows } from "./schema.ts";

/** Works on the applier's database, inside its transactions. */
export class NewestSequences {
  readonly #database: DatabaseSync;
  readonly #put: StatementSync;
  #newest = new Map<string, string>();

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#put = database.prepare(
      `INSERT INTO newest (entity, sequence) VALUES (?, ?)
       ON CONFLICT (entity) DO UPDATE SET sequence = excluded.sequence`,
    );
    // A file that an earlier build made knows only what it holds.
    database.exec(
      `INSERT INTO newest (entity, sequence) SELECT entity, max(sequence) FROM entities
       WHERE NOT EXISTS (SELECT 1 FROM newest) GROUP BY entity`,
    );
    this.reload();
  }

  /** From the tables: after a transaction that was rolled back. */
  reload(): void {
    const rows = allRows(this.#database, "SELECT entity, sequence FROM newest");
    this.#newest = new Map(rows.map((row) => [String(row["entity"]), String(row["sequence"])]));
  }

  came(entity: string, sequence: string): void {
    if (sequence <= this.of(entity)) return;
    this.#put.run(entity, sequence);
    this.#newest.set(entity, sequence);
  }

  /** "" where nothing of the entity came. */
  of(entity: string): string {
    return this.#newest.get(entity) ?? "";
  }
}
