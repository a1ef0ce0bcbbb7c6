/** A forwarder before a stand-in of Dapr, for one test. */
import type { TestContext } from "node:test";
import { type DaprStandIn, startDaprStandIn } from "../servers/dapr-stand-in.ts";
import { type Rig, type RigOptions, startRig } from "./fakes.ts";

export interface Bench {
  readonly standIn: DaprStandIn;
  readonly rig: Rig;
}

/** Both end with the test. */
export async function startBench(t: TestContext, rigOptions: Partial<RigOptions> = {}): Promise<Bench> {
  const standIn = await startDaprStandIn();
  const rig = startRig({ endpoint: standIn.endpoint, ...rigOptions });
  t.after(async () => {
    await rig.stop();
    await standIn.stop();
  });
  return { standIn, rig };
}
