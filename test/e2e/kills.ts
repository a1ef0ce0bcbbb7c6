/** The whole agent killed by SIGKILL again and again under load, at known moments. */
import assert from "node:assert/strict";
import { KillScheduler } from "../faults/kill-scheduler.ts";
import { Random, runSeed } from "../oracle/random.ts";
import type { ServerKind } from "../servers/matrix.ts";
import { startLoad } from "./load.ts";
import { Stack } from "./stack.ts";

export interface KillCampaign {
  readonly kind: ServerKind;
  readonly kills: number;
  /** Fails when some moment was met by no kill: too much to ask of a short campaign. */
  readonly meetsEveryMoment: boolean;
}

/** The round to begin with: EDGE_TEST_ROUND where set, to take up a run of the same seed. */
function firstRound(): number {
  return Number(process.env["EDGE_TEST_ROUND"] ?? 0);
}

/** Starts the agent, and kills it when it reads the binlog: so many milliseconds after its start. */
async function timeToReading(stack: Stack): Promise<number> {
  const startedMs = performance.now();
  await stack.agent.start();
  await stack.untilReading();
  const tookMs = performance.now() - startedMs;
  await stack.agent.kill();
  return tookMs;
}

/**
 * Kills as often as asked. Then everything must have arrived: equality, each entity's events first
 * in their order, no id for two changes; and the kills must have met every moment.
 */
export async function survivesKills(campaign: KillCampaign): Promise<void> {
  const { kind, kills, meetsEveryMoment } = campaign;
  const random = new Random(runSeed());
  const scheduler = new KillScheduler(random.seed);
  const ending = new AbortController();
  let stack: Stack | null = null;
  try {
    stack = await Stack.start({ kind, ...scheduler.prepare() });
    const { agent } = stack;
    // The first start also makes the state.
    await timeToReading(stack);
    scheduler.measured(await timeToReading(stack));
    const load = startLoad(stack, random.fork(1), ending.signal);
    const first = firstRound();
    for (let round = first; round < first + kills; round += 1) {
      await scheduler.round(round, () => agent.launch());
    }
    ending.abort();
    console.log(JSON.stringify(await load));
    await agent.start();
    // A long campaign on a busy machine leaves hundreds of thousands of events.
    await stack.drain(600_000);
    const proof = await stack.prove(random);
    console.log(`${scheduler.table()}\n${proof.events} deliveries of ${proof.distinct} events`);
    assert.ok(proof.distinct > 1000, "the load was too small to prove anything");
    if (meetsEveryMoment) assert.deepEqual(scheduler.missed(), [], "moments that no kill met");
  } finally {
    ending.abort();
    await stack?.stop();
    scheduler.remove();
  }
}
