/**
 * A live workload that looks like a shop: orders are placed and move on, customers register and edit
 * themselves, an import changes stock and products. Everything goes through ordinary transactions of
 * several connections, as PHP would do it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection, ResultSetHeader, RowDataPacket } from "mysql2/promise";
import type { Random } from "../oracle/random.ts";

export interface ShopCounts {
  orders: number;
  customers: number;
  edits: number;
  imports: number;
  deletions: number;
}

export interface ShopSettings {
  readonly connect: () => Promise<Connection>;
  readonly random: Random;
  /** Average pause of each kind of visitor between two actions. */
  readonly paceMs: number;
  readonly signal: AbortSignal;
}

const products = 120;
const sources = ["default", "berlin", "köln"];
const firstNames = ["Veronica", "Zoë", "José", "Nguyễn", "Søren", "Amélie", "陽菜", "Omar"];
const lastNames = ["Costello", "O'Brien", "Müller", "García", "Łukasiewicz", "Öztürk", "佐藤", "Smith"];
const streets = ["6146 Honey Bluff Parkway", "Hauptstraße 5", "Rue de l'Église 12", "Calle Mayor 1\nPiso 2"];

async function insert(
  connection: Connection,
  table: string,
  row: Readonly<Record<string, unknown>>,
): Promise<number> {
  const [result] = await connection.query<ResultSetHeader>(`INSERT INTO ${table} SET ?`, [row]);
  return result.insertId;
}

/** What stands in the shop before it opens: categories, products, stock, coupons, first customers. */
export async function furnishShop(connection: Connection, random: Random): Promise<void> {
  await connection.query(
    `INSERT INTO catalog_category_entity (entity_id, parent_id, path, position, level, children_count)
     SELECT seq, IF(seq = 1, 0, 1), IF(seq = 1, '1', CONCAT('1/', seq)), seq, IF(seq = 1, 0, 1), 0 FROM seq_1_to_12`,
  );
  await connection.query(
    `INSERT INTO catalog_product_entity (entity_id, attribute_set_id, sku)
     SELECT seq, 4, CONCAT('24-MB', LPAD(seq, 3, '0')) FROM seq_1_to_${products}`,
  );
  await connection.query(
    `INSERT INTO cataloginventory_stock_item (product_id, stock_id, qty, is_in_stock, manage_stock)
     SELECT seq, 1, 500, 1, 1 FROM seq_1_to_${products}`,
  );
  for (const source of sources) {
    await connection.query(
      `INSERT INTO inventory_source_item (source_code, sku, quantity, status)
       SELECT ?, CONCAT('24-MB', LPAD(seq, 3, '0')), 150, 1 FROM seq_1_to_${products}`,
      [source],
    );
  }
  await connection.query(
    "INSERT INTO salesrule_coupon (rule_id, code, usage_limit) SELECT seq, CONCAT('SAVE', seq), 1000 FROM seq_1_to_8",
  );
  for (let count = 0; count < 20; count += 1) await register(connection, random);
}

async function register(connection: Connection, random: Random): Promise<void> {
  const [firstname, lastname] = [random.pick(firstNames), random.pick(lastNames)];
  await connection.beginTransaction();
  const customer = await insert(connection, "customer_entity", {
    website_id: 1,
    store_id: 1,
    group_id: 1,
    email: `${random.int(1, 1e12).toString(36)}@example.com`,
    firstname,
    lastname,
    password_hash: "not a real hash",
  });
  const address = await insert(connection, "customer_address_entity", {
    parent_id: customer,
    firstname,
    lastname,
    street: random.pick(streets),
    city: "Köln",
    country_id: "DE",
    postcode: String(random.int(10_000, 99_999)),
    telephone: "+49 221 5550100",
  });
  await connection.query(
    "UPDATE customer_entity SET default_billing = ?, default_shipping = ? WHERE entity_id = ?",
    [address, address, customer],
  );
  await connection.commit();
}

async function someone(connection: Connection): Promise<number> {
  const [rows] = await connection.query<RowDataPacket[]>(
    "SELECT entity_id FROM customer_entity ORDER BY RAND() LIMIT 1",
  );
  return Number(rows[0]?.["entity_id"] ?? 0);
}

interface Basket {
  readonly order: number;
  readonly items: readonly number[];
}

async function addItems(connection: Connection, random: Random, order: number): Promise<Basket> {
  const items = Array.from({ length: random.int(1, 4) }, () => random.int(1, products)).sort((a, b) => a - b);
  for (const product of new Set(items)) {
    const price = random.int(5, 120);
    await insert(connection, "sales_order_item", {
      order_id: order,
      store_id: 1,
      product_id: product,
      product_type: "simple",
      sku: `24-MB${String(product).padStart(3, "0")}`,
      name: "Joust Duffle Bag",
      qty_ordered: 1,
      price,
      base_price: price,
      row_total: price,
      base_row_total: price,
    });
  }
  return { order, items: [...new Set(items)] };
}

/** One order in one transaction, then its payment and shipment in two more, as Magento does it. */
async function placeOrder(connection: Connection, random: Random): Promise<void> {
  const customer = await someone(connection);
  await connection.beginTransaction();
  const order = await insert(connection, "sales_order", {
    state: "new",
    status: "pending",
    store_id: 1,
    customer_id: customer,
    customer_email: "buyer@example.com",
    customer_firstname: random.pick(firstNames),
    customer_lastname: random.pick(lastNames),
    order_currency_code: "EUR",
    base_currency_code: "EUR",
    grand_total: random.int(1000, 90_000) / 100,
    shipping_method: "flatrate_flatrate",
    protect_code: "not for anyone",
    coupon_code: random.chance(0.3) ? "SAVE1" : null,
  });
  await connection.query(
    "UPDATE sales_order SET increment_id = LPAD(entity_id, 9, '0') WHERE entity_id = ?",
    [order],
  );
  const { items } = await addItems(connection, random, order);
  for (const kind of ["billing", "shipping"]) {
    const address = await insert(connection, "sales_order_address", {
      parent_id: order,
      address_type: kind,
      firstname: random.pick(firstNames),
      lastname: random.pick(lastNames),
      street: random.pick(streets),
      city: "Köln",
      country_id: "DE",
    });
    await connection.query(`UPDATE sales_order SET ${kind}_address_id = ? WHERE entity_id = ?`, [
      address,
      order,
    ]);
  }
  await connection.query(
    "UPDATE cataloginventory_stock_item SET qty = qty - 1 WHERE product_id IN (?) AND stock_id = 1 ORDER BY product_id",
    [items],
  );
  await connection.query("UPDATE salesrule_coupon SET times_used = times_used + 1 WHERE code = ?", [
    `SAVE${random.int(1, 8)}`,
  ]);
  await connection.commit();
  await connection.query(
    "UPDATE sales_order SET state = 'processing', status = 'processing', total_paid = grand_total WHERE entity_id = ?",
    [order],
  );
  if (random.chance(0.7)) {
    await connection.query("UPDATE sales_order_item SET qty_shipped = qty_ordered WHERE order_id = ?", [
      order,
    ]);
    await connection.query(
      "UPDATE sales_order SET state = 'complete', status = 'complete' WHERE entity_id = ?",
      [order],
    );
  }
}

async function editSomeone(connection: Connection, random: Random): Promise<void> {
  const customer = await someone(connection);
  if (random.chance(0.5)) {
    await connection.query("UPDATE customer_entity SET lastname = ?, taxvat = ? WHERE entity_id = ?", [
      random.pick(lastNames),
      `DE${random.int(100_000_000, 999_999_999)}`,
      customer,
    ]);
    return;
  }
  await connection.query("UPDATE customer_address_entity SET street = ?, city = ? WHERE parent_id = ?", [
    random.pick(streets),
    random.pick(["Berlin", "München", "Paris"]),
    customer,
  ]);
}

/** Prices and stock come in from the warehouse: multi-row upserts, and products touched. */
async function importStock(connection: Connection, random: Random): Promise<void> {
  const first = random.int(1, products - 40);
  const rows = Array.from({ length: 40 }, (_, at) => [first + at, 1, random.int(0, 900), 1]);
  await connection.query(
    `INSERT INTO cataloginventory_stock_item (product_id, stock_id, qty, is_in_stock) VALUES ?
     ON DUPLICATE KEY UPDATE qty = VALUES(qty), is_in_stock = VALUES(is_in_stock)`,
    [rows],
  );
  await connection.query(
    "UPDATE inventory_source_item SET quantity = quantity + 1 WHERE source_code = ? LIMIT 30",
    [random.pick(sources)],
  );
  await connection.query(
    "UPDATE catalog_product_entity SET has_options = 1 - has_options WHERE entity_id BETWEEN ? AND ?",
    [first, first + 10],
  );
  await connection.query("UPDATE catalog_category_entity SET position = position + 1 WHERE parent_id = 1");
}

/** A customer asks to be forgotten; an order of long ago is archived. */
async function forgetSomeone(connection: Connection): Promise<void> {
  const customer = await someone(connection);
  await connection.beginTransaction();
  await connection.query("DELETE FROM customer_address_entity WHERE parent_id = ?", [customer]);
  await connection.query("DELETE FROM customer_entity WHERE entity_id = ?", [customer]);
  await connection.commit();
}

/** Deadlocks and lock waits happen in shops; PHP tries again, and so does this. */
function isLockTrouble(thrown: unknown): boolean {
  return (
    typeof thrown === "object" &&
    thrown !== null &&
    "errno" in thrown &&
    [1205, 1213].includes(Number(thrown.errno))
  );
}

async function visitor(
  settings: ShopSettings,
  act: (connection: Connection) => Promise<void>,
): Promise<void> {
  const connection = await settings.connect();
  try {
    while (!settings.signal.aborted) {
      try {
        await act(connection);
      } catch (thrown) {
        if (!isLockTrouble(thrown)) throw thrown;
        await connection.rollback();
      }
      await sleep(settings.paceMs * (0.5 + settings.random.next()));
    }
  } finally {
    await connection.end();
  }
}

/** Runs until the signal aborts; resolves when the last transaction is committed. */
export async function openShop(settings: ShopSettings, counts: ShopCounts): Promise<void> {
  const { random } = settings;
  const buyers = [1, 2].map(() =>
    visitor(settings, async (connection) => {
      await placeOrder(connection, random);
      counts.orders += 1;
    }),
  );
  const others = visitor(settings, async (connection) => {
    const roll = random.next();
    if (roll < 0.4) {
      await register(connection, random);
      counts.customers += 1;
    } else if (roll < 0.85) {
      await editSomeone(connection, random);
      counts.edits += 1;
    } else if (roll < 0.93) {
      await importStock(connection, random);
      counts.imports += 1;
    } else {
      await forgetSomeone(connection);
      counts.deletions += 1;
    }
  });
  await Promise.all([...buyers, others]);
}
