/**
 * How many single-row updates of sales_order the transform room encodes a second, on one core, with
 * new orders, customers and addresses all the time (so few UUIDs come from the cache).
 *
 *     node bench/encode.ts [events]
 */
import { Changes, context, makeTransform, partOf, readEvent } from "../test/transform/parts.ts";
import { sampleOf } from "../test/transform/rows.ts";

const events = Number(process.argv[2] ?? 200_000);
const transform = makeTransform();
const { row, update } = sampleOf("order");
const [template] = new Changes(transform).update("sales_order", row, { ...row, ...update }).list;
if (template === undefined) throw new Error("no change was made");
const columns = transform.tables[template.table]?.columns ?? [];
const places = ["entity_id", "customer_id", "billing_address_id", "shipping_address_id"].map((name) =>
  columns.indexOf(name),
);

const parts = Array.from({ length: events }, (_, index) => {
  const values = [...template.row];
  for (const place of places) values[place] = 1_000_000 + index;
  const end = { file: "mariadb-bin.000042", position: 100_000 + index * 600 };
  return partOf([{ ...template, row: values }], { end, gtid: `0-1-${1000 + index}` });
});

for (let run = 1; run <= 4; run += 1) {
  let bytes = 0;
  let made = 0;
  const startMs = performance.now();
  for (const part of parts) {
    for (const event of transform.encode(part, context)) {
      bytes += event.payload.length;
      made += 1;
    }
  }
  const seconds = (performance.now() - startMs) / 1000;
  const rate = Math.round(made / seconds).toLocaleString("en");
  const each = ((seconds * 1e6) / made).toFixed(1);
  console.log(`run ${run}: ${rate} events/s, ${each} us and ${Math.round(bytes / made)} bytes each`);
}
const [last] = transform.encode(parts[0] ?? partOf([]), context);
if (last === undefined || readEvent(last).data["status"] !== "processing")
  throw new Error("the event is wrong");
