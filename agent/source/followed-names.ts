import type { TableName } from "./statement-words.ts";

/** The shop's schema and its followed tables as statements name them: without regard to case. */
export class FollowedNames {
  readonly #database: string;
  readonly #memoryTables: ReadonlySet<string>;
  readonly #indices = new Map<string, number>();

  /** `memoryTables`: names of the shop's tables that lose their rows when the server restarts. */
  constructor(database: string, fullNames: readonly string[], memoryTables: ReadonlySet<string> = new Set()) {
    this.#database = database.toLowerCase();
    this.#memoryTables = memoryTables;
    for (const [index, name] of fullNames.entries()) this.#indices.set(name.toLowerCase(), index);
  }

  isShop(schema: string): boolean {
    return schema.toLowerCase() === this.#database;
  }

  /** Index of the followed table, or -1. */
  find(name: TableName | null): number {
    if (name === null || !this.isShop(name.schema)) return -1;
    return this.#indices.get(name.table.toLowerCase()) ?? -1;
  }

  /** Whether it is a table in memory that nobody follows, by its exact name: a view of another case is not. */
  isMemoryTable(name: TableName): boolean {
    return this.isShop(name.schema) && this.#memoryTables.has(name.table) && this.find(name) < 0;
  }

  all(): number[] {
    return [...this.#indices.values()];
  }
}
