import { test } from "node:test";
import { serverKinds } from "../servers/matrix.ts";
import { survivesKills } from "./kills.ts";

/** 1,000 together. */
const kills = 250;

for (const kind of serverKinds) {
  test(`killed with kill -9 ${kills} times at known moments it loses nothing, on ${kind.name}`, () =>
    survivesKills({ kind, kills, meetsEveryMoment: true }));
}
