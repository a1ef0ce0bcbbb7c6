/** Measurements of the snapshot: rows a second into the spool, and what live changes wait beside it. */
import { setTimeout as sleep } from "node:timers/promises";
import { MemorySampler } from "../test/e2e/memory.ts";
import { nobody, type Stack } from "../test/e2e/stack.ts";
import { type Percentiles } from "./machine.ts";
import { followUp, latencyRun, minutes, ratePerSecond } from "./whole-agent.ts";

export interface SnapshotRun {
  readonly rowsPerSecond: number;
  readonly anonymousMib: number;
  /** Processor seconds of the agent per 100,000 rows. */
  readonly cpuSeconds: number;
}

/** From an empty state until all rows are in the synced spool; nobody takes events. */
export async function snapshotRun(stack: Stack, rows: number): Promise<SnapshotRun> {
  await stack.agent.forget();
  stack.agent.launch({ DAPR_HTTP_ENDPOINT: nobody, SNAPSHOT_MODE: "initial" });
  const sampler = new MemorySampler(stack.agent.pid);
  const read = async () => (await stack.agent.metric("edge_agent_rows_captured_total")) ?? 0;
  const course = await followUp(read, rows, 10 * minutes);
  const cpu = (await stack.agent.metric("process_cpu_seconds_total")) ?? Number.NaN;
  return {
    rowsPerSecond: ratePerSecond(course),
    anonymousMib: sampler.stop(),
    cpuSeconds: (cpu / rows) * 100_000,
  };
}

/** Commit to broker of customers, while orders are read and forwarded beside it. */
export async function besideSnapshotRun(stack: Stack, samples: number): Promise<Percentiles> {
  await stack.agent.forget();
  stack.agent.launch({ SNAPSHOT_MODE: "initial" });
  const waiting = async () =>
    (await stack.agent.metric("edge_agent_snapshot_rows", 'table="sales_order"')) ?? 0;
  for (let looks = 0; (await waiting()) === 0; looks += 1) {
    if (looks > 6000) throw new Error("the orders are not read");
    await sleep(10);
  }
  const measured = await latencyRun(stack, samples);
  const left = (await stack.agent.metric("edge_agent_spool_events")) ?? 0;
  if (left === 0) throw new Error("the snapshot was over before the latency was measured");
  await stack.agent.stop();
  await stack.broker.redis.command("FLUSHALL");
  return measured;
}
