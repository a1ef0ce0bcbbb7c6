import { test } from "node:test";
import { serverKinds } from "../servers/matrix.ts";
import { survivesKillsWhileReading } from "./snapshot-kills.ts";

for (const kind of serverKinds) {
  test(`replica and source are equal after 50 kills while rows are read, on ${kind.name}`, () =>
    survivesKillsWhileReading(kind, 50));
}
