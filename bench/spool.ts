/**
 * How fast the spool takes, gives and forgets events, beside what LevelDB alone reaches on the same
 * disk in the same run; and what memory a backlog takes.
 *
 *   node bench/spool.ts [events]
 *
 * Not asked here: decode, encode and the network. Events are 1.5 KB of JSON-like text, in batches
 * of 200 over ten queues, one append under way while the next is made, as the capture loop does.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import type { Checkpoint, OutboundEvent } from "../agent/change.ts";
import { systemClock } from "../agent/kernel/service.ts";
import { levelDatabase } from "../agent/spool/database.ts";
import { queueKey } from "../agent/spool/keys.ts";
import { Spool } from "../agent/spool/spool.ts";

const BATCH = 200;
const ROUNDS = 3;
const POOL = 500;

const queues = Array.from({ length: 10 }, (_, n) => `migration.entity-${n}.changed`);
const payloads = Array.from({ length: POOL }, (_, n) => payloadOf(n));

function payloadOf(n: number): Buffer {
  let text = '"{\\"specversion\\":\\"1.0\\",\\"data\\":{';
  for (let field = 0; text.length < 1500; field++) {
    const value = (Math.imul(n + 1, 2654435761) ^ Math.imul(field, 40503)) >>> 0;
    text += `\\"field_${field}\\":\\"${value.toString(36)}\\",`;
  }
  return Buffer.from(text.slice(0, 1500));
}

function payloadAt(n: number): Buffer {
  return payloads[n % POOL] ?? Buffer.alloc(0);
}

function eventOf(n: number): OutboundEvent {
  const queue = queues[n % queues.length] ?? "";
  return {
    kind: "entity",
    queue,
    lane: "live",
    topic: queue,
    table: "sales_order",
    op: "u",
    id: `0e4f8c1e-7c1c-5d5e-9d2f-${String(n).padStart(12, "0")}`,
    entityKey: `sales_order:${n}`,
    commitTimeMs: 1_700_000_000_000 + n,
    capturedAtMs: 1_700_000_000_000 + n,
    barrier: false,
    oversize: false,
    payload: payloadAt(n),
  };
}

function checkpointOf(position: number): Checkpoint {
  return {
    formatVersion: 2,
    epoch: 1_700_000_000,
    file: "mariadb-bin.000001",
    position,
    resumePosition: position,
    gtidSet: `0-1-${position}`,
    serverId: 1,
    serverUuid: null,
    lastTransaction: {
      file: "mariadb-bin.000001",
      startPosition: position,
      endPosition: position,
      gtid: `0-1-${position}`,
      xid: String(position),
      timestampSeconds: 1_700_000_000,
      rowsCrc32: "00000000",
    },
    partial: null,
    newestCommitMs: 1_700_000_000_000,
  };
}

async function inDirectory(work: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "spool-bench-"));
  try {
    await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const quiet = (): void => {};

function openSpool(stateDir: string): Promise<Spool> {
  return Spool.open({
    stateDir,
    limits: { bytesMax: 2 ** 40, diskFreeMin: 0 },
    syncMinMs: 0,
    quarantineKeepDays: 30,
    observer: { synced: quiet, intakeClosed: quiet, intakeOpened: quiet },
    log: { debug: quiet, info: quiet, notice: quiet, warn: console.warn, error: console.error },
    clock: systemClock,
  });
}

/** Events a second that LevelDB alone takes: the same bytes, the same batches, synced. */
async function bare(count: number): Promise<number> {
  let rate = 0;
  await inDirectory(async (dir) => {
    const database = levelDatabase(join(dir, "bare"), { createIfMissing: true });
    await database.open();
    const startMs = performance.now();
    let underWay = Promise.resolve();
    for (let n = 0; n < count; n += BATCH) {
      const batch = database.batch();
      for (let at = n; at < n + BATCH; at++) {
        const queue = { tag: at % queues.length, lane: "live" } as const;
        batch.put(queueKey(1, queue, at), payloadAt(at));
      }
      await underWay;
      underWay = batch.write({ sync: true });
    }
    await underWay;
    rate = rateOf(count, startMs);
    await database.close();
  });
  return rate;
}

async function append(spool: Spool, count: number): Promise<number> {
  const startMs = performance.now();
  let underWay = Promise.resolve();
  for (let n = 0; n < count; n += BATCH) {
    const events = Array.from({ length: BATCH }, (_, at) => eventOf(n + at));
    await underWay;
    underWay = spool.append({ events, checkpoint: checkpointOf(n) });
  }
  await underWay;
  return rateOf(count, startMs);
}

async function drain(spool: Spool, acknowledge: boolean): Promise<number> {
  const startMs = performance.now();
  let count = 0;
  for (const { queue, acked } of spool.queues()) {
    let after = acked;
    for (;;) {
      const events = await spool.read(queue, after, { maxEvents: 200, maxBytes: 512 * 1024 });
      if (events.length === 0) break;
      count += events.length;
      after += events.length;
      if (acknowledge) spool.ack(queue, after);
    }
  }
  return rateOf(count, startMs);
}

function rateOf(count: number, startMs: number): number {
  return Math.round(count / ((performance.now() - startMs) / 1000));
}

async function anonymousMegabytes(): Promise<number> {
  const status = await readFile("/proc/self/status", "utf8");
  return Math.round(Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
}

async function untilSmall(spool: Spool): Promise<number> {
  const startMs = performance.now();
  while (spool.stats().directoryBytes > 1.5e6 && performance.now() - startMs < 60_000) {
    await systemClock.sleep(50);
  }
  return Math.round(performance.now() - startMs);
}

async function round(dir: string, count: number): Promise<void> {
  let spool = await openSpool(dir);
  const appended = await append(spool, count);
  const { fsync, directoryBytes } = spool.stats();
  const afterAppendMegabytes = await anonymousMegabytes();
  const read = await drain(spool, false);
  await spool.close();
  const openMs = performance.now();
  spool = await openSpool(dir);
  const openedMs = Math.round(performance.now() - openMs);
  const drained = await drain(spool, true);
  const emptyMs = await untilSmall(spool);
  console.log(
    `spool  append ${appended}/s  read ${read}/s  read+ack+trim ${drained}/s  fsync p99 ${(fsync.p99Seconds * 1000).toFixed(1)} ms` +
      `  directory ${Math.round(directoryBytes / 1e6)} MB, ${Math.round(spool.stats().directoryBytes / 1e3)} KB ${emptyMs} ms after draining` +
      `  open ${openedMs} ms  anonymous ${afterAppendMegabytes} MB after append, ${await anonymousMegabytes()} MB at end`,
  );
  await spool.close();
}

async function main(count: number): Promise<void> {
  const processor = cpus()[0]?.model ?? "unknown processor";
  console.log(`${processor}, ${availableParallelism()} cores, Node ${process.version}, ${count} events`);
  for (let at = 0; at < ROUNDS; at++) {
    console.log(`bare   append ${await bare(Math.min(count, 200_000))}/s`);
    await inDirectory((dir) => round(dir, count));
  }
}

await main(Number(process.argv[2] ?? 200_000));
