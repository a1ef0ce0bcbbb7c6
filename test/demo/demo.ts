/**
 * `npm run demo [-- --stand-in] [--brief]`: a shop at work, the agent beside its database, and a cluster that goes away for a
 * while. At the end the consumer's tables are compared with the shop's, field by field. Exit code 0
 * only when they are equal; everything that was started is stopped and removed, also on Ctrl-C.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Applier } from "../../cluster/consumer/applier.ts";
import { AgentProcess, sumOf } from "../e2e/agent-process.ts";
import { compareReplica, describeComparison } from "../oracle/compare.ts";
import { Random, runSeed } from "../oracle/random.ts";
import type { ShopIdentity } from "../oracle/source-rows.ts";
import { startMariadb, type MariadbServer } from "../servers/mariadb.ts";
import { startDemoCluster, type DemoCluster } from "./cluster.ts";
import { furnishShop, openShop, type ShopCounts } from "./shop.ts";
import { View, type Picture } from "./view.ts";

const root = join(import.meta.dirname, "..", "..");

/** How long each act is played. */
interface Acts {
  readonly beforeOutageMs: number;
  readonly outageMs: number;
  readonly afterOutageMs: number;
}

const wholeActs: Acts = { beforeOutageMs: 10_000, outageMs: 12_000, afterOutageMs: 8000 };
const briefActs: Acts = { beforeOutageMs: 2000, outageMs: 3000, afterOutageMs: 1000 };

const usage = `npm run demo [-- --stand-in] [--brief]

Starts a throw-away shop database with a live workload, Redis, daprd, the reference consumer and the
built agent; cuts the cluster off for some seconds while orders go on; then compares the consumer's
tables with the shop's, field by field. Exit code 0 only when they are equal. Ctrl-C cleans up.

  --stand-in  a stand-in for Dapr's API instead of Redis and daprd, as where daprd cannot be had
  --brief     shorter acts
`;

const identity: ShopIdentity = {
  shop: "demo",
  namespace: "aae506ba-4257-4462-a2ce-fbdc14d5ffb0",
  database: "magento_db",
  prefix: "",
};

class Interrupted extends Error {}

/** What to release, newest first, whatever happens. */
class Releases {
  readonly #stack: (() => Promise<unknown>)[] = [];

  add(release: () => Promise<unknown>): void {
    this.#stack.push(release);
  }

  async all(): Promise<void> {
    for (let release = this.#stack.pop(); release !== undefined; release = this.#stack.pop()) {
      await release().catch((thrown: unknown) => console.error("while cleaning up:", thrown));
    }
  }
}

interface Stage {
  readonly view: View;
  readonly agent: AgentProcess;
  readonly counts: ShopCounts;
  readonly signal: AbortSignal;
}

async function picture(stage: Stage, phase: string, cluster: Picture["cluster"]): Promise<number> {
  const { counts } = stage;
  const metrics = await stage.agent.metrics();
  if (metrics === null) return Number.NaN;
  const lags = [...metrics.matchAll(/^sync_lag_seconds\{.*\} (\S+)$/gm)].map((match) => Number(match[1]));
  const waiting = sumOf(metrics, "edge_agent_spool_events");
  stage.view.show({
    phase,
    cluster,
    orders: counts.orders,
    customers: counts.customers,
    others: counts.edits + counts.imports + counts.deletions,
    captured: sumOf(metrics, "edge_agent_events_captured_total"),
    accepted: sumOf(metrics, "sync_total", 'status="success"'),
    waiting,
    spoolBytes: sumOf(metrics, "edge_agent_spool_bytes"),
    lagSeconds: Math.max(0, ...lags),
  });
  return waiting;
}

/** Shows the picture until the time is over, or until the condition holds where one is given. */
async function watch(
  stage: Stage,
  scene: { readonly phase: string; readonly cluster: Picture["cluster"]; readonly forMs: number },
  until?: (waiting: number) => Promise<boolean>,
): Promise<number> {
  const end = performance.now() + scene.forMs;
  let most = 0;
  while (performance.now() < end) {
    if (stage.signal.aborted) throw new Interrupted();
    if (!stage.agent.running())
      throw new Error(`the agent has ended; its log ends:\n${stage.agent.log().slice(-3000)}`);
    const waiting = await picture(stage, scene.phase, scene.cluster);
    most = Math.max(most, waiting);
    if (until !== undefined && (await until(waiting))) return most;
    await sleep(200);
  }
  if (until !== undefined) throw new Error(`"${scene.phase}" did not end within ${scene.forMs} ms`);
  return most;
}

/** Whether the agent has read everything that the shop has committed. */
async function hasReadAll(agent: AgentProcess, mariadb: MariadbServer): Promise<boolean> {
  const [row] = await mariadb.query("SHOW MASTER STATUS");
  const { output } = await agent.command("status", "--json");
  const { position } = JSON.parse(output);
  return position?.file === row?.["File"] && position?.position === Number(row?.["Position"]);
}

function build(): void {
  const built = spawnSync(process.execPath, [join(root, "build.mjs")], {
    cwd: root,
    stdio: ["ignore", 2, 2],
  });
  if (built.status !== 0) throw new Error("the bundle cannot be built");
}

async function prepareAgent(mariadb: MariadbServer, cluster: DemoCluster): Promise<AgentProcess> {
  const user = await mariadb.createAgentUser();
  return AgentProcess.prepare({
    form: "bundle",
    settings: {
      MAGENTO_DB_SOCKET: mariadb.socket,
      MAGENTO_DB_USER: user.user,
      MAGENTO_DB_PASS: user.password,
      SHOP_NAME: identity.shop,
      IDENTITY_NAMESPACE: identity.namespace,
      DAPR_HTTP_ENDPOINT: cluster.endpoint,
      DAPR_API_TOKEN: cluster.token,
      SNAPSHOT_MODE: "never",
      DISK_FREE_MIN: "100M",
      SPOOL_BYTES_MAX: "2G",
    },
  });
}

async function verdict(stage: Stage, mariadb: MariadbServer, cluster: DemoCluster): Promise<boolean> {
  stage.view.say("the shop is closed; the consumer finishes");
  await cluster.caughtUp(60_000);
  const replica = new Applier(cluster.replicaFile, {});
  const connection = await mariadb.connection();
  try {
    const comparison = await compareReplica({ connection, identity, replica });
    const { deadLetters } = replica.statistics();
    console.log(`\n${describeComparison(comparison)}\n`);
    if (deadLetters > 0) console.log(`${deadLetters} dead letters`);
    const equal = comparison.equal && deadLetters === 0;
    console.log(
      equal ? "EQUAL: the replica is the shop, field by field" : "DIFFERENT: the replica is not the shop",
    );
    return equal;
  } finally {
    await connection.end();
    replica.close();
  }
}

interface Play {
  readonly view: View;
  readonly releases: Releases;
  readonly signal: AbortSignal;
  readonly acts: Acts;
  readonly standIn: boolean;
}

async function play({ view, releases, signal, acts, standIn }: Play): Promise<boolean> {
  view.say("a shop, the agent beside its database, and a cluster that goes away for a while");
  view.say("building the agent");
  build();
  const cluster = await startDemoCluster((line) => view.say(line), standIn);
  releases.add(() => cluster.stop());
  if (cluster.warning !== null) view.say(`!!! ${cluster.warning}`);
  view.say(`started: ${cluster.parts}`);
  const mariadb = await startMariadb();
  releases.add(() => mariadb.stop());
  await mariadb.loadMagento();
  view.say(`started: MariaDB ${mariadb.version} with Magento's tables`);
  const agent = await prepareAgent(mariadb, cluster);
  releases.add(() => agent.remove());
  await agent.start();
  view.say("started: the agent (the built bundle)");
  const counts: ShopCounts = { orders: 0, customers: 0, edits: 0, imports: 0, deletions: 0 };
  const stage: Stage = { view, agent, counts, signal };
  const reads = async () => (await agent.metric("edge_agent_source_connected")) === 1;
  await agent.until("the agent reads the binlog", reads, 30_000);
  const random = new Random(runSeed());
  const connect = () => mariadb.connection({ database: identity.database });
  const opener = await connect();
  await furnishShop(opener, random);
  await opener.end();

  const closing = new AbortController();
  const shop = openShop({ connect, random, paceMs: 40, signal: closing.signal }, counts);
  // A shop that breaks is seen where it is awaited.
  shop.catch(() => undefined);
  releases.add(async () => {
    closing.abort();
    await shop.catch(() => undefined);
  });
  view.say("the shop is open");
  await watch(stage, { phase: "the shop is open", cluster: "up", forMs: acts.beforeOutageMs });
  await cluster.cutOff();
  view.say("the cluster is CUT OFF; orders go on");
  const most = await watch(stage, { phase: "outage", cluster: "CUT OFF", forMs: acts.outageMs });
  view.say(`${most.toLocaleString("en")} events wait on the agent's disk; the cluster comes back`);
  await cluster.reconnect();
  const drained = async (waiting: number) => waiting < 50;
  await watch(stage, { phase: "draining", cluster: "up", forMs: 60_000 }, drained);
  view.say("the spool is drained");
  await watch(stage, { phase: "the shop is open", cluster: "up", forMs: acts.afterOutageMs });
  closing.abort();
  await shop;
  const quiet = async (waiting: number) => waiting === 0 && (await hasReadAll(agent, mariadb));
  await watch(stage, { phase: "the last events", cluster: "up", forMs: 60_000 }, quiet);
  return verdict(stage, mariadb, cluster);
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const unknown = words.find((word) => word !== "--stand-in" && word !== "--brief");
  if (unknown !== undefined) {
    process.stdout.write(usage);
    return unknown === "--help" ? 0 : 64;
  }
  const acts = words.includes("--brief") ? briefActs : wholeActs;
  const standIn = words.includes("--stand-in");
  const view = new View(process.stdout);
  const releases = new Releases();
  const ending = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => ending.abort());
  try {
    return (await play({ view, releases, signal: ending.signal, acts, standIn })) ? 0 : 1;
  } catch (thrown) {
    // What fails while everything is being torn down is no finding.
    if (thrown instanceof Interrupted || ending.signal.aborted) {
      view.say("interrupted");
      return 130;
    }
    console.error(thrown);
    return 1;
  } finally {
    view.say("cleaning up");
    await releases.all();
  }
}

process.exitCode = await main();
// A connection that a failed run left open must not keep the process.
process.exit();
