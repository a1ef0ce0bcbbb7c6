/** The campaign of outages as tests: every kind once, then seeded pairs, then equality. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Random, runSeed } from "../oracle/random.ts";
import { firstAcceptanceMs, randomPair, suffer, tableOf, type OutageResult } from "./outage-campaign.ts";
import { outageKinds } from "./outage-kinds.ts";
import { OutageRoad } from "./outage-road.ts";

export interface CampaignSize {
  /** Events that pile up in each outage, small transactions not counted. */
  readonly events: number;
  readonly pairs: number;
}

/**
 * Declares the tests. OUTAGE_ONLY (a regular expression over the names) runs some kinds alone,
 * OUTAGE_EVENTS lets other numbers pile up, EDGE_TEST_SEED repeats a run.
 */
export function declareCampaign(size: CampaignSize): void {
  const events = Number(process.env["OUTAGE_EVENTS"] ?? size.events);
  const only = new RegExp(process.env["OUTAGE_ONLY"] ?? "");
  const random = new Random(runSeed());
  const results: OutageResult[] = [];
  let road: OutageRoad;

  before(async () => {
    road = await OutageRoad.start(events);
  });

  after(async () => {
    console.log(`outages with about ${events} events each, seed ${random.seed}\n${tableOf(results)}`);
    await road.stop();
  });

  const cases = outageKinds.map((kind) => [kind]);
  for (let pair = 0; pair < size.pairs; pair += 1)
    cases.push(randomPair(outageKinds, random.fork(1_000 + pair)));
  for (const [index, kinds] of cases.entries()) {
    const name = kinds.map((kind) => kind.name).join(", and at once: ");
    if (!only.test(name)) continue;
    test(`${name}: held and said, drained by itself, nothing dead-lettered`, async () => {
      const result = await suffer(road, kinds, random.fork(index));
      results.push(result);
      assert.ok(result.firstMs <= firstAcceptanceMs, `first acceptance after ${result.firstMs} ms`);
    });
  }

  test("after all of them replica and source are equal", async () => {
    await road.stack.drain();
    const proof = await road.stack.prove(random);
    console.log(`${proof.events} deliveries of ${proof.distinct} events`);
  });
}
