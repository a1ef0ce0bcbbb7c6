/**
 * Measurements of the whole agent as a process, against real servers: capture from a backlog, drain
 * of a full spool, memory, latency, one hot entity. Each gives one run; `bench.ts` repeats them.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "undici";
import { MemorySampler } from "../test/e2e/memory.ts";
import { nobody, type Stack } from "../test/e2e/stack.ts";
import { entities } from "../test/oracle/entities.ts";
import { allEntries } from "../test/oracle/history.ts";
import { RedisConnection, type RedisReply } from "../test/servers/redis-connection.ts";
import type { Backlog } from "./backlog.ts";
import { percentiles, type Percentiles } from "./machine.ts";

const offline = { DAPR_HTTP_ENDPOINT: nobody };
export const minutes = 60_000;

interface Reading {
  readonly atMs: number;
  readonly value: number;
}

/** The broker's own figures cost the agent nothing. */
const BROKER_POLL_MS = 20;
/** A look at the agent's metrics takes it a millisecond and more: fifty a second would be part of the figure. */
const METRICS_POLL_MS = 100;

/** Polls a rising figure until it reaches the end; gives the first reading above zero and the last. */
async function followUp(
  read: () => Promise<number>,
  end: number,
  { timeoutMs, pollMs }: { readonly timeoutMs: number; readonly pollMs: number },
): Promise<{ readonly first: Reading; readonly last: Reading }> {
  const deadline = performance.now() + timeoutMs;
  let first: Reading | null = null;
  while (true) {
    const reading = { value: await read(), atMs: performance.now() };
    if (reading.value > 0) first ??= reading;
    if (first !== null && reading.value >= end) return { first, last: reading };
    if (reading.atMs > deadline) throw new Error(`only ${reading.value} of ${end} after ${timeoutMs} ms`);
    await sleep(pollMs);
  }
}

/** Until so many rows are in the synced spool. */
export function followCaptured(stack: Stack, rows: number): ReturnType<typeof followUp> {
  const read = async () => (await stack.agent.metric("edge_agent_rows_captured_total")) ?? 0;
  return followUp(read, rows, { timeoutMs: 10 * minutes, pollMs: METRICS_POLL_MS });
}

function followBroker(read: () => Promise<number>, events: number): ReturnType<typeof followUp> {
  return followUp(read, events, { timeoutMs: 10 * minutes, pollMs: BROKER_POLL_MS });
}

export function ratePerSecond({ first, last }: { readonly first: Reading; readonly last: Reading }): number {
  return (last.value - first.value) / ((last.atMs - first.atMs) / 1000);
}

export interface CaptureRun {
  readonly rowsPerSecond: number;
  readonly anonymousMib: number;
  /** Processor seconds of the agent per 100,000 row events. */
  readonly cpuSeconds: number;
}

/** From an empty state at the backlog's start until its last row is durable; nobody takes events. */
export async function captureRun(stack: Stack, backlog: Backlog): Promise<CaptureRun> {
  await stack.agent.forget();
  stack.agent.launch({ ...offline, START_POSITION: backlog.from });
  const sampler = new MemorySampler(stack.agent.pid);
  const course = await followCaptured(stack, backlog.rows);
  const cpu = (await stack.agent.metric("process_cpu_seconds_total")) ?? Number.NaN;
  return {
    rowsPerSecond: ratePerSecond(course),
    anonymousMib: sampler.stop(),
    cpuSeconds: (cpu / backlog.rows) * 100_000,
  };
}

/** Entries in all entity streams. */
async function delivered(stack: Stack): Promise<number> {
  let total = 0;
  for (const { topic } of entities) total += await stack.broker.redis.streamLength(topic);
  return total;
}

/** Empties the broker, so that the runs do not slow each other down. */
async function emptyBroker(stack: Stack): Promise<void> {
  await stack.broker.redis.command("FLUSHALL");
  await sleep(300);
}

/** A first start scans keys for the index of children, once; that is no part of what follows. */
export async function untilIndexed(stack: Stack): Promise<void> {
  const isIndexed = async () => (await stack.agent.metric("edge_agent_index_incomplete")) === 0;
  await stack.agent.until("the index is complete", isIndexed, 2 * minutes);
}

export interface DrainRun {
  readonly perSecond: number;
  readonly anonymousMib: number;
}

/** The agent, stopped on a full spool, is started with the real daprd, until all arrived. */
export async function drainRun(stack: Stack): Promise<DrainRun> {
  await untilIndexed(stack);
  const waiting = (await stack.agent.metric("edge_agent_spool_events")) ?? 0;
  await stack.agent.stop();
  await emptyBroker(stack);
  stack.agent.launch();
  const sampler = new MemorySampler(stack.agent.pid);
  const course = await followBroker(() => delivered(stack), waiting);
  return { perSecond: ratePerSecond(course), anonymousMib: sampler.stop() };
}

/** What the broker holds, as bodies of bulk requests: ready, so that the client does nothing but send. */
export async function recordedBodies(stack: Stack): Promise<ReadonlyMap<string, readonly Buffer[]>> {
  const bodies = new Map<string, Buffer[]>();
  for (const { topic } of entities) {
    const made: Buffer[] = [];
    let entries: string[] = [];
    const cut = (): void => {
      if (entries.length > 0) made.push(Buffer.from(`[${entries.join(",")}]`));
      entries = [];
    };
    for await (const entry of allEntries(stack.broker.redis, topic)) {
      const event = JSON.stringify(entry.fields["data"] ?? "");
      entries.push(`{"entryId":"${entries.length}","contentType":"text/plain","event":${event}}`);
      if (entries.length === 100) cut();
    }
    cut();
    if (made.length > 0) bodies.set(topic, made);
  }
  return bodies;
}

async function sendAll(stack: Stack, pool: Pool, topic: string, bodies: readonly Buffer[]): Promise<void> {
  const path = `/v1.0/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`;
  const headers = { "content-type": "application/json", "dapr-api-token": stack.broker.token };
  for (const body of bodies) {
    const answer = await pool.request({ method: "POST", path, headers, body });
    await answer.body.dump();
    if (answer.statusCode !== 204) throw new Error(`daprd answered ${answer.statusCode}`);
  }
}

/** The same events by a bare undici client, topics side by side, a hundred in a request. */
export async function bareClientRun(
  stack: Stack,
  bodies: ReadonlyMap<string, readonly Buffer[]>,
  events: number,
): Promise<number> {
  await emptyBroker(stack);
  const pool = new Pool(stack.broker.gateway.endpoint, { connections: bodies.size });
  const sent = Promise.all([...bodies].map(([topic, parts]) => sendAll(stack, pool, topic, parts)));
  const course = await followBroker(() => delivered(stack), events);
  await sent;
  await pool.close();
  return ratePerSecond(course);
}

export interface BacklogStart {
  readonly firstOutSeconds: number;
  readonly anonymousMib: number;
}

/** Start on a spool full of events, with a broker: how soon the first one is out, and how much memory. */
export async function backlogStartRun(stack: Stack, drainForMs: number): Promise<BacklogStart> {
  await stack.agent.stop();
  await emptyBroker(stack);
  const started = performance.now();
  stack.agent.launch();
  const sampler = new MemorySampler(stack.agent.pid);
  let firstOutSeconds = Number.NaN;
  while (Number.isNaN(firstOutSeconds)) {
    if ((await delivered(stack)) > 0) firstOutSeconds = (performance.now() - started) / 1000;
    else if (performance.now() - started > minutes) throw new Error("no event came out within a minute");
    else await sleep(5);
  }
  await sleep(drainForMs);
  return { firstOutSeconds, anonymousMib: sampler.stop() };
}

/** Largest anonymous memory in MiB until the running agent's spool is empty. */
export async function restOfDrain(stack: Stack): Promise<number> {
  const sampler = new MemorySampler(stack.agent.pid);
  const isEmpty = async () => (await stack.agent.metric("edge_agent_spool_events")) === 0;
  await stack.agent.until("the spool is empty", isEmpty, 10 * minutes);
  return sampler.stop();
}

function hasText(reply: RedisReply, text: string): boolean {
  return Array.isArray(reply)
    ? reply.some((part) => hasText(part, text))
    : typeof reply === "string" && reply.includes(text);
}

/** How long an event is waited for before the run is given up. */
const ARRIVAL_MS = 10_000;

/** Id of the newest entry, behind which `arrivalOf` looks. */
async function newestId(reader: RedisConnection, topic: string): Promise<string> {
  const reply = await reader.command(["XREVRANGE", topic, "+", "-", "COUNT", "1"]);
  const [newest] = Array.isArray(reply) ? reply : [];
  return Array.isArray(newest) ? String(newest[0]) : "0";
}

/**
 * When the event with that text arrives; others may come before it. It is looked for behind an entry
 * that was known before the commit: "$" means the end at the moment in which Redis takes the command
 * up, and after a stall Redis may take a publisher's command up first that came later.
 */
async function arrivalOf(
  reader: RedisConnection,
  topic: string,
  wanted: { readonly text: string; readonly after: string },
): Promise<number> {
  const deadline = performance.now() + ARRIVAL_MS;
  for (let { after } = wanted; ;) {
    const reply = await reader.command(["XREAD", "BLOCK", String(ARRIVAL_MS), "STREAMS", topic, after]);
    if (hasText(reply, wanted.text)) return performance.now();
    if (performance.now() > deadline) throw new Error(`an event did not arrive within ${ARRIVAL_MS} ms`);
    after = lastIdOf(reply) ?? after;
  }
}

/** Of the shape [[stream, [[id, fields], ...]]]; null where nothing came. */
function lastIdOf(reply: RedisReply): string | null {
  const stream = Array.isArray(reply) ? reply[0] : null;
  const entries = Array.isArray(stream) ? stream[1] : null;
  const last = Array.isArray(entries) ? entries.at(-1) : null;
  const id = Array.isArray(last) ? last[0] : null;
  return typeof id === "string" ? id : null;
}

/** Idle: single commits with pauses; from before COMMIT to the arrival at a reader of the stream. */
export async function latencyRun(stack: Stack, samples: number): Promise<Percentiles> {
  const topic = "migration.customer.changed";
  const writer = await stack.database.connection({ database: stack.identity.database });
  const reader = await RedisConnection.open(stack.broker.redis.port, () => undefined);
  const measured: number[] = [];
  try {
    for (let sample = 0; sample < samples + 20; sample += 1) {
      // Never the value that an earlier run left: an update to the same value is no change.
      const mark = `idle-${sample}-${Math.random().toString(36).slice(2)}`;
      await writer.query("START TRANSACTION");
      await writer.query("UPDATE customer_entity SET firstname = ? WHERE entity_id = ?", [
        mark,
        (sample % 500) + 1,
      ]);
      const arrival = arrivalOf(reader, topic, { text: mark, after: await newestId(reader, topic) });
      await sleep(2);
      const committed = performance.now();
      await writer.query("COMMIT");
      const seconds = (await arrival) - committed;
      // The first ones warm up connections and code.
      if (sample >= 20) measured.push(seconds);
      await sleep(20 + (sample % 30));
    }
  } finally {
    reader.close();
    await writer.end();
  }
  return percentiles(measured);
}

export interface HotRun {
  readonly hotPerSecond: number;
  readonly othersPerSecond: number;
}

/** One order changes again and again among many others: what each side reaches while draining. */
export async function hotEntityRun(stack: Stack, hotEvents: number): Promise<HotRun> {
  const others = hotEvents * 5;
  await stack.agent.stop();
  await stack.agent.forget();
  await emptyBroker(stack);
  await stack.agent.start(offline);
  await stack.untilReading();
  await stack.database.query(
    `BEGIN NOT ATOMIC DECLARE i INT DEFAULT 0; WHILE i < ${hotEvents} DO SET i = i + 1;
     UPDATE magento_db.sales_order SET total_paid = i WHERE entity_id = 1;
     UPDATE magento_db.customer_entity SET middlename = CONCAT('h', i) WHERE entity_id BETWEEN (i MOD 900) * 5 + 1 AND (i MOD 900) * 5 + 5;
     END WHILE; END`,
  );
  await stack.untilSpooled(hotEvents + others, 2 * minutes);
  await stack.agent.stop();
  stack.agent.launch();
  const [hot, rest] = await Promise.all([
    followBroker(() => stack.broker.redis.streamLength("migration.order.changed"), hotEvents),
    followBroker(() => stack.broker.redis.streamLength("migration.customer.changed"), others),
  ]);
  return { hotPerSecond: ratePerSecond(hot), othersPerSecond: ratePerSecond(rest) };
}
