/** Parts that the spool's tests share. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { MemoryLevel } from "memory-level";
import type { Checkpoint, Lane, OutboundEvent, SpooledEvent } from "../../agent/change.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { Log, LogFields } from "../../agent/kernel/service.ts";
import type { QuarantinedEvent } from "../../agent/ports.ts";
import { type Database, type KeyRange, levelDatabase } from "../../agent/spool/database.ts";
import { Spool } from "../../agent/spool/spool.ts";
import type { SpoolOptions } from "../../agent/spool/spool-options.ts";

export const ORDERS = "migration.order.changed";
export const CUSTOMERS = "migration.customer.changed";

/** A directory of its own, removed after the test; `release` is called before. */
export async function stateDirOf(t: TestContext, release = (_path: string): void => {}): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "spool-test-"));
  t.after(async () => {
    // A test that failed half-way leaves its spool open, and that would keep the process alive.
    for (const spool of openSpools) await spool.close();
    openSpools.clear();
    release(path);
    await rm(path, { recursive: true, force: true });
  });
  return path;
}

const openSpools = new Set<Spool>();

/** What a process leaves that is killed now. A marker that is just being written can be gone before it is copied. */
export async function copyOpenState(dir: string, to: string): Promise<void> {
  await cp(dir, to, { recursive: true, filter: (path) => !path.endsWith("state.json.new") });
}

/** What the spool told its observer and its log. */
export class Witness implements Log {
  readonly syncs: { readonly seconds: number; readonly events: number; readonly bytes: number }[] = [];
  readonly intake: string[] = [];
  readonly warnings: string[] = [];

  synced(facts: { readonly seconds: number; readonly events: number; readonly bytes: number }): void {
    this.syncs.push(facts);
  }
  intakeClosed(code: string): void {
    this.intake.push(code);
  }
  intakeOpened(): void {
    this.intake.push("open");
  }
  debug(): void {}
  info(): void {}
  notice(): void {}
  warn(message: string, fields?: LogFields): void {
    this.warnings.push(`${message} ${JSON.stringify(fields ?? {})}`);
  }
  error(message: string): void {
    this.warnings.push(message);
  }
}

export async function openSpool(
  stateDir: string,
  options: Partial<SpoolOptions> & { readonly witness?: Witness } = {},
): Promise<Spool> {
  const { witness = new Witness(), ...rest } = options;
  const spool = await Spool.open({
    stateDir,
    limits: { bytesMax: 2 ** 40, diskFreeMin: 0 },
    syncMinMs: 0,
    quarantineKeepDays: 30,
    observer: witness,
    log: witness,
    clock: systemClock,
    ...rest,
  });
  openSpools.add(spool);
  return spool;
}

/** Works on the database of a closed spool, behind the spool's back. */
export async function tamper(
  dir: string,
  change: (database: ReturnType<typeof levelDatabase>) => Promise<void>,
): Promise<void> {
  const database = levelDatabase(join(dir, "spool"), { createIfMissing: false });
  await database.open();
  await change(database);
  await database.close();
}

export function event(n: number, fields: Partial<OutboundEvent> = {}): OutboundEvent {
  const queue = fields.queue ?? ORDERS;
  return {
    kind: "entity",
    queue,
    lane: "live",
    topic: queue,
    table: "sales_order",
    op: "u",
    id: `id-${n}`,
    entityKey: `sales_order:${n}`,
    commitTimeMs: 1_700_000_000_000 + n,
    capturedAtMs: 1_700_000_000_500 + n,
    barrier: false,
    oversize: false,
    payload: Buffer.from(`"event ${n} ${"x".repeat(n % 300)}"`),
    ...fields,
  };
}

export function checkpoint(position: number): Checkpoint {
  return {
    formatVersion: 2,
    epoch: 1_700_000_000,
    file: "mariadb-bin.000007",
    position,
    resumePosition: position,
    gtidSet: `0-1-${position}`,
    serverId: 1,
    serverUuid: null,
    lastTransaction: null,
    partial: null,
    newestCommitMs: 1_700_000_000_000,
  };
}

/** Everything that waits in a lane of a queue, read in steps. */
export async function readAll(spool: Spool, queue: string, lane: Lane = "live"): Promise<SpooledEvent[]> {
  const state = spool.queues().find((each) => each.queue === queue && each.lane === lane);
  const events: SpooledEvent[] = [];
  let after = state?.acked ?? 0;
  for (;;) {
    const more = await spool.read(queue, after, { maxEvents: 100, maxBytes: 1 << 20 }, lane);
    const last = more.at(-1);
    if (last === undefined) return events;
    events.push(...more.map(plain));
    after = last.seq;
  }
}

/** An event that was read, as an object that stands for itself and can be compared. */
export function plain(one: SpooledEvent): SpooledEvent {
  const { seq, otherLaneThrough, kind, queue, lane, topic, table, op } = one;
  const { id, entityKey, commitTimeMs, capturedAtMs, barrier, oversize, payload } = one;
  const texts = { id, entityKey, commitTimeMs, capturedAtMs, barrier, oversize, payload };
  return { kind, queue, lane, topic, table, op, ...texts, seq, otherLaneThrough };
}

/** What was appended, as it comes back. */
export function spooled(outbound: OutboundEvent, seq: number, otherLaneThrough = 0): SpooledEvent {
  return { ...outbound, seq, otherLaneThrough };
}

/** Waits until it holds; fails the test when it does not within the time. */
export async function eventually(
  holds: () => boolean | Promise<boolean>,
  what: string,
  withinMs = 15_000,
): Promise<void> {
  const endMs = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await systemClock.sleep(20);
  }
}

/** Numbers that look random and are the same for the same seed. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function seedOf(t: TestContext): number {
  const given = process.env["SPOOL_SEED"];
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given);
  t.diagnostic(`seed ${seed} (SPOOL_SEED repeats it)`);
  return seed;
}

/** memory-level with the two things that LevelDB does and it does not: copy at put, compact. */
export function memoryDatabase(): Database {
  const level = new MemoryLevel<Buffer, Buffer>({
    storeEncoding: "buffer",
    keyEncoding: "buffer",
    valueEncoding: "buffer",
  });
  return {
    open: () => level.open(),
    close: () => level.close(),
    get: (key) => level.get(key),
    batch: () => {
      const batch = level.batch();
      return {
        put: (key, value) => batch.put(Buffer.from(key), Buffer.from(value)),
        del: (key) => batch.del(Buffer.from(key)),
        write: () => batch.write(),
      };
    },
    iterator: ({ gte, lte, limit, reverse }: KeyRange) => level.iterator({ gte, lte, limit, reverse }),
    compactRange: () => Promise.resolve(),
  };
}

/** Everything in quarantine, none of it damaged. */
export async function quarantinedIn(spool: Spool): Promise<QuarantinedEvent[]> {
  const events: QuarantinedEvent[] = [];
  for await (const listed of spool.quarantined.list()) {
    if ("damage" in listed) throw new Error(listed.damage);
    events.push({ ...listed.found, event: plain(listed.found.event) });
  }
  return events;
}
