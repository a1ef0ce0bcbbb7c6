import { test } from "node:test";
import { serverKinds, usualKind } from "../servers/matrix.ts";
import { survivesKillsWhileReading, survivesRestartsWhileReading } from "./snapshot-kills.ts";

for (const kind of serverKinds) {
  // As many on each kind are for the long run.
  const kills = kind === usualKind ? 50 : 10;

  test(`replica and source are equal after ${kills} kills while rows are read, on ${kind.name}`, () =>
    survivesKillsWhileReading(kind, kills));

  test(`goes on where it was when the database restarts while rows are read, on ${kind.name}`, () =>
    survivesRestartsWhileReading(kind));
}
