import assert from "node:assert/strict";
import { test } from "node:test";
import { type Picture, View } from "./view.ts";

const picture: Picture = {
  phase: "outage",
  cluster: "CUT OFF",
  orders: 1234,
  customers: 300,
  others: 400,
  captured: 20_000,
  accepted: 12_000,
  waiting: 8000,
  spoolBytes: 7_500_000,
  lagSeconds: 12,
};

test("draws no line that the terminal would break, and erases as many as it drew", () => {
  let written = "";
  const view = new View({ isTTY: true, columns: 40, write: (text) => (written += text) });
  view.show(picture);
  const lines = written.split("\n").slice(0, -1);
  assert.ok(lines.every((line) => line.length < 40));
  written = "";
  view.say("over");
  assert.ok(written.startsWith(`\u001b[${lines.length}A\u001b[0J`));
});

test("a growing spool fills its bar, and does not stand at its end all the time", () => {
  let written = "";
  const view = new View({ isTTY: true, columns: 120, write: (text) => (written += text) });
  const filled: number[] = [];
  for (const waiting of [0, 250, 600, 900]) {
    written = "";
    view.show({ ...picture, waiting });
    filled.push(written.split("#").length - 1);
  }
  assert.deepEqual(filled, [0, 15, 18, 27]);
});
