import assert from "node:assert/strict";
import { test } from "node:test";
import { isComparable, isReshaping } from "../../../agent/source/snapshot/shape.ts";

test("a table is reshaped by other types or definitions, not by other columns of the mapping or an older build", () => {
  const cases = [
    [undefined, false],
    ["a b c", false],
    ["a x c", true],
    ["a b x", true],
    ["x x x", false],
    ["a b", false],
    ["a x", true],
  ] as const;
  for (const [before, expected] of cases) assert.equal(isReshaping(before, "a b c"), expected, before);
});

test("what is not known of the same columns, or by an older build, is not compared", () => {
  assert.deepEqual(
    ["", "a b", "x b c", "a x c"].map((before) => isComparable(before, "a b c")),
    [false, false, false, true],
  );
});
