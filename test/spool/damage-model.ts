/** A binlog, a capture loop, a consumer and a start after damage, as small as the spool needs them. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { OutboundEvent, QueueLane } from "../../agent/change.ts";
import type { Spool } from "../../agent/spool/spool.ts";
import {
  checkpoint,
  CUSTOMERS,
  event,
  eventually,
  openSpool,
  ORDERS,
  plain,
  randomOf,
  Witness,
} from "./fixtures.ts";

export const COUNT = 600;
export const ACKED = 150;
export const QUEUES = [ORDERS, CUSTOMERS] as const;
export const tuning = {
  everyBytes: 8 * 1024,
  everyMs: 1e9,
  compactStepBytes: 1e12,
  compactIdleMs: 1e12,
  segmentBytes: 40 * 1024,
};

/**
 * The binlog: transaction n made event n. Every seventh was read from a table instead; how far that
 * went is in the checkpoint as well.
 */
export function eventOf(n: number): OutboundEvent {
  return event(n, {
    queue: QUEUES[n % 2] ?? ORDERS,
    lane: isFromTable(n) ? "bulk" : "live",
    payload: noise(n),
  });
}

function isFromTable(n: number): boolean {
  return n % 7 === 0;
}

/** Bytes that Snappy cannot make much smaller: flips then hit payloads as well as structure. */
export function noise(n: number): Buffer {
  const random = randomOf(n);
  return Buffer.from(`"${Array.from({ length: 120 }, () => random().toString(36).slice(2)).join("")}"`);
}

/** Captures what follows the checkpoint, five transactions at a time. */
export async function capture(spool: Spool, upTo = COUNT): Promise<void> {
  for (let at = spool.checkpoint()?.position ?? 0; at < upTo;) {
    const to = Math.min(at + 5, upTo);
    const events = Array.from({ length: to - at }, (_, i) => eventOf(at + i));
    await spool.append({ events, checkpoint: checkpoint(to) });
    at = to;
  }
}

export class Consumer {
  /** Numbers of the events in the order of their first delivery, by queue and lane. */
  readonly first = new Map<string, number[]>();
  /** Lanes in which a gap was told of. */
  readonly gaps = new Set<string>();
  readonly #seen = new Set<string>();

  /** Delivers and acknowledges what can be read. */
  async deliver(spool: Spool): Promise<void> {
    for (const { queue, lane, acked } of spool.queues()) {
      const name = `${queue} ${lane}`;
      let after = acked;
      for (;;) {
        const events = await spool.read(queue, after, { maxEvents: 40, maxBytes: 1e6 }, lane);
        for (const { seq, otherLaneThrough, ...delivered } of events.map(plain)) {
          after = seq;
          if (delivered.kind === "control") {
            this.gaps.add(name);
            continue;
          }
          const n = Number(delivered.id.slice(3));
          assert.deepEqual(delivered, eventOf(n), `event ${n} is what was appended`);
          // Where the checkpoint came from a mark, the live lane's end stands for its last barrier.
          const other = spool.queues().find((one) => one.queue === queue && one.lane !== lane);
          assert.ok(otherLaneThrough <= (other?.last ?? 0), "it waits for nothing that was never there");
          if (this.#seen.has(delivered.id)) continue;
          this.#seen.add(delivered.id);
          this.first.set(name, [...(this.first.get(name) ?? []), n]);
        }
        if (events.length === 0) break;
        spool.ack(queue, after, lane);
      }
    }
  }

  isComplete(): boolean {
    return this.#seen.size === COUNT;
  }

  check(): void {
    assert.equal(this.#seen.size, COUNT, "everything was delivered");
    for (const [queue, numbers] of this.first) {
      if (this.gaps.has(queue)) continue;
      const sorted = numbers.toSorted((left, right) => left - right);
      assert.deepEqual(numbers, sorted, `${queue}: first deliveries are in order`);
    }
  }
}

/** A state of 600 events, a quarter of them delivered, and the consumer that has them. */
export async function filled(dir: string): Promise<Consumer> {
  const consumer = new Consumer();
  const spool = await openSpool(dir, { tuning });
  await spool.meta.put("identity", { shop: "one" });
  await capture(spool, ACKED);
  await consumer.deliver(spool);
  await eventually(
    async () => (await readFile(join(dir, "state.json"), "utf8")).includes("identity"),
    "marker",
  );
  await capture(spool, COUNT);
  await spool.close();
  return consumer;
}

/** Opens as the agent would, heals by reading again, and delivers until all is there. */
export async function recover(
  dir: string,
  consumer: Consumer,
): Promise<{ healed: string | null; rewinds: number; skips: number }> {
  const spool = await openSpool(dir, { tuning, witness: new Witness() });
  let rewinds = 0;
  let skips = 0;
  assert.deepEqual(await spool.meta.get("identity"), { shop: "one" });
  for (let round = 0; round < 50; round += 1) {
    await consumer.deliver(spool);
    const [damage] = spool.damages.all;
    if (damage === undefined) {
      if (spool.checkpoint()?.position === COUNT && consumer.isComplete()) break;
      await capture(spool);
      continue;
    }
    if (damage.lane === "bulk") {
      assert.equal(damage.rewindTo, null, "no binlog brings it again");
      await readAgain(spool, damage);
      skips += 1;
      continue;
    }
    assert.ok(damage.rewindTo !== null, "there is a mark before the damage");
    await spool.damages.rewind(damage);
    rewinds += 1;
  }
  consumer.check();
  const { healedAtOpen } = spool;
  await spool.close();
  // What was healed is sound: another start finds nothing.
  const again = await openSpool(dir, { tuning });
  assert.equal(again.healedAtOpen, null);
  assert.deepEqual(again.damages.all, []);
  await again.close();
  return { healed: healedAtOpen, rewinds, skips };
}

/** A gap event takes the place of what is lost, and the rows are read from their table once more. */
async function readAgain(spool: Spool, damage: QueueLane): Promise<void> {
  const gap = await spool.damages.gap(damage);
  assert.ok(gap !== null);
  const { queue, lane } = damage;
  const topic = "migration.control";
  const at = spool.checkpoint()?.position ?? 0;
  const told = event(9999, { queue, lane, topic, kind: "control", barrier: true });
  await spool.damages.skip(damage, gap, { event: told, checkpoint: checkpoint(at) });
  const rows: OutboundEvent[] = [];
  for (let n = 0; n < at; n += 1) {
    const row = eventOf(n);
    if (row.queue === queue && row.lane === lane) rows.push(row);
  }
  await spool.append({ events: rows, checkpoint: checkpoint(at) });
}
