/** Rows that were read, packed, become the same text as the same rows of the stream. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Row, Value } from "../../agent/change.ts";
import { packRows, RowPacker } from "../../agent/packed-rows.ts";
import { PayloadArena } from "../../agent/payload-arena.ts";
import { parseMapping } from "../../agent/transform/mapping-file.ts";
import { Random } from "../oracle/random.ts";
import { sampleChunk } from "./generated.ts";
import { context, makeTransform, partOf, textOf } from "./parts.ts";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);

const texts = [
  "",
  "plain",
  'a "quote"',
  "back\\slash",
  "line\nbreak\ttab",
  "\u0000\u0001\u001f\u007f",
  "Zoë",
  "日本語 🛒",
];
const odd: readonly Value[] = [
  "lone \ud800 half",
  "x".repeat(70_000),
  "ß".repeat(70_000),
  { json: '{"a":[1,"zwei\\n"]}' },
  { text: "bad \ufffd", base64: "YmFkIP8=" },
];
const numbers = [0, -0, 7, -1, 2 ** 53, 1.5, 1e21, 5e-324, -123.456];

function randomValue(random: Random): Value | undefined {
  switch (random.int(0, 8 - 1)) {
    case 0:
      return null;
    case 1:
      return undefined;
    case 2:
      return numbers[random.int(0, numbers.length - 1)];
    case 3:
      return random.int(0, 9 - 1) === 0 ? odd[random.int(0, odd.length - 1)] : "0";
    case 4:
      return `${random.int(0, 1e9 - 1)}.${random.int(0, 10_000 - 1)}`;
    case 5:
      return Array.from({ length: random.int(0, 40 - 1) }, () => texts[random.int(0, texts.length - 1)]).join(
        "",
      );
    default:
      return texts[random.int(0, texts.length - 1)];
  }
}

const mapping = parseMapping(
  JSON.stringify({
    entities: {
      any_table: {
        keys: ["id"],
        oversize: "omit",
        fields: {
          plain: "plain",
          other: "other",
          hashed: { hash: true },
          masked: { mask: true },
          cut: { truncate: 3 },
          customer_id: { ref: "customer" },
        },
      },
    },
  }),
  { hasFieldHashKey: true },
);

/** The entity's fields as they stand in the text, between what differs by the way they came. */
function bodyOf(text: string): string {
  return text.slice(text.indexOf('"synced_at"'), text.indexOf(',"origin"'));
}

for (const maxEventBytes of [4_000_000, 100_000])
  test(`a row that was read is written as the stream writes it, with a limit of ${maxEventBytes} bytes`, () => {
    const transform = makeTransform({ mapping, fieldHashKey: "key", maxEventBytes });
    const random = new Random(seed);
    const table = transform.tables.findIndex((one) => one.table === "any_table");
    const columns = transform.tables[table]?.columns ?? [];
    const rows = Array.from({ length: 400 }, (_, index): Row =>
      columns.map((column) => (column === "id" ? index + 1 : randomValue(random))),
    );
    const chunk = {
      ...sampleChunk(makeTransform()),
      isReshaped: false,
      table,
      isFirst: false,
      isLast: false,
      rows: packRows(columns.length, rows),
    };
    const read = transform.encode(chunk, { ...context, payloads: new PayloadArena() });
    assert.equal(read.length, rows.length);
    rows.forEach((row, index) => {
      const change = { table, kind: "insert", row, old: null, imageIndex: 0, ordinal: 0 } as const;
      const [streamed] = transform.encode(partOf([change]), context);
      const event = read[index];
      assert.ok(streamed !== undefined && event !== undefined);
      assert.equal(event.oversize, streamed.oversize);
      assert.equal(event.entityKey, streamed.entityKey);
      assert.equal(bodyOf(textOf(event)), bodyOf(textOf(streamed)), `row ${index + 1}`);
    });
  });

test("packed rows give back the values that were put in, also those of another packer", () => {
  const random = new Random(seed);
  const rows = Array.from({ length: 600 }, (): Row => Array.from({ length: 13 }, () => randomValue(random)));
  const packed = packRows(13, rows);
  const copied = new RowPacker(1);
  copied.add(["of another table"]);
  copied.reset(13);
  for (let row = 0; row < packed.length; row += 1) copied.copy(packed, row);
  assert.deepEqual([...packed], rows);
  assert.deepEqual([...copied], rows);
});
