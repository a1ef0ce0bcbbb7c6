/**
 * `npm run bench:quick`, `npm run bench`: the whole agent on this machine against real servers.
 *
 *     node bench/bench.ts quick|full [--json] [--gate] [--only capture,drain,memory,latency,hot,snapshot]
 *
 * Each figure is the median of its runs. A missed target is said in the table and in the last line;
 * with --gate it is also exit code 1.
 */
import { parseArgs } from "node:util";
import { makeMemoryCgroup } from "../test/e2e/memory.ts";
import { nobody, Stack } from "../test/e2e/stack.ts";
import { seedRows, seedShop, writeMix, writeSingleUpdates, type Backlog } from "./backlog.ts";
import { describeMachine } from "./machine.ts";
import { besideSnapshotRun, snapshotRun, type WriterRun, writerRun } from "./snapshot.ts";
import { atLeast, findingsTable, isMissed, median, under, type Finding } from "./report.ts";
import {
  backlogStartRun,
  bareClientRun,
  captureRun,
  drainRun,
  hotEntityRun,
  latencyRun,
  recordedBodies,
  restOfDrain,
} from "./whole-agent.ts";

interface Size {
  readonly runs: number;
  readonly captureRows: number;
  /** Pairs of a drain and the bare client: both vary much, so there are more of them. */
  readonly drainRuns: number;
  readonly drainRows: number;
  readonly backlogRows: number;
  readonly latencySamples: number;
  readonly hotEvents: number;
  readonly snapshotRows: number;
  /** Of a steady writer, without the snapshot and beside it. */
  readonly writes: number;
}

const sizes: Readonly<Record<string, Size>> = {
  quick: {
    runs: 3,
    captureRows: 100_000,
    drainRuns: 5,
    drainRows: 600_000,
    backlogRows: 1_000_000,
    latencySamples: 300,
    hotEvents: 2000,
    snapshotRows: 500_000,
    writes: 1000,
  },
  full: {
    runs: 5,
    captureRows: 400_000,
    drainRuns: 7,
    drainRows: 1_000_000,
    backlogRows: 1_000_000,
    latencySamples: 1000,
    hotEvents: 5000,
    snapshotRows: 500_000,
    writes: 1000,
  },
};

const say = (line: string): void => {
  process.stderr.write(`bench: ${line}\n`);
};

async function repeat<T>(runs: number, label: string, one: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let run = 1; run <= runs; run += 1) {
    const result = await one();
    say(`${label}, run ${run}: ${JSON.stringify(result)}`);
    results.push(result);
  }
  return results;
}

function finding(name: string, unit: string, runs: readonly number[], rest: Partial<Finding> = {}): Finding {
  return { name, unit, runs, target: null, note: "", ...rest };
}

async function withStack<T>(
  use: (stack: Stack) => Promise<T>,
  options: Parameters<typeof Stack.start>[0] = {},
): Promise<T> {
  const stack = await Stack.start({ form: "bundle", ...options });
  try {
    await seedShop(stack.database);
    return await use(stack);
  } finally {
    await stack.stop();
  }
}

function backlogNote(backlog: Backlog): string {
  const bytes = Math.round(backlog.binlogBytes / backlog.rows);
  return `${backlog.rows} rows in ${backlog.transactions} transactions, ${bytes} B of binlog a row`;
}

/** (a) Capture from a backlog to the synced spool. */
function benchCapture(size: Size): Promise<Finding[]> {
  return withStack(
    async (stack) => {
      const findings: Finding[] = [];
      const loads = [
        { name: "capture, single-row updates", write: writeSingleUpdates, target: 12_000 },
        { name: "capture, mix with multi-row inserts", write: writeMix, target: 25_000 },
      ];
      for (const load of loads) {
        const backlog = await load.write(stack.database, size.captureRows);
        const note = backlogNote(backlog);
        say(`${load.name}: ${note}`);
        const runs = await repeat(size.runs, load.name, () => captureRun(stack, backlog));
        const rates = runs.map((run) => run.rowsPerSecond);
        findings.push(finding(load.name, "rows/s", rates, { target: atLeast(load.target), note }));
        findings.push(
          finding(
            `${load.name}: processor`,
            "s/100,000 rows",
            runs.map((run) => run.cpuSeconds),
          ),
        );
        findings.push(
          finding(
            `${load.name}: anonymous`,
            "MiB",
            runs.map((run) => run.anonymousMib),
            { target: under(150) },
          ),
        );
      }
      return findings;
    },
    { brokerless: true },
  );
}

/** (b) Drain of a full spool beside a bare client, in turns. */
function benchDrain(size: Size): Promise<Finding[]> {
  return withStack(async (stack) => {
    const backlog = await writeMix(stack.database, size.drainRows);
    let bodies: Awaited<ReturnType<typeof recordedBodies>> | null = null;
    const pairs = await repeat(size.drainRuns, "drain", async () => {
      await captureRun(stack, backlog);
      const events = (await stack.agent.metric("edge_agent_spool_events")) ?? 0;
      const { perSecond: agent, anonymousMib } = await drainRun(stack);
      await stack.agent.stop();
      bodies ??= await recordedBodies(stack);
      const bare = await bareClientRun(stack, bodies, events);
      return { agent, bare, percent: (agent / bare) * 100, anonymousMib };
    });
    return [
      finding(
        "drain into daprd and Redis",
        "events/s",
        pairs.map((pair) => pair.agent),
      ),
      finding(
        "the same by a bare client",
        "events/s",
        pairs.map((pair) => pair.bare),
      ),
      finding(
        "drain against the bare client",
        "%",
        pairs.map((pair) => pair.percent),
        { target: atLeast(90) },
      ),
      finding(
        "drain: anonymous",
        "MiB",
        pairs.map((pair) => pair.anonymousMib),
        { target: under(150) },
      ),
    ];
  });
}

/** (c) Memory with a large backlog, and how soon the first event is out of a full spool. */
async function benchMemory(size: Size): Promise<Finding[]> {
  const cgroup = makeMemoryCgroup(256);
  try {
    return await withStack(
      async (stack) => {
        const backlog = await writeMix(stack.database, size.backlogRows);
        say(`memory: ${backlogNote(backlog)}`);
        const capture = await captureRun(stack, backlog);
        const starts = await repeat(size.runs, "start on the backlog", () => backlogStartRun(stack, 5000));
        const restMib = await restOfDrain(stack);
        const anonymous = [capture, ...starts].map(({ anonymousMib }) => anonymousMib);
        const note = `${cgroup.description}; ${cgroup.killed() ? "KILLED by the limit" : "never killed"}`;
        return [
          finding("memory, anonymous, largest", "MiB", [Math.max(...anonymous, restMib)], {
            target: under(150),
          }),
          // Page cache fills the group up to its limit; over it the kernel would have killed the agent.
          finding("memory, cgroup peak", "MiB", [cgroup.killed() ? 1e6 : cgroup.peakMib()], {
            target: under(256.5),
            note,
          }),
          finding(
            "first event out after the start",
            "s",
            starts.map((start) => start.firstOutSeconds),
            {
              target: under(1),
              note: `${backlog.rows} rows of backlog`,
            },
          ),
        ];
      },
      { cgroup },
    );
  } finally {
    cgroup.remove();
  }
}

/** (d) Idle commit-to-broker latency by the writer's clock. */
function benchLatency(size: Size): Promise<Finding[]> {
  return withStack(async (stack) => {
    await stack.agent.start();
    await stack.untilReading();
    const runs = await repeat(size.runs, "latency", () => latencyRun(stack, size.latencySamples));
    return [
      finding(
        "idle commit to broker, p50",
        "ms",
        runs.map((run) => run.p50),
        { target: under(20) },
      ),
      finding(
        "idle commit to broker, p99",
        "ms",
        runs.map((run) => run.p99),
        { target: under(60) },
      ),
    ];
  });
}

/** (e) One hot entity among many: its own figure, without a target. */
function benchHot(size: Size): Promise<Finding[]> {
  return withStack(async (stack) => {
    await stack.agent.start({ DAPR_HTTP_ENDPOINT: nobody });
    const runs = await repeat(size.runs, "hot entity", () => hotEntityRun(stack, size.hotEvents));
    return [
      finding(
        "one hot order",
        "events/s",
        runs.map((run) => run.hotPerSecond),
        { note: "one event at a time" },
      ),
      finding(
        "others beside it",
        "events/s",
        runs.map((run) => run.othersPerSecond),
      ),
    ];
  });
}

/** What the shop's own writes notice of the snapshot: printed side by side, without a target. */
function writerFindings(runs: readonly WriterRun[]): Finding[] {
  const of = (name: string, value: (run: WriterRun) => number): Finding =>
    finding(`writer's update, ${name}`, "ms", runs.map(value));
  return [
    of("without a snapshot, p50", ({ without }) => without.p50),
    of("beside a snapshot, p50", ({ beside }) => beside.p50),
    of("without a snapshot, p99", ({ without }) => without.p99),
    of("beside a snapshot, p99", ({ beside }) => beside.p99),
  ];
}

/** (f) Snapshot: rows of orders and customers into the synced spool, and live changes beside it. */
async function benchSnapshot(size: Size): Promise<Finding[]> {
  const cgroup = makeMemoryCgroup(256);
  const stack = await Stack.start({ form: "bundle", cgroup });
  try {
    await seedRows(stack.database, size.snapshotRows);
    const runs = await repeat(size.runs, "snapshot", () => snapshotRun(stack, size.snapshotRows));
    const writers = await repeat(size.runs, "writer", () => writerRun(stack, size.writes));
    const beside = await besideSnapshotRun(stack, size.latencySamples);
    say(`beside the snapshot: ${JSON.stringify(beside)}`);
    const note = `${size.snapshotRows} rows, half orders of some 150 columns, half customers`;
    const killed = cgroup.killed() ? "KILLED by the limit" : "never killed";
    return [
      finding(
        "snapshot",
        "rows/s",
        runs.map((run) => run.rowsPerSecond),
        { target: atLeast(37_000), note },
      ),
      finding(
        "snapshot: processor",
        "s/100,000 rows",
        runs.map((run) => run.cpuSeconds),
      ),
      finding(
        "snapshot: anonymous",
        "MiB",
        runs.map((run) => run.anonymousMib),
        { target: under(150), note: `${cgroup.description}; ${killed}` },
      ),
      ...writerFindings(writers),
      finding("live change beside a snapshot, p50", "ms", [beside.p50]),
      finding("live change beside a snapshot, p99", "ms", [beside.p99], { target: under(1000) }),
    ];
  } finally {
    await stack.stop();
    cgroup.remove();
  }
}

const benches = {
  capture: benchCapture,
  drain: benchDrain,
  memory: benchMemory,
  latency: benchLatency,
  hot: benchHot,
  snapshot: benchSnapshot,
} satisfies Record<string, (size: Size) => Promise<Finding[]>>;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { json: { type: "boolean" }, gate: { type: "boolean" }, only: { type: "string" } },
  });
  const size = sizes[positionals[0] ?? "quick"];
  const names = Object.keys(benches);
  const wanted = values.only?.split(",") ?? names;
  // A name that no bench has would measure nothing and so miss nothing.
  if (size === undefined || wanted.some((name) => !names.includes(name))) {
    process.stderr.write(`usage: bench.ts quick|full [--json] [--gate] [--only ${names.join(",")}]\n`);
    return 64;
  }
  const machine = describeMachine();
  const fsync = `fsync of 4 KiB p50 ${machine.fsyncMs.p50.toFixed(2)} ms, p99 ${machine.fsyncMs.p99.toFixed(2)} ms`;
  const where = `${machine.cores} x ${machine.cpu}, ${machine.memoryGib} GiB, Linux ${machine.kernel}, Node ${machine.node}`;
  say(`${where}; ${fsync}`);
  const findings: Finding[] = [];
  for (const [name, bench] of Object.entries(benches)) {
    if (wanted.includes(name)) findings.push(...(await bench(size)));
  }
  const missed = findings.filter(isMissed);
  if (values.json === true) {
    const results = findings.map((one) => ({ ...one, median: median(one.runs), missed: isMissed(one) }));
    console.log(JSON.stringify({ machine, findings: results }, null, 2));
  } else {
    console.log(`${where}\n${fsync}\n\n${findingsTable(findings)}\n`);
    console.log(
      missed.length === 0 ? "every target is met" : `MISSED: ${missed.map((one) => one.name).join("; ")}`,
    );
  }
  return values.gate === true && missed.length > 0 ? 1 : 0;
}

process.exitCode = await main();
