/** Table maps and rows events from hand-made bytes: MySQL's forms, and what is refused. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { AgentError } from "../../../agent/kernel/errors.ts";
import { countRows, decodeRows } from "../../../agent/source/decode/rows.ts";
import { parseTableMap } from "../../../agent/source/decode/table-map.ts";
import { compileTablePlan, needsSchema } from "../../../agent/source/decode/table-plan.ts";

const unreadable = (error: unknown): boolean =>
  error instanceof AgentError && error.code === "SOURCE_UNREADABLE";
const text = (value: string): number[] => [value.length, ...Buffer.from(value)];
const field = (type: number, ...bytes: number[]): number[] => [type, bytes.length, ...bytes];

/** Table id 7 and flags: table maps and rows events start alike. */
const head = [7, 0, 0, 0, 0, 0, 1, 0];

function tableMap(types: readonly number[], metadata: readonly number[], ...optional: number[][]): Buffer {
  return Buffer.from([
    ...head,
    ...text("shop"),
    0,
    ...text("t"),
    0,
    types.length,
    ...types,
    metadata.length,
    ...metadata,
    ...Array.from({ length: (types.length + 7) >> 3 }, () => 0xff),
    ...optional.flat(),
  ]);
}

const names = (...all: string[]): number[] => field(4, ...all.flatMap(text));
const followed = { table: "t", columns: ["id", "j"], keyColumns: [0] };
// INT and MySQL's JSON.
const map = parseTableMap(tableMap([3, 245], [4], field(1, 0), names("id", "j"), field(8, 0)));
const collect = () => {
  const rows: unknown[] = [];
  return { rows, sink: { row: (...row: unknown[]) => void rows.push(row), oddity: () => undefined } };
};

test("reads MySQL's rows events with extra data, and its JSON", () => {
  assert.deepEqual(map.primaryKey, [0]);
  assert.equal(needsSchema(map), false);
  const plan = compileTablePlan(map, followed, 3, null);
  const body = Buffer.from([
    ...head,
    5,
    0,
    1,
    2,
    3,
    2,
    0xff,
    0xfc,
    9,
    0,
    0,
    0,
    3,
    0,
    0,
    0,
    5,
    7,
    0,
    0xfe,
    10,
    0,
    0,
    0,
  ]);
  const { rows, sink } = collect();
  assert.equal(decodeRows(plan, 30, body, sink), 2);
  assert.deepEqual(rows, [
    ["insert", [9, { json: "7" }], null],
    ["insert", [10, null], null],
  ]);
  assert.equal(countRows(plan, 30, body), 2);
});

test("refuses events that it cannot read without loss", () => {
  const plan = compileTablePlan(map, followed, 0, null);
  const row = [2, 0xff, 0xfe, 10, 0, 0, 0];
  const { rows, sink } = collect();
  for (const type of [20, 22, 26, 33, 39, 40, 172]) {
    assert.throws(
      () => decodeRows(plan, type, Buffer.from([...head, ...row]), sink),
      unreadable,
      String(type),
    );
    assert.throws(() => countRows(plan, type, Buffer.from([...head, ...row])), unreadable, String(type));
  }
  const refused: Record<string, number[]> = {
    "another number of columns": [3, 0xff, 0xfe, 10, 0, 0, 0],
    "a column that is not present": [2, 0x01, 0xfe, 10, 0, 0, 0],
    "a byte left over": [...row, 0],
    "a byte too few": row.slice(0, -1),
    "no row at all": [2, 0xff],
    "a length beyond the end": [2, 0xff, 0xfc, 9, 0, 0, 0, 255, 255, 255, 255, 5],
  };
  for (const [what, bytes] of Object.entries(refused)) {
    assert.throws(() => decodeRows(plan, 23, Buffer.from([...head, ...bytes]), sink), unreadable, what);
    assert.throws(() => countRows(plan, 23, Buffer.from([...head, ...bytes])), unreadable, what);
  }
  // What came before the damage was given out, and nothing of the damage itself.
  assert.deepEqual(rows, [["insert", [10, null], null]]);
});

test("throws on every truncation of a table map but between two optional fields", () => {
  const whole = tableMap([3, 245, 15], [4, 30, 0], field(1, 0x80), field(2, 45), names("id", "j", "v"));
  const ends = new Set<number>();
  for (const optional of [[], [field(1, 0x80)], [field(1, 0x80), field(2, 45)]]) {
    ends.add(tableMap([3, 245, 15], [4, 30, 0], ...optional).length);
  }
  for (let length = 0; length < whole.length; length++) {
    if (ends.has(length)) continue;
    assert.throws(() => parseTableMap(whole.subarray(0, length)), unreadable, `cut to ${length}`);
  }
  assert.equal(parseTableMap(whole).columns[0]?.unsigned, true);
});

test("refuses unknown and ancient column types by name", () => {
  assert.throws(() => parseTableMap(tableMap([200], [])), unreadable);
  const ancient = parseTableMap(tableMap([0], [], names("d")));
  assert.throws(
    () => compileTablePlan(ancient, { table: "t", columns: ["d"], keyColumns: [] }, 0, null),
    (error: unknown) =>
      unreadable(error) && error instanceof AgentError && error.message.includes("shop.t, column d"),
  );
});

test("does not guess which text column a collation belongs to behind a GEOMETRY", () => {
  // VARCHAR, GEOMETRY, VARCHAR; default latin1, and "the second is binary".
  const types = [15, 255, 15];
  const metadata = [10, 0, 4, 10, 0];
  const doubtful = parseTableMap(tableMap(types, metadata, field(2, 8, 1, 63), names("a", "g", "b")));
  assert.deepEqual(
    doubtful.columns.map(({ collation }) => collation),
    [8, null, null],
  );
  assert.equal(needsSchema(doubtful), true);
  // A list says by its length who wrote it: two is MySQL, three is MariaDB.
  const mysql = parseTableMap(tableMap(types, metadata, field(3, 8, 45), names("a", "g", "b")));
  const mariadb = parseTableMap(tableMap(types, metadata, field(3, 8, 63, 45), names("a", "g", "b")));
  for (const { columns } of [mysql, mariadb]) {
    assert.deepEqual(
      columns.map(({ collation }) => collation),
      [8, null, 45],
    );
  }
  assert.throws(() => parseTableMap(tableMap(types, metadata, field(3, 8))), unreadable);
});
