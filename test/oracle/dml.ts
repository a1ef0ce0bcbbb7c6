/**
 * Random transactions on Magento's tables over several connections: what a shop, its extensions, an
 * import and an administrator with a database shell may do, in one seeded mix. Errors that a shop
 * would meet as well (duplicate keys, deadlocks, lock waits) are part of the play; any other one is
 * the test's own fault and is thrown.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mysql2/promise";
import {
  deleteInsertSql,
  deleteSql,
  idleUpdateSql,
  insertDeleteSql,
  insertSql,
  keyChangeSql,
  replaceSql,
  shiftKeysSql,
  unmappedUpdateSql,
  updateSql,
  upsertSql,
} from "./dml-statements.ts";
import { createHelpers, myisamTable, readTables } from "./dml-tables.ts";
import type { TableShape } from "./dml-values.ts";
import { numbersSql } from "../servers/numbers.ts";
import type { Random } from "./random.ts";

export interface DmlSettings {
  /** Opens one more connection to the shop's database. */
  readonly connect: () => Promise<Connection>;
  readonly database: string;
  readonly prefix: string;
  readonly random: Random;
  readonly connections: number;
  /** Transactions of each connection. */
  readonly transactions: number;
  /** Rows of each large transaction; 0 leaves them out. */
  readonly largeRows?: number;
  /** Ends early when aborted. */
  readonly signal?: AbortSignal;
  /** Pause between transactions, for a load that lasts. */
  readonly pauseMs?: number;
}

export interface DmlCounts {
  transactions: number;
  statements: number;
  refused: number;
  rolledBack: number;
}

/**
 * Row changed since the snapshot, duplicate key, lock wait, deadlock, no more auto-increment, value out of range by arithmetic; MySQL
 * with GTIDs refuses other engines in a transaction (1785).
 */
const expectedErrors: ReadonlySet<number> = new Set([
  1020, 1062, 1205, 1206, 1213, 1305, 1467, 1690, 167, 1264, 1586, 1785,
]);
/**
 * After a deadlock, with a full lock table (1206), or where a row changed since the transaction's
 * snapshot (1020, newer MariaDB), the server has rolled back the whole transaction. Rarely it says
 * so only by a savepoint that was set a moment ago and is gone (1305).
 */
const transactionLost: ReadonlySet<number> = new Set([1020, 1206, 1213, 1305]);
/** Only the statement is taken back; a large transaction that lacks one would not be what it says. */
const lockWaitTimeout = 1205;

function errnoOf(thrown: unknown): number {
  if (typeof thrown === "object" && thrown !== null && "errno" in thrown) return Number(thrown.errno);
  return 0;
}

class Writer {
  readonly #connection: Connection;
  readonly #tables: readonly TableShape[];
  readonly #random: Random;
  readonly #counts: DmlCounts;
  readonly #myisam: string;
  #temporary = 0;

  constructor(parts: {
    connection: Connection;
    tables: readonly TableShape[];
    random: Random;
    counts: DmlCounts;
    myisam: string;
  }) {
    this.#connection = parts.connection;
    this.#tables = parts.tables;
    this.#random = parts.random;
    this.#counts = parts.counts;
    this.#myisam = parts.myisam;
  }

  /** Runs one statement; false when it was refused in a way that belongs to the play. */
  async #run(sql: string): Promise<boolean> {
    try {
      this.#counts.statements += 1;
      await this.#connection.query(sql);
      return true;
    } catch (thrown) {
      const errno = errnoOf(thrown);
      if (!expectedErrors.has(errno)) throw thrown;
      this.#counts.refused += 1;
      if (transactionLost.has(errno)) throw new TransactionLost();
      return false;
    }
  }

  #statements(): readonly string[] {
    const random = this.#random;
    const shape = random.pick(this.#tables);
    const make = random.weighted<() => string | readonly string[]>([
      [24, () => insertSql(random, shape)],
      [24, () => updateSql(random, shape)],
      [10, () => upsertSql(random, shape)],
      [8, () => replaceSql(random, shape)],
      [8, () => deleteSql(random, shape)],
      [6, () => keyChangeSql(random, shape)],
      [3, () => shiftKeysSql(random, shape)],
      [4, () => deleteInsertSql(random, shape)],
      [3, () => insertDeleteSql(random, shape)],
      [4, () => unmappedUpdateSql(random, shape)],
      [3, () => idleUpdateSql(random, shape)],
    ]);
    const made = make();
    return typeof made === "string" ? [made] : made;
  }

  async #some(most: number): Promise<void> {
    for (let left = this.#random.int(1, most); left > 0; left -= 1) {
      for (const sql of this.#statements()) await this.#run(sql);
    }
  }

  /** What makes the server log rows that a ROLLBACK then takes back. */
  async #disturb(): Promise<void> {
    if (this.#random.chance(0.5)) {
      this.#temporary += 1;
      await this.#run(`CREATE TEMPORARY TABLE scratch_${this.#temporary} (id INT PRIMARY KEY) ENGINE=InnoDB`);
      await this.#run(`INSERT INTO scratch_${this.#temporary} VALUES (1), (2)`);
    } else {
      await this.#run(`INSERT INTO ${this.#myisam} (note) VALUES ('kept whatever happens')`);
    }
  }

  async #savepoints(): Promise<void> {
    const names = this.#random.pick([["a"], ["a", "b"], ["a", "b", "a"], ["Some Name", "b"]]);
    for (const name of names) {
      await this.#run(`SAVEPOINT \`${name}\``);
      await this.#some(3);
      if (this.#random.chance(0.3)) await this.#disturb();
    }
    const back = this.#random.pick(names);
    const known = await this.#run(`ROLLBACK TO SAVEPOINT \`${back}\``);
    if (known) await this.#some(2);
  }

  async transaction(): Promise<void> {
    const random = this.#random;
    this.#counts.transactions += 1;
    if (random.chance(0.25)) {
      // Autocommit: a statement that fails here, with or without rows done, is a transaction of its own.
      try {
        for (const sql of this.#statements()) await this.#run(sql);
      } catch (thrown) {
        if (!(thrown instanceof TransactionLost)) throw thrown;
      }
      return;
    }
    await this.#connection.query("START TRANSACTION");
    try {
      if (random.chance(0.15)) await this.#disturb();
      await this.#some(5);
      if (random.chance(0.2)) await this.#savepoints();
      if (random.chance(0.1)) await this.#disturb();
      if (random.chance(0.2)) await this.#some(3);
      const rollback = random.chance(0.15);
      if (rollback) this.#counts.rolledBack += 1;
      await this.#connection.query(rollback ? "ROLLBACK" : "COMMIT");
    } catch (thrown) {
      if (!(thrown instanceof TransactionLost)) throw thrown;
      this.#counts.rolledBack += 1;
      await this.#connection.query("ROLLBACK");
    }
  }

  /**
   * One large transaction: rows of order items inserted, many of them changed, some deleted, some taken
   * back. Begun anew when the server took it back for the sake of another writer.
   */
  async large(rows: number, base: number, end: "COMMIT" | "ROLLBACK"): Promise<void> {
    for (let lost = 1; !(await this.#tryLarge(rows, base)); lost += 1) {
      if (lost === 20) throw new Error("the server took a large transaction back 20 times");
      this.#counts.refused += 1;
      this.#counts.rolledBack += 1;
      await this.#connection.query("ROLLBACK");
      await this.#connection.query("DROP TEMPORARY TABLE IF EXISTS scratch_large");
    }
    await this.#connection.query(end);
    this.#counts.transactions += 1;
    if (end === "ROLLBACK") this.#counts.rolledBack += 1;
  }

  /** All but its end; false when the server has taken the transaction back, or a lock was waited for in vain. */
  async #tryLarge(rows: number, base: number): Promise<boolean> {
    try {
      await this.#writeLarge(rows, base);
      return true;
    } catch (thrown) {
      const errno = errnoOf(thrown);
      if (transactionLost.has(errno) || errno === lockWaitTimeout) return false;
      throw thrown;
    }
  }

  async #writeLarge(rows: number, base: number): Promise<void> {
    const items = this.#named("sales_order_item").sql;
    const range = `item_id BETWEEN ${base} AND ${base + rows - 1}`;
    await this.#connection.query("START TRANSACTION");
    // The largest key first: no other writer's automatic key can then fall among the rest.
    await this.#connection.query(
      `INSERT INTO ${items} (item_id, order_id, product_id, sku, name, qty_ordered, price, row_total, created_at)
       SELECT ${base} + seq, seq MOD 997 + 1, seq MOD 89, CONCAT('bulk-', seq), REPEAT('Großer Artikel 😀 ', 8),
         seq / 3, seq * 1.0001, -seq, '2024-01-01 00:00:00' + INTERVAL seq SECOND FROM ${numbersSql(0, rows - 1)}
       ORDER BY seq DESC`,
    );
    await this.#connection.query(
      `UPDATE ${items} SET qty_shipped = qty_ordered, name = CONCAT(name, item_id) WHERE ${range} AND item_id MOD 3 = 0`,
    );
    await this.#connection.query("SAVEPOINT large");
    await this.#connection.query("CREATE TEMPORARY TABLE scratch_large (id INT)");
    await this.#connection.query(
      `UPDATE ${items} SET sku = 'taken back' WHERE ${range} AND item_id MOD 5 = 0`,
    );
    await this.#connection.query("ROLLBACK TO SAVEPOINT large");
    await this.#connection.query("DROP TEMPORARY TABLE scratch_large");
    await this.#connection.query(`DELETE FROM ${items} WHERE ${range} AND item_id MOD 7 = 0`);
  }

  #named(table: string): TableShape {
    const found = this.#tables.find((shape) => shape.table === table);
    if (found === undefined) throw new Error(`no table ${table}`);
    return found;
  }
}

class TransactionLost extends Error {}

async function writerOf(
  settings: DmlSettings,
  label: number,
  counts: DmlCounts,
): Promise<[Writer, Connection]> {
  const connection = await settings.connect();
  await connection.query("SET SESSION sql_mode = '', innodb_lock_wait_timeout = 3");
  // TIMESTAMP is stored in UTC whatever the session shows; the agent must not depend on it.
  if (label % 3 === 1) await connection.query("SET time_zone = '+05:30'");
  const tables = await readTables(connection, settings.database, settings.prefix);
  const myisam = `\`${settings.database}\`.\`${myisamTable}\``;
  return [
    new Writer({ connection, tables, random: settings.random.fork(label), counts, myisam }),
    connection,
  ];
}

async function writeAll(settings: DmlSettings, label: number, counts: DmlCounts): Promise<void> {
  const [writer, connection] = await writerOf(settings, label, counts);
  try {
    for (let left = settings.transactions; left > 0; left -= 1) {
      if (settings.signal?.aborted === true) return;
      await writer.transaction();
      if (settings.pauseMs !== undefined) await sleep(settings.pauseMs);
    }
  } finally {
    await connection.end();
  }
}

async function writeLarge(settings: DmlSettings, rows: number, counts: DmlCounts): Promise<void> {
  const [writer, connection] = await writerOf(settings, 900, counts);
  try {
    await writer.large(rows, 10_000_000, "COMMIT");
    await writer.large(rows, 20_000_000, "ROLLBACK");
  } finally {
    await connection.end();
  }
}

/** Writes until every connection has done its transactions. Gives the counts, for the log. */
export async function writeRandomly(settings: DmlSettings): Promise<DmlCounts> {
  const counts: DmlCounts = { transactions: 0, statements: 0, refused: 0, rolledBack: 0 };
  const opener = await settings.connect();
  await createHelpers(opener, settings.database);
  await opener.end();
  const writers = Array.from({ length: settings.connections }, (_, label) =>
    writeAll(settings, label, counts),
  );
  const rows = settings.largeRows ?? 0;
  if (rows > 0) writers.push(writeLarge(settings, rows, counts));
  await Promise.all(writers);
  return counts;
}
