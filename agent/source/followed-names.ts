import type { TableName } from "./statement-words.ts";

/** The shop's schema and its followed tables as statements name them: without regard to case. */
export class FollowedNames {
  readonly #database: string;
  readonly #memoryTables: ReadonlySet<string>;
  readonly #indices = new Map<string, number>();
  readonly #columns: readonly ReadonlySet<string>[];

  /**
   * `memoryTables`: names of the shop's tables that lose their rows when the server restarts; `columns`:
   * the followed ones of each table.
   */
  constructor(
    database: string,
    fullNames: readonly string[],
    memoryTables: ReadonlySet<string> = new Set(),
    columns: readonly (readonly string[])[] = [],
  ) {
    this.#columns = columns.map((names) => new Set(names.map((name) => name.toLowerCase())));
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

  /** Whether the followed table follows a column of this name. */
  hasColumn(table: number, name: string): boolean {
    return this.#columns[table]?.has(name.toLowerCase()) ?? false;
  }

  /** Whether it is a table in memory that nobody follows, by its exact name: a view of another case is not. */
  isMemoryTable(name: TableName): boolean {
    return this.isShop(name.schema) && this.#memoryTables.has(name.table) && this.find(name) < 0;
  }

  all(): number[] {
    return [...this.#indices.values()];
  }
}
