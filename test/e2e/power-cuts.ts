/** The whole agent on a volume that loses its power again and again, under random writes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PowerCutVolume } from "../faults/power-cut.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { startLoad } from "./load.ts";
import { Stack } from "./stack.ts";

/** The longest life between two cuts: from "not yet started" to "streaming and publishing". */
const lifeMaxMs = 1_300;

/**
 * Cuts the power so many times at random moments; then everything must have arrived, no event twice
 * under different ids and no id for two events. Every start after a cut must succeed by itself.
 */
export async function survivesPowerCuts(cuts: number): Promise<void> {
  const random = new Random(runSeed());
  const volume = await PowerCutVolume.mount({ fsyncMs: 4 });
  const ending = new AbortController();
  let stack: Stack | null = null;
  try {
    stack = await Stack.start({ stateDir: join(volume.path, "state"), form: "bundle" });
    await stack.agent.start();
    await stack.untilReading();
    const load = startLoad(stack, random.fork(1), ending.signal);
    const told = { names: 0, namesLost: 0, files: 0, filesChanged: 0 };
    for (let round = 0; round < cuts; round += 1) {
      await sleep(random.int(50, lifeMaxMs));
      const { agent } = stack;
      assert.ok(agent.running(), `round ${round}: the agent ended by itself:\n${agent.log().slice(-3000)}`);
      const loss = await volume.cut(random.int(0, 2 ** 31), () => agent.kill());
      told.names += loss.namesWaiting;
      told.namesLost += loss.namesLost;
      told.files += loss.filesWaiting;
      told.filesChanged += loss.filesChanged;
      agent.launch();
    }
    await stack.untilReading();
    ending.abort();
    console.log(JSON.stringify(await load));
    await stack.drain();
    const proof = await stack.prove(random);
    console.log(
      `${cuts} cuts: ${told.namesLost} of ${told.names} unsynced names lost, ${told.filesChanged} of ` +
        `${told.files} unsynced files changed; ${proof.events} deliveries of ${proof.distinct} events`,
    );
    assert.ok(told.namesLost > 0 && told.filesChanged > 0, "the cuts took nothing away");
    assert.ok(proof.distinct > 1000, "the load was too small to prove anything");
  } finally {
    ending.abort();
    await stack?.stop();
    await volume.remove();
  }
}
