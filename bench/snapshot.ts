/** Measurements of the snapshot: rows a second into the spool, and what live changes wait beside it. */
import { setTimeout as sleep } from "node:timers/promises";
import { MemorySampler } from "../test/e2e/memory.ts";
import { nobody, type Stack } from "../test/e2e/stack.ts";
import { percentiles, type Percentiles } from "./machine.ts";
import { followCaptured, latencyRun, minutes, ratePerSecond } from "./whole-agent.ts";

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
  const course = await followCaptured(stack, rows);
  const cpu = (await stack.agent.metric("process_cpu_seconds_total")) ?? Number.NaN;
  return {
    rowsPerSecond: ratePerSecond(course),
    anonymousMib: sampler.stop(),
    cpuSeconds: (cpu / rows) * 100_000,
  };
}

export interface WriterRun {
  readonly without: Percentiles;
  readonly beside: Percentiles;
}

/** A steady writer's times beside the agent that only follows the binlog, and beside its snapshot. */
export async function writerRun(stack: Stack, writes: number): Promise<WriterRun> {
  await stack.agent.forget();
  stack.agent.launch({ DAPR_HTTP_ENDPOINT: nobody, SNAPSHOT_MODE: "never" });
  await stack.untilReading();
  const without = await writeSteadily(stack, writes);
  await stack.agent.forget();
  stack.agent.launch({ DAPR_HTTP_ENDPOINT: nobody, SNAPSHOT_MODE: "initial" });
  await stack.agent.until(
    "rows are read",
    async () => ((await stack.agent.metric("edge_agent_rows_captured_total")) ?? 0) > 0,
    minutes,
    10,
  );
  const beside = await writeSteadily(stack, writes);
  if ((await stack.agent.metric("edge_agent_snapshot_jobs")) === 0) {
    throw new Error("the snapshot was over before the writer was");
  }
  await stack.agent.stop();
  return { without, beside };
}

const WRITE_EVERY_MS = 5;

/** Single-row updates of their own transactions, one every few milliseconds: what each of them took. */
async function writeSteadily(stack: Stack, writes: number): Promise<Percentiles> {
  const writer = await stack.database.connection({ database: stack.identity.database });
  const measured: number[] = [];
  try {
    for (let dueMs = performance.now(); measured.length < writes; dueMs += WRITE_EVERY_MS) {
      await sleep(Math.max(0, dueMs - performance.now()));
      const startedMs = performance.now();
      await writer.query("UPDATE customer_entity SET firstname = ? WHERE entity_id = ?", [
        `w${Math.random()}`,
        (measured.length % 5000) + 1,
      ]);
      measured.push(performance.now() - startedMs);
    }
  } finally {
    await writer.end();
  }
  return percentiles(measured);
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
  const unread = (await stack.agent.metric("edge_agent_snapshot_jobs")) ?? 0;
  if (left + unread === 0) throw new Error("the snapshot was over before the latency was measured");
  await stack.agent.stop();
  await stack.broker.redis.command("FLUSHALL");
  return measured;
}
