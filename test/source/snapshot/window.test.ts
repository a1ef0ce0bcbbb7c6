import assert from "node:assert/strict";
import { test } from "node:test";
import type { Position, Row, RowChange, SnapshotJob, TransactionPart } from "../../../agent/change.ts";
import { packRows } from "../../../agent/packed-rows.ts";
import { rangeRule } from "../../../agent/source/snapshot/key-range.ts";
import { Window } from "../../../agent/source/snapshot/window.ts";
import { Random, runSeed } from "../../oracle/random.ts";
import { partOf } from "../../transform/parts.ts";

const followed = { table: "thing", columns: ["id", "value"], keyColumns: [0] };
const job: SnapshotJob = {
  generation: 1,
  table: "thing",
  reason: "verify",
  scope: { kind: "all" },
  purpose: "digests",
  topic: null,
  begun: null,
  after: null,
  rows: 0,
};
const base64 = (text: string): string[] => [Buffer.from(text).toString("base64")];

function openTable(keyColumn = "id", isIntegerKey = true) {
  const reading = {
    order: [{ name: keyColumn, literalOf: String }],
    packers: [],
    shape: "",
    definitions: "",
    isIntegerKey,
    select: () => "",
    selectSizes: () => null,
  };
  return { reading, parents: new Set<string>(), rowsEstimated: 0 };
}

const placeOf = (position: number): Position => ({ file: "b.000001", position });

/** A transaction of one change that happens to the rows, if it can. */
function transaction(random: Random, rows: Map<number, string>, position: number): TransactionPart {
  const [key, other] = [random.int(1, 30), random.int(1, 30)];
  const had = rows.get(key);
  const common = { table: 0, imageIndex: 0, ordinal: 0 };
  const changes: RowChange[] = [];
  if (had === undefined) {
    rows.set(key, `v${position}`);
    changes.push({ ...common, kind: "insert", row: [key, `v${position}`], old: null });
  } else if (random.chance(0.3)) {
    rows.delete(key);
    changes.push({ ...common, kind: "delete", row: [key, had], old: null });
  } else if (random.chance(0.4) && !rows.has(other)) {
    rows.delete(key);
    rows.set(other, had);
    changes.push({ ...common, kind: "update", row: [other, had], old: [key, had] });
  } else {
    rows.set(key, `v${position}`);
    changes.push({ ...common, kind: "update", row: [key, `v${position}`], old: [undefined, had] });
  }
  return partOf(changes, { end: placeOf(position) });
}

const sorted = (rows: ReadonlyMap<number, string>, from: number, to: number): Row[] =>
  [...rows].filter(([key]) => key > from && key <= to).toSorted(([one], [other]) => one - other);

test("a chunk of digests holds all rows of its range of keys as they are at its high mark, new ones too", () => {
  const random = new Random(runSeed());
  for (let round = 0; round < 500; round += 1) {
    const rows = new Map<number, string>();
    let position = 0;
    for (; position < 40; position += 1) transaction(random, rows, position);
    const window = new Window(0, followed);
    // The SELECT sees some of what the window remembers, and the stream goes on behind the high mark.
    const write = (count: number): void => {
      for (let done = 0; done < count; done += 1, position += 1)
        window.add([transaction(random, rows, position)]);
    };
    write(random.int(0, 4));
    const after = random.int(0, 15);
    const limit = random.int(1, 12);
    const selected = sorted(rows, after, 99).slice(0, limit);
    const isLast = selected.length < limit;
    const last = selected.at(-1) === undefined ? null : Number(selected.at(-1)?.[0]);
    write(random.int(0, 6));
    const high = placeOf(position - 1);
    const expected = new Map(rows);
    write(random.int(0, 4));
    const rule = rangeRule({ ...job, after: base64(String(after)) }, followed, openTable(), {
      after: last === null ? null : base64(String(last)),
      isLast,
    });
    assert.ok(rule !== null);
    assert.deepEqual(rule.range, { after: String(after), through: isLast ? null : String(last) });
    const got = window.broughtForward(packRows(2, selected), high, rule);
    assert.deepEqual([...got], sorted(expected, after, isLast ? 99 : Number(last)), `round ${round}`);
    const overtaken = window.overtaken(got, high);
    const newest = [...got].map(([key, value], index) => {
      const now = overtaken.get(index);
      return now === undefined ? [key, value] : now;
    });
    const expectedNow = [...got].map(([key]) =>
      rows.has(Number(key)) ? [key, rows.get(Number(key))] : null,
    );
    assert.deepEqual(newest, expectedNow, `round ${round}`);
    if (position - 1 === high.position) assert.equal(overtaken.size, 0);
  }
});

test("only whole ranges of a single integer key in the order of that key are such ranges", () => {
  const read = { after: base64("9"), isLast: false };
  const range = { kind: "range", from: "5", to: "20" } as const;
  assert.deepEqual(rangeRule({ ...job, scope: range }, followed, openTable(), read)?.range, {
    after: "4",
    through: "9",
  });
  assert.deepEqual(
    rangeRule({ ...job, scope: range, after: base64("9") }, followed, openTable(), {
      after: null,
      isLast: true,
    })?.range,
    { after: "9", through: "20" },
  );
  const none = [
    rangeRule({ ...job, purpose: "rows" }, followed, openTable(), read),
    rangeRule({ ...job, scope: { kind: "keys", keys: ["1"] } }, followed, openTable(), read),
    rangeRule(job, followed, openTable("other"), read),
    rangeRule(job, followed, openTable("id", false), read),
    rangeRule(job, followed, null, read),
  ];
  assert.deepEqual(none, [null, null, null, null, null]);
});
