/**
 * How many updates of sales_order the row decoder reads in a second, on one core, mapped columns
 * only; beside it the library's own decoder on the same bytes. Question: is decoding still a small
 * part of the time that one event may take? Not measured: the network, events' headers, encoding.
 *
 *     node bench/decode.ts [updates]
 */
import { cpus } from "node:os";

import type { FollowedTable } from "../agent/change.ts";
import { countRows, decodeRows } from "../agent/source/decode/rows.ts";
import { parseTableMap } from "../agent/source/decode/table-map.ts";
import { compileTablePlan } from "../agent/source/decode/table-plan.ts";
import { startMariadb } from "../test/servers/mariadb.ts";
import { type RawEvent, readBinlogs } from "../test/source/decode/binlog-file.ts";
import { libraryDecoder } from "../test/source/decode/library.mjs";

/** The columns that the default mapping takes from sales_order. */
const followed: FollowedTable = {
  table: "sales_order",
  keyColumns: [0],
  columns: (
    "entity_id increment_id state status grand_total subtotal subtotal_incl_tax tax_amount discount_amount " +
    "shipping_amount shipping_incl_tax total_paid total_refunded total_due total_canceled total_qty_ordered " +
    "total_item_count weight order_currency_code base_currency_code base_grand_total store_id store_name " +
    "customer_id customer_is_guest customer_group_id customer_email customer_firstname customer_lastname " +
    "shipping_method shipping_description coupon_code is_virtual billing_address_id shipping_address_id " +
    "created_at updated_at"
  ).split(" "),
};

const updates = Number(process.argv[2] ?? 4000);
const events = await record();
const maps = events.filter(({ type }) => type === 19);
const rows = events.filter(({ type }) => type !== 19);
const bytes = rows.reduce((sum, { body }) => sum + body.length, 0);
console.log(
  `${cpus()[0]?.model ?? "?"}, Node ${process.version}, ${rows.length} updates, ${Math.round(bytes / rows.length)} bytes each`,
);

const map = maps[0];
if (map === undefined) throw new Error("no table map was recorded");
const plan = compileTablePlan(parseTableMap(map.body), followed, 0, null);
let seen = 0;
const sink = {
  row: (_kind: string, row: readonly unknown[]) => {
    seen += row.length;
  },
  oddity: () => undefined,
};

measure("decodeRows", () => {
  for (const { type, body } of rows) decodeRows(plan, type, body, sink);
});
measure("countRows", () => {
  for (const { type, body } of rows) countRows(plan, type, body);
});
const library = libraryDecoder();
measure("library, table map once", () => {
  library.tableMap(map.body);
  for (const { type, body } of rows) library.rows(type, body);
});
measure("library, as it streams (a table map for each event)", () => {
  for (const event of events) {
    if (event.type === 19) library.tableMap(event.body);
    else library.rows(event.type, event.body);
  }
});
if (seen === 0) throw new Error("nothing was decoded");

/** Five rounds after one to warm up; the best and the spread. */
function measure(name: string, round: () => void): void {
  round();
  const rates = Array.from({ length: 5 }, () => {
    const start = process.hrtime.bigint();
    round();
    return Math.round((rows.length * 1e9) / Number(process.hrtime.bigint() - start));
  }).sort((a, b) => a - b);
  console.log(`${name}: median ${rates[2]} updates/s (${rates[0]} to ${rates[4]})`);
}

async function record(): Promise<RawEvent[]> {
  const server = await startMariadb();
  try {
    await server.loadMagento({ database: "bench" });
    await server.query(
      "USE bench; SET sql_mode='', foreign_key_checks=0; SET GLOBAL innodb_flush_log_at_trx_commit=0",
    );
    const columns = await server.query(
      "SELECT COLUMN_NAME AS name, DATA_TYPE AS type FROM information_schema.COLUMNS WHERE TABLE_SCHEMA='bench' AND TABLE_NAME='sales_order' AND COLUMN_NAME<>'entity_id'",
    );
    // A placed order: most money columns are set, some texts are, about a third is NULL.
    const literal = (type: string, index: number): string => {
      if (index % 3 === 0 && type !== "timestamp") return "NULL";
      if (type === "decimal") return `${index * 13}.${index % 100}`;
      if (type.endsWith("int")) return String(index);
      if (type === "timestamp" || type === "datetime") return "'2026-11-23 20:33:06'";
      return `'text of col ${index}'`;
    };
    const names = columns.map(({ name }) => String(name));
    const values = columns.map(({ type }, index) => literal(String(type), index));
    await server.query(
      `INSERT IGNORE INTO sales_order (entity_id, ${names.join(", ")}) VALUES (1, ${values.join(", ")})`,
    );
    await server.query("FLUSH BINARY LOGS");
    for (let round = 0; round < updates; round += 500) {
      const statements = Array.from(
        { length: 500 },
        (_, index) =>
          `UPDATE sales_order SET status='s${index % 7}', total_paid=${round + index}.25, updated_at='2026-11-${10 + (index % 20)} 10:00:0${index % 10}' WHERE entity_id=1`,
      );
      await server.query(statements.join(";"));
    }
    // The server reuses its write buffers: the bytes are copied out before it goes.
    return readBinlogs(server.binlogDir)
      .filter(({ type, body }) => (type === 19 && body.includes("sales_order\0")) || type === 24)
      .map(({ type, body }) => ({ type, body: Buffer.from(body) }));
  } finally {
    await server.stop();
  }
}
