/**
 * What a statement in the binlog means for the followed tables. Rows stand in row events; a
 * statement is either about the group (BEGIN, SAVEPOINT, ...), about a table's shape, or a change
 * that was logged as text, whose rows nobody can know.
 */
import type { TableEvent } from "../change.ts";
import type { QueryEvent } from "./binlog-event.ts";
import { redefinition } from "./alter-columns.ts";
import type { FollowedNames } from "./followed-names.ts";
import { callsRoutine, readChange, type TextChange } from "./statement-change.ts";
import { type TableName, type Token, tokenize, Words } from "./statement-words.ts";

export interface TableEffect {
  /** Index into the followed tables. */
  readonly table: number;
  readonly what: TableEvent["what"];
  readonly redefines?: TableEvent["redefines"];
}

export type Statement =
  | { readonly kind: "begin" | "commit" | "rollback" | "xaStart" | "xaEnd" | "xaDecision" | "other" }
  | { readonly kind: "savepoint" | "rollbackTo"; readonly name: string }
  | TextChange
  | { readonly kind: "tables"; readonly effects: readonly TableEffect[]; readonly text: string };

/** More tokens than any statement about tables needs before its last table name. */
const TOKENS_MAX = 20_000;
const other: Statement = { kind: "other" };
const changes = new Set(["INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH", "CALL", "SELECT", "DO"]);
const analyzesTable = new Set(["TABLE", "TABLES", "LOCAL", "NO_WRITE_TO_BINLOG"]);

export function readStatement(query: QueryEvent, names: FollowedNames): Statement {
  const head = tokenize(query.text, { plainBackslash: query.plainBackslash, limit: 8 });
  const words = new Words(head);
  const verb = words.peek();
  if (verb === "(" || changes.has(verb)) return readChange(query, names);
  if (verb === "SET" && words.peek(1) === "STATEMENT") return readWrapped(query, names);
  // MariaDB: ANALYZE runs the change behind it, and is logged with it.
  if (verb === "ANALYZE" && !analyzesTable.has(words.peek(1))) return readChange(query, names);
  switch (verb) {
    case "BEGIN":
      return { kind: "begin" };
    case "COMMIT":
      return { kind: "commit" };
    case "XA":
      return readXa(words);
    case "SAVEPOINT":
      words.skip();
      return { kind: "savepoint", name: savepointName(words) };
    case "ROLLBACK":
      return readRollback(words);
    case "TRUNCATE":
    case "DROP":
    case "RENAME":
    case "CREATE":
    case "ALTER":
      return readTables(query, names);
    default:
      return other;
  }
}

function savepointName(words: Words): string {
  return (words.name() ?? "").toLowerCase();
}

function readXa(words: Words): Statement {
  words.skip();
  if (words.peek() === "START" || words.peek() === "BEGIN") return { kind: "xaStart" };
  return { kind: words.peek() === "COMMIT" || words.peek() === "ROLLBACK" ? "xaDecision" : "xaEnd" };
}

function readRollback(words: Words): Statement {
  words.skip();
  if (!words.take("WORK", "TO") && !words.take("TO")) return { kind: "rollback" };
  words.take("SAVEPOINT");
  return { kind: "rollbackTo", name: savepointName(words) };
}

/** MariaDB: `SET STATEMENT variable = value, ... FOR` and the statement itself, logged as they were said. */
function readWrapped(query: QueryEvent, names: FollowedNames): Statement {
  const tokens = tokenize(query.text, { plainBackslash: query.plainBackslash, limit: TOKENS_MAX });
  let depth = 0;
  const at = tokens.findIndex(({ kind, text }) => {
    if (kind === "sign" && text === "(") depth += 1;
    if (kind === "sign" && text === ")") depth -= 1;
    return depth === 0 && kind === "word" && text.toUpperCase() === "FOR";
  });
  const start = at < 0 ? undefined : tokens[at + 1]?.start;
  if (start === undefined) return readChange(query, names);
  return readStatement({ ...query, text: query.text.slice(start) }, names);
}

function readTables(query: QueryEvent, names: FollowedNames): Statement {
  const tokens = tokenize(query.text, { plainBackslash: query.plainBackslash, limit: TOKENS_MAX });
  const words = new Words(tokens);
  const verb = words.peek();
  words.skip();
  if (verb === "CREATE" && fillsByRoutine(tokens)) return readChange(query, names);
  const found = new Effects(names, query.schema);
  if (verb === "TRUNCATE") readTruncate(words, found);
  else if (verb === "DROP") readDrop(words, found);
  else if (verb === "RENAME") readRename(words, found);
  else if (verb === "CREATE") readCreate(words, found);
  else readAlter(words, found);
  return found.effects.size === 0 ? other : found.statement(verb);
}

/** Collects what a statement does: of what concerns rows the last thing counts, and it outweighs an alteration. */
class Effects {
  readonly effects = new Map<number, TableEffect["what"]>();
  readonly redefined = new Map<number, TableEvent["redefines"]>();
  readonly names: FollowedNames;
  readonly schema: string;
  #tables: string[] = [];

  constructor(names: FollowedNames, schema: string) {
    this.names = names;
    this.schema = schema;
  }

  /** Reads a table name here and notes the effect on it. False where no name stands. */
  add(words: Words, what: TableEffect["what"]): boolean {
    const name = words.tableName(this.schema);
    this.note(name, what);
    return name !== null;
  }

  note(name: TableName | null, what: TableEffect["what"]): void {
    const table = this.names.find(name);
    if (table < 0 || name === null) return;
    this.#tables.push(name.table);
    if (what !== "altered" || !this.effects.has(table)) this.effects.set(table, what);
  }

  noteAll(): void {
    for (const table of this.names.all()) this.effects.set(table, "reset");
  }

  statement(verb: string): Statement {
    const effects = [...this.effects].map(([table, what]): TableEffect => {
      const redefines = this.redefined.get(table);
      return what !== "altered" || redefines === undefined ? { table, what } : { table, what, redefines };
    });
    const object = this.#tables.length === 0 ? "DATABASE" : `TABLE ${[...new Set(this.#tables)].join(", ")}`;
    return { kind: "tables", effects, text: `${verb} ${object}`.slice(0, 200) };
  }
}

function readTruncate(words: Words, found: Effects): void {
  words.take("TABLE");
  found.add(words, "reset");
}

function readDrop(words: Words, found: Effects): void {
  if (words.take("DATABASE") || words.take("SCHEMA")) {
    words.take("IF", "EXISTS");
    if (found.names.isShop(words.name() ?? "")) found.noteAll();
    return;
  }
  // A temporary table hides the real one of its name, and says nothing about it.
  if (!words.take("TABLE") && !words.take("TABLES")) return;
  words.take("IF", "EXISTS");
  while (found.add(words, "reset") && words.take(","));
}

function readRename(words: Words, found: Effects): void {
  if (!words.take("TABLE") && !words.take("TABLES")) return;
  words.take("IF", "EXISTS");
  while (found.add(words, "reset")) {
    skipWait(words);
    if (!words.take("TO")) return;
    found.add(words, "replaced");
    if (!words.take(",")) return;
  }
}

/** MariaDB: `WAIT n` or `NOWAIT` behind a table's name. */
function skipWait(words: Words): void {
  if (words.take("NOWAIT")) return;
  if (words.peek() === "WAIT") words.skip(2);
}

function readCreate(words: Words, found: Effects): void {
  const replaces = words.take("OR", "REPLACE");
  if (!words.take("TABLE")) return;
  // IF NOT EXISTS is logged also where the table existed and nothing happened; where it did not
  // exist, what removed it was a reset already.
  const conditional = words.take("IF", "NOT", "EXISTS");
  found.add(words, conditional && !replaces ? "altered" : "reset");
}

/** CREATE TABLE ... SELECT is logged with its SELECT in statement format only, and that calls a routine. */
function fillsByRoutine(tokens: readonly Token[]): boolean {
  const words = new Words(tokens.slice(1));
  words.take("OR", "REPLACE");
  words.take("TEMPORARY");
  if (!words.take("TABLE")) return false;
  skipTo(words, "SELECT");
  return callsRoutine(words.rest());
}

function readAlter(words: Words, found: Effects): void {
  words.take("ONLINE");
  // MariaDB: rows that a unique key forbids are left out, without a word.
  const drops = words.take("IGNORE");
  if (!words.take("TABLE")) return;
  words.take("IF", "EXISTS");
  const name = words.tableName(found.schema);
  found.note(name, drops ? "replaced" : "altered");
  const table = found.names.find(name);
  const isFollowed = (column: string): boolean => found.names.hasColumn(table, column);
  if (table >= 0) found.redefined.set(table, redefinition(words.rest(), isFollowed));
  readAlterClauses(words, found, name);
}

/** Clauses that do more to the rows than change their columns. */
function readAlterClauses(words: Words, found: Effects, name: TableName | null): void {
  let depth = 0;
  while (!words.atEnd) {
    const word = words.peek();
    if (word === "(") depth += 1;
    if (word === ")") depth -= 1;
    words.skip();
    if (depth > 0) continue;
    if (word === "RENAME") readAlterRename(words, found, name);
    else if (word === "EXCHANGE" || word === "CONVERT") readMove(words, found, name);
    else if ((word === "TRUNCATE" || word === "DROP") && words.peek() === "PARTITION") {
      found.note(name, "replaced");
    } else if (isTablespace(word, words)) {
      // Without its file no row can be read; what comes back with one is what that holds.
      found.note(name, word === "DISCARD" ? "reset" : "replaced");
    }
  }
}

function isTablespace(word: string, words: Words): boolean {
  return (word === "DISCARD" || word === "IMPORT") && ["TABLESPACE", "PARTITION"].includes(words.peek());
}

/** EXCHANGE PARTITION p WITH TABLE t, MariaDB's CONVERT PARTITION p TO TABLE t and CONVERT TABLE t TO PARTITION p. */
function readMove(words: Words, found: Effects, name: TableName | null): void {
  if (words.take("PARTITION")) {
    found.note(name, "replaced");
    skipTo(words, "TABLE");
    found.add(words, "replaced");
  } else if (words.take("TABLE")) {
    found.add(words, "reset");
    found.note(name, "replaced");
  }
}

function skipTo(words: Words, word: string): void {
  while (!words.atEnd && !words.take(word)) words.skip();
}

function readAlterRename(words: Words, found: Effects, name: TableName | null): void {
  if (["COLUMN", "INDEX", "KEY", "CONSTRAINT"].includes(words.peek())) return;
  if (!words.take("TO") && !words.take("AS")) words.take("=");
  const target = words.tableName(name?.schema ?? found.schema);
  found.note(name, "reset");
  found.note(target, "replaced");
}
