import { test } from "node:test";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { survivesKills } from "./kills.ts";

for (const kind of serverKinds) {
  // 300 together. Only where it is killed most often must every moment be met.
  const isChief = kind === usualKind;
  const kills = isChief ? 150 : 50;

  test(`killed with kill -9 ${kills} times under load it loses nothing, invents nothing and repeats under the same id, on ${kind.name}`, () =>
    survivesKills({ kind, kills, meetsEveryMoment: isChief }));
}
