import { DatabaseSync } from "node:sqlite";

/** `magento_id` has no type: an integer stays an integer, a text a text. */
const tables = `
CREATE TABLE IF NOT EXISTS entities (
  entity TEXT NOT NULL,
  id TEXT NOT NULL,
  magento_id NOT NULL,
  sequence TEXT NOT NULL,
  deleted INTEGER NOT NULL,
  fields TEXT NOT NULL,
  PRIMARY KEY (entity, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS floors (entity TEXT PRIMARY KEY, sequence TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ranges (
  entity TEXT NOT NULL,
  low INTEGER,
  high INTEGER,
  sequence TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS key_floors (
  entity TEXT NOT NULL,
  id TEXT NOT NULL,
  sequence TEXT NOT NULL,
  PRIMARY KEY (entity, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS control (
  id TEXT PRIMARY KEY,
  type TEXT NOT NULL,
  time TEXT NOT NULL,
  entity TEXT NOT NULL,
  data TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS heartbeats (instance TEXT PRIMARY KEY, time TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dead_letters (
  event_id TEXT PRIMARY KEY,
  origin TEXT NOT NULL,
  time TEXT NOT NULL,
  entity TEXT NOT NULL,
  id TEXT NOT NULL,
  code TEXT NOT NULL,
  data TEXT NOT NULL
);
`;

/** Opens the consumer's database and makes its tables. ":memory:" for one that ends with the process. */
export function openDatabase(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  // What the last seconds before a power cut brought is lost at worst; Redis has it still, but daprd
  // has acknowledged it: use FULL where the consumer's disk must be as good as the broker's.
  // A wait for a lock holds the whole process up, so it is short: daprd tries again.
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 250;");
  database.exec(tables);
  return database;
}

export function allRows(database: DatabaseSync, sql: string): Record<string, unknown>[] {
  return database.prepare(sql).all();
}

export function countOf(database: DatabaseSync, table: "control" | "dead_letters"): number {
  return Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]);
}
