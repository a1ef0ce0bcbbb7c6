/**
 * Backlogs for the benchmarks: committed transactions on Magento's tables, written as fast as the
 * server takes them. The loops run inside the server (BEGIN NOT ATOMIC), each statement under
 * autocommit, so that every update is a transaction of its own and no client is in the way.
 */
import type { MariadbServer } from "../test/servers/mariadb.ts";

export interface Backlog {
  /** Where the binlog stood before the backlog: START_POSITION. */
  readonly from: string;
  /** Row events on followed tables; each is one entity event. */
  readonly rows: number;
  readonly transactions: number;
  readonly binlogBytes: number;
  readonly seconds: number;
}

const seededOrders = 5000;
const seededCustomers = 5000;
const seededProducts = 2000;

function columnsSql(row: Readonly<Record<string, string>>): string {
  return `(${Object.keys(row).join(", ")}) SELECT ${Object.values(row).join(", ")}`;
}

/** An order as Magento leaves it after invoicing: some 110 of its 150 columns hold something. */
function orderRow(money: readonly string[]): Record<string, string> {
  const row: Record<string, string> = {
    entity_id: "seq",
    state: "'processing'",
    status: "'processing'",
    protect_code: "MD5(seq)",
    shipping_description: "'Flat Rate - Fixed'",
    is_virtual: "0",
    store_id: "1",
    customer_id: "seq",
    increment_id: "LPAD(seq, 9, '0')",
    customer_email: "CONCAT('customer', seq, '@example.com')",
    customer_firstname: "'Veronica'",
    customer_lastname: "CONCAT('Costello ', seq)",
    customer_is_guest: "0",
    customer_group_id: "1",
    order_currency_code: "'EUR'",
    base_currency_code: "'EUR'",
    global_currency_code: "'EUR'",
    store_currency_code: "'EUR'",
    store_name: "'Main Website\\nMain Website Store\\nDefault Store View'",
    shipping_method: "'flatrate_flatrate'",
    remote_ip: "'203.0.113.7'",
    billing_address_id: "seq * 2",
    shipping_address_id: "seq * 2 + 1",
    quote_id: "seq",
    total_item_count: "3",
    total_qty_ordered: "3",
    weight: "4.5",
    created_at: "'2026-01-01 00:00:00' + INTERVAL seq SECOND",
    updated_at: "'2026-01-01 00:00:00' + INTERVAL seq SECOND",
  };
  for (const column of money) row[column] ??= "(seq MOD 9000) / 7 + 5";
  return row;
}

const customerRow: Readonly<Record<string, string>> = {
  entity_id: "seq",
  website_id: "1",
  store_id: "1",
  group_id: "1",
  email: "CONCAT('customer', seq, '@example.com')",
  firstname: "'Veronica'",
  lastname: "CONCAT('Costello ', seq)",
  created_in: "'Default Store View'",
  dob: "'1973-12-15'",
  gender: "2",
  password_hash: "SHA2(seq, 256)",
  default_billing: "seq",
  default_shipping: "seq",
};

/** So many orders and customers, half of each, as rows for a snapshot. */
export async function seedRows(server: MariadbServer, rows: number): Promise<void> {
  await server.query("USE magento_db");
  const money = await moneyColumns(server);
  // In pieces: one transaction of all would be its own measurement.
  for (let from = 1; from <= rows / 2; from += 25_000) {
    const some = `(SELECT seq FROM seq_1_to_${rows} WHERE seq BETWEEN ${from} AND ${Math.min(from + 24_999, rows / 2)}) AS s`;
    await server.query(`INSERT INTO magento_db.sales_order ${columnsSql(orderRow(money))} FROM ${some}`);
    await server.query(`INSERT INTO magento_db.customer_entity ${columnsSql(customerRow)} FROM ${some}`);
  }
}

async function moneyColumns(server: MariadbServer): Promise<string[]> {
  const rows = await server.query(
    `SELECT COLUMN_NAME AS name FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'magento_db'
     AND TABLE_NAME = 'sales_order' AND DATA_TYPE = 'decimal'`,
  );
  return rows.map((row) => String(row["name"]));
}

/** Rows that the updates work on. Part of no measurement. */
export async function seedShop(server: MariadbServer): Promise<void> {
  await server.query("USE magento_db");
  const money = await moneyColumns(server);
  await server.query(
    `INSERT INTO magento_db.sales_order ${columnsSql(orderRow(money))} FROM seq_1_to_${seededOrders}`,
  );
  await server.query(
    `INSERT INTO magento_db.customer_entity ${columnsSql(customerRow)} FROM seq_1_to_${seededCustomers}`,
  );
  await server.query(
    `INSERT INTO magento_db.cataloginventory_stock_item (product_id, stock_id, qty, is_in_stock)
     SELECT seq, 1, 100, 1 FROM seq_1_to_${seededProducts}`,
  );
  await server.query(
    "INSERT INTO magento_db.salesrule_coupon (coupon_id, rule_id, code) SELECT seq, 1, CONCAT('C', seq) FROM seq_1_to_50",
  );
}

export async function binlogPosition(server: MariadbServer): Promise<{ file: string; position: number }> {
  const [row] = await server.query("SHOW MASTER STATUS");
  return { file: String(row?.["File"]), position: Number(row?.["Position"]) };
}

interface Loop {
  readonly sql: string;
  readonly rows: number;
  readonly transactions: number;
}

/** Single-row updates, orders and customers in turns: an order's status and totals, a customer's name. */
function updateLoop(count: number, worker: number): Loop {
  const order = `UPDATE magento_db.sales_order SET status = IF(i MOD 2, 'complete', 'processing'),
    total_paid = i / 100, base_total_paid = i / 100, total_due = i / 50 WHERE entity_id = (i * 2 + ${worker}) MOD ${seededOrders} + 1`;
  const customer = `UPDATE magento_db.customer_entity SET firstname = CONCAT('V', i), failures_num = i MOD 9
    WHERE entity_id = (i * 2 + ${worker}) MOD ${seededCustomers} + 1`;
  return {
    sql: `BEGIN NOT ATOMIC DECLARE i INT DEFAULT 0;
      WHILE i < ${count / 2} DO SET i = i + 1; ${order}; ${customer}; END WHILE; END`,
    rows: count,
    transactions: count,
  };
}

/**
 * The mix: an order with its items, addresses, stock and coupon (9 rows in one transaction), two
 * single updates of orders, and every tenth round a stock import of 100 rows in one statement.
 */
function mixLoop(rounds: number, worker: number): Loop {
  const first = 1_000_000 + worker * 1_000_000;
  const id = `${first} + i`;
  return {
    sql: `BEGIN NOT ATOMIC DECLARE i INT DEFAULT 0; WHILE i < ${rounds} DO SET i = i + 1;
      START TRANSACTION;
      INSERT INTO magento_db.sales_order (entity_id, state, status, store_id, customer_id, increment_id, grand_total,
        base_grand_total, subtotal, customer_email, order_currency_code, shipping_method, total_item_count)
        VALUES (${id}, 'new', 'pending', 1, i, CONCAT('${worker}-', i), 42.5, 42.5, 40, 'a@example.com', 'EUR', 'flatrate', 3);
      INSERT INTO magento_db.sales_order_item (item_id, order_id, store_id, product_id, product_type, sku, name, qty_ordered, price,
        row_total) SELECT (${id}) * 3 + seq, ${id}, 1, seq, 'simple', CONCAT('SKU-', seq), 'Joust Duffle Bag', 1, 34, 34 FROM seq_0_to_2;
      INSERT INTO magento_db.sales_order_address (entity_id, parent_id, address_type, firstname, lastname, street, city, country_id,
        telephone) VALUES ((${id}) * 2, ${id}, 'billing', 'Veronica', 'Costello', '6146 Honey Bluff', 'Calder', 'US', '555'),
        ((${id}) * 2 + 1, ${id}, 'shipping', 'Veronica', 'Costello', '6146 Honey Bluff', 'Calder', 'US', '555');
      UPDATE magento_db.cataloginventory_stock_item SET qty = qty - 1 WHERE product_id IN (i MOD 1000 + 1 + ${worker * 1000},
        (i + 1) MOD 1000 + 1 + ${worker * 1000}) AND stock_id = 1;
      UPDATE magento_db.salesrule_coupon SET times_used = times_used + 1 WHERE coupon_id = i MOD 25 + 1 + ${worker * 25};
      COMMIT;
      UPDATE magento_db.sales_order SET state = 'processing', status = 'processing', total_paid = 42.5 WHERE entity_id = ${id};
      UPDATE magento_db.sales_order SET state = 'complete', status = 'complete' WHERE entity_id = ${id};
      IF i MOD 10 = 0 THEN
        UPDATE magento_db.cataloginventory_stock_item SET qty = qty + i WHERE product_id BETWEEN (i MOD 900) + 1 + ${worker * 1000}
          AND (i MOD 900) + 100 + ${worker * 1000};
      END IF;
      END WHILE; END`,
    rows: rounds * 11 + Math.floor(rounds / 10) * 100,
    transactions: rounds * 3 + Math.floor(rounds / 10),
  };
}

async function writeLoops(server: MariadbServer, loops: readonly Loop[]): Promise<Backlog> {
  await server.query("FLUSH BINARY LOGS");
  const before = await binlogPosition(server);
  const started = performance.now();
  await Promise.all(
    loops.map(async (loop) => {
      const connection = await server.connection({ database: "magento_db" });
      await connection.query("SET SESSION sql_mode = ''");
      await connection.query(loop.sql);
      await connection.end();
    }),
  );
  const logs = await server.query("SHOW BINARY LOGS");
  const bytes = logs
    .filter((row) => String(row["Log_name"]) >= before.file)
    .reduce((sum, row) => sum + Number(row["File_size"]), -before.position);
  return {
    from: `${before.file}:${before.position}`,
    rows: loops.reduce((sum, loop) => sum + loop.rows, 0),
    transactions: loops.reduce((sum, loop) => sum + loop.transactions, 0),
    binlogBytes: bytes,
    seconds: (performance.now() - started) / 1000,
  };
}

/** `count` single-row update transactions, half on sales_order, half on customer_entity. */
export function writeSingleUpdates(server: MariadbServer, count: number): Promise<Backlog> {
  return writeLoops(server, [updateLoop(count / 2, 0), updateLoop(count / 2, 1)]);
}

/** About `rows` row events of the mix, of which under half are single-row transactions. */
export function writeMix(server: MariadbServer, rows: number): Promise<Backlog> {
  const rounds = Math.round(rows / 2 / 21 / 10) * 10;
  return writeLoops(server, [mixLoop(rounds, 0), mixLoop(rounds, 1)]);
}
