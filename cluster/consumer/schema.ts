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
CREATE TABLE IF NOT EXISTS magento_id_floors (
  entity TEXT NOT NULL,
  magento_id TEXT NOT NULL,
  sequence TEXT NOT NULL,
  PRIMARY KEY (entity, magento_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS newest (entity TEXT PRIMARY KEY, sequence TEXT NOT NULL) WITHOUT ROWID;
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
CREATE TABLE IF NOT EXISTS verifications (
  instance TEXT NOT NULL,
  generation INTEGER NOT NULL,
  entity TEXT NOT NULL,
  begun_ms INTEGER NOT NULL,
  through TEXT NOT NULL DEFAULT '',
  verified TEXT,
  extras_looked INTEGER NOT NULL DEFAULT 0,
  completed_ms INTEGER,
  equal INTEGER NOT NULL DEFAULT 0,
  newer INTEGER NOT NULL DEFAULT 0,
  undeliverable INTEGER NOT NULL DEFAULT 0,
  missing INTEGER NOT NULL DEFAULT 0,
  changed INTEGER NOT NULL DEFAULT 0,
  extra INTEGER NOT NULL DEFAULT 0,
  ahead INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (instance, generation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (
  instance TEXT NOT NULL,
  generation INTEGER NOT NULL,
  first_row INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (instance, generation, first_row, count)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listed (
  instance TEXT NOT NULL,
  generation INTEGER NOT NULL,
  magento_id NOT NULL,
  PRIMARY KEY (instance, generation, magento_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS suspects (
  instance TEXT NOT NULL,
  generation INTEGER NOT NULL,
  magento_id NOT NULL,
  hash TEXT,
  sequence TEXT NOT NULL,
  tries INTEGER NOT NULL,
  due_ms INTEGER NOT NULL,
  PRIMARY KEY (instance, generation, magento_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drifts (
  instance TEXT NOT NULL,
  generation INTEGER NOT NULL,
  magento_id NOT NULL,
  id TEXT,
  kind TEXT NOT NULL,
  PRIMARY KEY (instance, generation, magento_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entities_by_key ON entities (entity, magento_id);
`;

/** Opens the consumer's database and makes its tables. ":memory:" for one that ends with the process. */
export function openDatabase(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  // What the last seconds before a power cut brought is lost at worst; Redis has it still, but daprd
  // has acknowledged it: use FULL where the consumer's disk must be as good as the broker's.
  // A wait for a lock holds the whole process up, so it is short: daprd tries again.
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 250;");
  database.exec(tables);
  const known = database.prepare("SELECT name FROM pragma_table_info('verifications')").all();
  // A file that an earlier build made.
  if (!known.some(({ name }) => name === "ahead"))
    database.exec("ALTER TABLE verifications ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0");
  return database;
}

export function allRows(database: DatabaseSync, sql: string): Record<string, unknown>[] {
  return database.prepare(sql).all();
}

export function countOf(database: DatabaseSync, table: "control" | "dead_letters"): number {
  return Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]);
}
