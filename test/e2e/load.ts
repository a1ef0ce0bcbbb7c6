/** The load under which agents are killed: random transactions, and again and again a large one. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mysql2/promise";
import type { Random } from "../oracle/random.ts";
import type { Stack } from "./stack.ts";

const largePauseMs = 1_500;
const largeRows = 2_000;

/** Runs until aborted; gives the counts. A failure shows when it is awaited, not before. */
export function startLoad(stack: Stack, random: Random, signal: AbortSignal): Promise<unknown> {
  const load = writeBoth(stack, random, signal);
  load.catch(() => undefined);
  return load;
}

async function writeBoth(stack: Stack, random: Random, signal: AbortSignal): Promise<unknown> {
  const [counts] = await Promise.all([
    stack.write({ random, connections: 3, transactions: 1_000_000, pauseMs: 15, signal }),
    writeLarge(stack, random.fork(2), signal),
  ]);
  return counts;
}

/** A few thousand rows of one table change at once. */
async function writeLarge(stack: Stack, random: Random, signal: AbortSignal): Promise<void> {
  const { database } = stack.identity;
  const base = 10_000_000;
  const connection = await stack.database.connection({ database });
  try {
    await connection.query("SET SESSION sql_mode = ''");
    // The largest key first: no other writer's automatic key can then fall among the rest.
    for (let at = largeRows - 500; at >= 0; at -= 500) {
      const rows = Array.from({ length: 500 }, (_, row) => `(${base + at + 499 - row}, 1, 'bulk-${row}')`);
      const sql = `INSERT INTO sales_order_item (item_id, order_id, sku) VALUES ${rows.join(",")}`;
      // Taken back for the sake of another writer it is tried again, for as long as the load lasts.
      while (!signal.aborted && !(await runs(connection, sql)));
    }
    while (!signal.aborted) {
      const last = base + random.int(1_100, largeRows);
      await runs(
        connection,
        `UPDATE sales_order_item SET qty_shipped = qty_shipped + 1 WHERE item_id >= ${base} AND item_id < ${last}`,
      );
      await sleep(largePauseMs);
    }
  } finally {
    await connection.end();
  }
}

/** False after a deadlock or a lock wait with the other writers: both belong to the play. */
async function runs(connection: Connection, sql: string): Promise<boolean> {
  try {
    await connection.query(sql);
    return true;
  } catch (thrown) {
    const errno = typeof thrown === "object" && thrown !== null && "errno" in thrown ? thrown.errno : null;
    if (errno !== 1205 && errno !== 1213) throw thrown;
    return false;
  }
}
