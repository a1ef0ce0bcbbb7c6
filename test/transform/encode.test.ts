import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";
import type { Value } from "../../agent/change.ts";
import { parseMapping } from "../../agent/transform/mapping-file.ts";
import type { Transform, TransformOptions } from "../../agent/transform/transform.ts";
import { Changes, context, makeTransform, partOf, readEvent, textOf } from "./parts.ts";
import { sampleOf } from "./rows.ts";

const key = "field hash key";
const anyTable = "any_table";

/** A transform of one table with one column under test. */
function transformOf(
  field: object | string = "value",
  overrides: Partial<TransformOptions> = {},
  entity: object = {},
): Transform {
  const file = { entities: { [anyTable]: { keys: ["id"], fields: { value: field }, ...entity } } };
  const mapping = parseMapping(JSON.stringify(file), { hasFieldHashKey: true });
  return makeTransform({ mapping, fieldHashKey: key, ...overrides });
}

function inserted(
  transform: Transform,
  value: Value,
): { text: string; data: Readonly<Record<string, unknown>> } {
  const [event] = transform.encode(
    partOf(new Changes(transform).insert(anyTable, { id: 1, value }).list),
    context,
  );
  assert.ok(event !== undefined);
  return { text: textOf(event), data: readEvent(event).data };
}

test("any text arrives as it is, whatever has to be escaped", () => {
  const transform = transformOf();
  const texts = [
    "",
    '"',
    "\\",
    '\\"',
    "\\u0041",
    "\n\r\t\b\f\u0000\u001f\u007f",
    "Zoë",
    "日本語",
    "🛒",
    "\u2028\u2029",
    "</script>",
    "a".repeat(100_000),
  ];
  for (const text of [...texts, texts.join("|")]) assert.equal(inserted(transform, text).data["value"], text);
  const { data } = inserted(transform, "half \ud83d pair");
  assert.equal(data["value"], "half \ud83d pair", "a lone surrogate is escaped, not replaced");
});

test("numbers read back exactly, decimals and big integers stay text, JSON stays JSON", () => {
  const transform = transformOf();
  for (const value of [0, -0, 1, -1, 4_294_967_295, 0.1, 1e21, 1e-7, 1.7976931348623157e308, 5e-324]) {
    assert.ok(Object.is(inserted(transform, value).data["value"], value), String(value));
  }
  for (const value of ["12.3000", "18446744073709551615"])
    assert.equal(inserted(transform, value).data["value"], value);
  const json = '{"a": [1.10, 9007199254740993, "x\\"\\n"]}';
  assert.ok(inserted(transform, { json }).text.includes(`"value":${json},`));
});

test("text with invalid bytes arrives as its reading, with its bytes beside it", () => {
  const value = { text: "caf\ufffd", base64: "Y2Fm6Q==" };
  const { data } = inserted(transformOf(), value);
  assert.equal(data["value"], value.text);
  assert.deepEqual(data["invalid_text"], { value: value.base64 });
  for (const treatment of [{ mask: true }, { hash: true }, { truncate: 2 }]) {
    const treated = inserted(transformOf({ field: "value", ...treatment }), value);
    assert.equal(treated.text.includes(value.base64), false, "the bytes would undo the treatment");
  }
});

test("an update from one invalid text to another that reads the same is told, with both", () => {
  const transform = transformOf();
  const before = { id: 1, value: { text: "\ufffd", base64: "6Q==" } };
  const after = { id: 1, value: { text: "\ufffd", base64: "6A==" } };
  const [event] = transform.encode(
    partOf(new Changes(transform).update(anyTable, before, after).list),
    context,
  );
  assert.ok(event !== undefined);
  assert.deepEqual(readEvent(event).data["invalid_text"], { value: "6A==", "before.value": "6Q==" });
});

test("mask, hash and truncate run on the new and the old value, and null stays null", () => {
  const hashOf = (text: string): string => createHmac("sha256", key).update(text).digest("hex");
  const cases: [object, Value, Value][] = [
    [{ mask: true }, "secret", "***"],
    [{ mask: true }, 7, "***"],
    [{ hash: true }, "zoe@example.com", hashOf("zoe@example.com")],
    [{ hash: true }, 7, hashOf("7")],
    [{ truncate: 2 }, "🛒🛒🛒", "🛒🛒"],
    [{ truncate: 2 }, "a", "a"],
    [{ truncate: 2 }, 12_345, 12_345],
    [{ mask: true }, null, null],
    [{ hash: true }, null, null],
    [{ truncate: 1 }, null, null],
  ];
  for (const [treatment, value, expected] of cases) {
    const transform = transformOf({ field: "value", ...treatment });
    assert.equal(inserted(transform, value).data["value"], expected);
    const other = value === null ? "other" : null;
    const { list } = new Changes(transform).update(anyTable, { id: 1, value }, { id: 1, value: other });
    const [event] = transform.encode(partOf(list), context);
    assert.ok(event !== undefined);
    assert.deepEqual(readEvent(event).data["before"], { value: expected });
  }
});

test("an update that only a masked field would show gives no event", () => {
  const transform = transformOf({ field: "value", mask: true });
  const { list } = new Changes(transform).update(anyTable, { id: 1, value: "a" }, { id: 1, value: "b" });
  assert.deepEqual(transform.encode(partOf(list), context), []);
  assert.equal(transform.takeSuppressed(), 1);
});

test("a reference carries the UUID that the entity itself has; null and 0 refer to nothing", () => {
  const transform = makeTransform();
  const { row } = sampleOf("order");
  const customer = transform.encode(
    partOf(new Changes(transform).insert("customer_entity", sampleOf("customer").row).list),
    context,
  );
  for (const [id, uuid] of [
    [7, customer[0] === undefined ? "" : readEvent(customer[0]).subject],
    [null, null],
    [0, null],
  ] as const) {
    const [event] = transform.encode(
      partOf(new Changes(transform).insert("sales_order", { ...row, customer_id: id }).list),
      context,
    );
    assert.ok(event !== undefined);
    const { data } = readEvent(event);
    assert.deepEqual([data["customer_id"], data["magento_customer_id"]], [uuid, id]);
  }
});

test("a column that the shop's table lacks is left out", () => {
  assert.equal("value" in inserted(transformOf(), null).data, true);
  const transform = transformOf();
  const [event] = transform.encode(partOf(new Changes(transform).insert(anyTable, { id: 1 }).list), context);
  assert.ok(event !== undefined);
  assert.equal("value" in readEvent(event).data, false);
});

test("a delete with keys carries only ids", () => {
  const transform = transformOf("value", {}, { deletes: "keys" });
  const [event] = transform.encode(
    partOf(new Changes(transform).delete(anyTable, { id: 1, value: "x" }).list),
    context,
  );
  assert.ok(event !== undefined);
  const { data } = readEvent(event);
  assert.deepEqual(["value" in data, data["magento_id"], data["op"]], [false, 1, "d"]);
});

test("only the last part of a transaction tells how many events the whole has", () => {
  const transform = transformOf();
  const { list } = new Changes(transform)
    .insert(anyTable, { id: 1, value: "a" })
    .insert(anyTable, { id: 2, value: "b" });
  const count = (isLast: boolean): unknown[] =>
    transform.encode(partOf(list, { isLast }), { ...context, eventsBefore: 40 }).map((event) => {
      const { origin } = readEvent(event).data;
      return typeof origin === "object" && origin !== null && "transaction_events" in origin
        ? origin.transaction_events
        : "";
    });
  assert.deepEqual(
    [count(false), count(true)],
    [
      [null, null],
      [42, 42],
    ],
  );
});

test("the id depends neither on the epoch nor on the time of capture, and on the commit time (invariant 6)", () => {
  const transform = transformOf();
  const { list } = new Changes(transform).insert(anyTable, { id: 1, value: "a" });
  const idOf = (epoch: number, commitTimeMs: number): string | undefined =>
    transform.encode(partOf(list, { commitTimeMs }), { epoch, capturedAtMs: epoch, eventsBefore: 0 })[0]?.id;
  assert.equal(idOf(1, 1000), idOf(2, 1000));
  assert.notEqual(idOf(1, 1000), idOf(1, 2000));
});

test("an event over the limit goes to the dead letters with ids, origin and size only", () => {
  const transform = transformOf("value", { maxEventBytes: 4000 });
  for (const value of ["x".repeat(100_000), "\u0001".repeat(1000)]) {
    const { list } = new Changes(transform).insert(anyTable, { id: 1, value });
    const [event] = transform.encode(partOf(list), context);
    assert.ok(event?.oversize === true && event.payload.length <= 4000);
    const { data } = readEvent(event);
    assert.deepEqual(["value" in data, data["magento_id"], "origin" in data], [false, 1, true]);
    assert.ok(Number(data["bytes"]) > 4000);
  }
});

test("with omit the largest fields go first, are named, and the event is sent", () => {
  const entity = { oversize: "omit", fields: { value: "value", more: "more", small: "small" } };
  const transform = transformOf("value", { maxEventBytes: 6000 }, entity);
  const values = { id: 1, value: "x".repeat(100_000), more: "y".repeat(2000), small: "z" };
  const [event] = transform.encode(partOf(new Changes(transform).insert(anyTable, values).list), context);
  assert.ok(event?.oversize === false && event.payload.length <= 6000);
  const { data } = readEvent(event);
  assert.deepEqual(
    [data["omitted"], "value" in data, data["more"], data["small"]],
    [["value"], false, values.more, "z"],
  );
});

test("old values go before the state does, and a delete keeps its ids whatever its size", () => {
  const transform = transformOf("value", { maxEventBytes: 6000 });
  const large = { id: 1, value: "x".repeat(3000) };
  const { list } = new Changes(transform).update(anyTable, large, { id: 1, value: "y".repeat(3000) });
  const [update] = transform.encode(partOf(list), context);
  assert.ok(update?.oversize === false);
  const { data } = readEvent(update);
  assert.deepEqual([data["omitted"], data["before"], data["value"]], [["before"], {}, "y".repeat(3000)]);
  const [gone] = transform.encode(
    partOf(new Changes(transform).delete(anyTable, { id: 1, value: "x".repeat(50_000) }).list),
    context,
  );
  assert.ok(gone?.oversize === false);
  assert.deepEqual(readEvent(gone).data["omitted"], ["value"]);
});

test("a truncated text is no reason to leave anything out, however large it was", () => {
  const transform = transformOf({ field: "value", truncate: 5 }, { maxEventBytes: 4000 });
  const { data } = inserted(transform, "x".repeat(1_000_000));
  assert.deepEqual([data["value"], "omitted" in data], ["xxxxx", false]);
});
