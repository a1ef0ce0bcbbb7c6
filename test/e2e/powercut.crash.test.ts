import { test } from "node:test";
import { survivesPowerCuts } from "./power-cuts.ts";

const cuts = Number(process.env["EDGE_TEST_CUTS"] ?? 200);

test(`after ${cuts} power cuts at random moments nothing is lost and no two changes share an id`, () =>
  survivesPowerCuts(cuts));
