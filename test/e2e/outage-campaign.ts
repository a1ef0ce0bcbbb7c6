/** Runs outages one after the other on one road, measures how each ends, and prints the table. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../oracle/random.ts";
import { deadLetters } from "../oracle/history.ts";
import type { OutageKind } from "./outage-kinds.ts";
import type { OutageRoad } from "./outage-road.ts";

/** The promise: something is accepted again within this time after the end of a fault. */
export const firstAcceptanceMs = 5_000;
/** Long enough for the pauses between two tries to have grown to their longest. */
const faultLastsMs = 6_000;
const heldWithinMs = 20_000;
const drainedWithinMs = 120_000;

export interface OutageResult {
  readonly name: string;
  readonly events: number;
  readonly code: string;
  readonly firstMs: number;
  readonly drainedMs: number;
}

/** One outage with its pile of events, from a drained agent to a drained agent. */
export async function suffer(
  road: OutageRoad,
  kinds: readonly OutageKind[],
  random: Random,
): Promise<OutageResult> {
  const { agent, broker } = road.stack;
  const name = kinds.map((kind) => kind.name).join(" + ");
  const logFrom = agent.log().length;
  const pid = agent.pid;
  const startMs = performance.now();
  const captured = async (): Promise<number> =>
    (await agent.metric("edge_agent_events_captured_total")) ?? Number.NaN;
  const capturedBefore = await captured();
  let code = "";
  let events = 0;
  try {
    for (const kind of kinds) await kind.begin(road);
    await road.pileUp(random);
    code = await heldAsSaid(road, kinds, logFrom);
    await sleep(Math.max(0, faultLastsMs - (performance.now() - startMs)));
    events = (await captured()) - capturedBefore;
  } finally {
    // The order in which they end is not that in which they began. Also after a failed test, for the next.
    for (const kind of random.shuffled(kinds)) await kind.end(road);
  }
  const endMs = performance.now();
  const before = await road.accepted();
  // Where some events passed all the time nothing may be waiting any more.
  if (code === "") await road.touch();
  const until = (what: string, holds: () => Promise<boolean>, timeoutMs: number): Promise<void> =>
    agent.until(`${what} after: ${name}`, holds, timeoutMs, 20);
  await until("something is accepted", async () => (await road.accepted()) > before, 60_000);
  const firstMs = performance.now() - endMs;
  await until(
    "nothing waits",
    async () => (await agent.metric("edge_agent_spool_events")) === 0,
    drainedWithinMs,
  );
  const drainedMs = performance.now() - endMs;
  await saidToBeOver(road, kinds, logFrom);
  assert.equal(agent.pid, pid);
  assert.ok(agent.running(), "the agent stays up");
  assert.equal(await deadLetters(broker.redis), 0, `dead letters after: ${name}`);
  const result = { name, events, code, firstMs, drainedMs };
  console.log(rowOf(result));
  return result;
}

/** Status, metrics, health and log say that it is held and why; returns the code that they say. */
async function heldAsSaid(road: OutageRoad, kinds: readonly OutageKind[], logFrom: number): Promise<string> {
  const { agent } = road.stack;
  const codes = kinds.map((kind) => kind.code);
  if (codes.every((code) => code === null)) return "";
  const isNamed = (code: string): boolean => codes.some((expected) => expected?.test(code) === true);
  const seen = { code: "" };
  const what = `held with one of ${codes.join(", ")}`;
  await agent.until(
    what,
    async () => {
      const codesNow = (await road.held()).map((held) => held.code);
      seen.code = codesNow.find(isNamed) ?? "";
      return seen.code !== "";
    },
    heldWithinMs,
    200,
  );
  await agent.until(
    "the metrics say it",
    async () => {
      const text = (await agent.metrics()) ?? "";
      return new RegExp(`^edge_agent_topic_held\\{.*code="${seen.code}".*\\} 1$`, "m").test(text);
    },
    5_000,
  );
  assert.ok(((await agent.metric("edge_agent_held_topics")) ?? 0) > 0);
  assert.equal(await agent.healthStatus(), 503);
  const health: { checks: { dapr: { status: string; message: string } } } = JSON.parse(
    (await agent.health()) ?? "{}",
  );
  assert.equal(health.checks.dapr.status, "unhealthy");
  assert.match(health.checks.dapr.message, /on hold: /);
  assert.match(agent.log().slice(logFrom), /delivery is on hold/);
  return seen.code;
}

async function saidToBeOver(road: OutageRoad, kinds: readonly OutageKind[], logFrom: number): Promise<void> {
  const { agent } = road.stack;
  await agent.until(
    "no topic is on hold",
    async () => (await agent.metric("edge_agent_held_topics")) === 0,
    15_000,
  );
  await agent.until("health is good again", async () => (await agent.healthStatus()) === 200, 30_000);
  if (kinds.every((kind) => kind.code === null)) return;
  const log = agent.log().slice(logFrom);
  const count = (words: string): number => log.split(words).length - 1;
  // One line at its begin and one at its end, for each topic that was held.
  assert.match(log, /delivery goes on/);
  assert.equal(count("delivery goes on"), count("delivery is on hold") - count(" repeated="), log);
}

function rowOf({ name, events, code, firstMs, drainedMs }: OutageResult): string {
  const seconds = (ms: number): string => (ms / 1000).toFixed(1);
  return `| ${name} | ${events} | ${code || "-"} | ${seconds(firstMs)} | ${seconds(drainedMs)} |`;
}

/** The table as docs/reliability.md has it. */
export function tableOf(results: readonly OutageResult[]): string {
  const head = [
    "| outage | events meanwhile | held as | first acceptance, s | drained, s |",
    "|---|---|---|---|---|",
  ];
  return [...head, ...results.map(rowOf)].join("\n");
}

/** Two kinds at different places, at random. */
export function randomPair(kinds: readonly OutageKind[], random: Random): OutageKind[] {
  const first = random.pick(kinds);
  return [first, random.pick(kinds.filter((kind) => canMeet(first, kind)))];
}

/** daprd opens a component once, and only with a broker that answers: it cannot end without that one. */
function canMeet(one: OutageKind, other: OutageKind): boolean {
  const places = new Set([one.place, other.place]);
  return places.size === 2 && !(places.has("daprd") && places.has("broker"));
}
