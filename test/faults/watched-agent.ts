/**
 * The agent as it is, and around it a watch that knows where it is: bundled for kill tests. It wraps
 * the doors of the rooms from outside, writes what is under way into a file at each change, and ends
 * the process by SIGKILL at an ordered moment. The agent itself knows nothing of it.
 */
import { openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Level } from "level";
import type { OutboundEvent, Seq } from "../../agent/change.ts";
import { DaprClient } from "../../agent/forward/dapr-client.ts";
import { Observer } from "../../agent/observe/observer.ts";
import { Spool } from "../../agent/spool/spool.ts";
import { trimTuning } from "../../agent/spool/trim.ts";
import type { WriteOperations } from "../../agent/spool/write-batch.ts";
import { moments, momentsFile, orderFile, watchVariable, type KillOrder, type Moment } from "./moments.ts";

const directory = process.env[watchVariable] ?? "";
delete process.env[watchVariable];

class Watch {
  readonly #file = openSync(join(directory, momentsFile), "r+");
  readonly #content = Buffer.alloc(moments.length * 4);
  readonly #order: KillOrder | null = JSON.parse(readFileSync(join(directory, orderFile), "utf8"));
  #left = this.#order?.count ?? 0;

  /** So many more, or less, of a kind are under way. */
  add(moment: Moment, change: number): void {
    this.set(moment, this.#content.readInt32LE(moments.indexOf(moment) * 4) + change);
  }

  set(moment: Moment, count: number): void {
    const at = moments.indexOf(moment) * 4;
    const before = this.#content.readInt32LE(at);
    if (before === count) return;
    this.#content.writeInt32LE(count, at);
    writeSync(this.#file, this.#content, 0, this.#content.length, 0);
    if (count > before && this.#order?.moment === moment) this.#obey(this.#order);
  }

  #obey(order: KillOrder): void {
    this.#left -= 1;
    if (this.#left !== 0) return;
    // What goes on in other threads (an fsync, a compaction) goes on for so long; this one stands.
    const endsAt = performance.now() + order.delayUs / 1000;
    while (performance.now() < endsAt);
    process.kill(process.pid, "SIGKILL");
  }
}

const watch = new Watch();
/** Events that were durable and not handed to the publisher yet, less those under way: by place. */
const sent = new Set<string>();
const answered = new Map<string, Seq[]>();

watchLife();
watchWrites();
watchSpool();
watchPublisher();

/** A method as it was, to be called by what takes its place. */
function inner<T extends object, K extends keyof T>(prototype: T, name: K): T[K] {
  return prototype[name];
}

function watchLife(): void {
  watch.set("program starts", 1);
  const open = Spool.open.bind(Spool);
  Spool.open = async (options) => {
    watch.set("program starts", 0);
    watch.set("spool opens", 1);
    const spool = await open(options);
    for (const { acked, last } of spool.queues()) watch.add("fsync -> publish", last - acked);
    watch.set("inside a large transaction", spool.checkpoint()?.partial ? 1 : 0);
    watch.set("spool opens", 0);
    watch.set("position is proven", 1);
    return spool;
  };
  const connected = inner(Observer.prototype, "connected");
  Observer.prototype.connected = function (): void {
    watch.set("position is proven", 0);
    connected.call(this);
  };
}

type WriteLevel = (this: Level<Buffer, Buffer>, ...write: Parameters<WriteOperations>) => Promise<void>;

/** Every write of the database, and compactions, which are made frequent. */
function watchWrites(): void {
  Object.assign(trimTuning, { compactStepBytes: 128 * 1024, compactIdleMs: 200 });
  const prototype: Pick<Level<Buffer, Buffer>, "batch"> = Level.prototype;
  const write: WriteLevel = inner(prototype, "batch");
  // Only the form with operations is used.
  Object.assign(Level.prototype, {
    async batch(
      this: Level<Buffer, Buffer>,
      ...[operations, options]: Parameters<WriteOperations>
    ): Promise<void> {
      const deletes = operations.some(({ type }) => type === "del") ? 1 : 0;
      // What was acknowledged until now has its cursors in this write.
      watch.set("ack -> trim", 0);
      const writing = write.call(this, operations, options);
      watch.add("trim", deletes);
      if (options.sync) watch.add("append -> fsync", 1);
      await writing;
      watch.add("trim", -deletes);
      if (options.sync) watch.add("append -> fsync", -1);
    },
  });
  watchCompactions();
}

function watchCompactions(): void {
  const prototype: object = Level.prototype;
  if (!("compactRange" in prototype) || typeof prototype.compactRange !== "function") {
    throw new Error("level cannot compact");
  }
  const compact = prototype.compactRange;
  Object.assign(prototype, {
    async compactRange(this: Level, ...range: unknown[]): Promise<void> {
      const compacting: unknown = compact.apply(this, range);
      watch.add("compaction", 1);
      await compacting;
      watch.add("compaction", -1);
    },
  });
}

function watchSpool(): void {
  const append = inner(Spool.prototype, "append");
  const ack = inner(Spool.prototype, "ack");
  Spool.prototype.append = async function (batch, signal): Promise<void> {
    await append.call(this, batch, signal);
    watch.set("inside a large transaction", batch.checkpoint.partial === null ? 0 : 1);
    watch.add("fsync -> publish", batch.events.length);
  };
  Spool.prototype.ack = function (queue, through): void {
    ack.call(this, queue, through);
    const waiting = answered.get(queue) ?? [];
    const left = waiting.filter((seq) => seq > through);
    answered.set(queue, left);
    watch.add("answer -> ack", left.length - waiting.length);
    watch.set("ack -> trim", 1);
  };
}

function watchPublisher(): void {
  const publishBulk = inner(DaprClient.prototype, "publishBulk");
  DaprClient.prototype.publishBulk = async function (topic, events) {
    const places = events.flatMap(placeOf);
    const fresh = places.filter(({ name }) => !sent.has(name));
    for (const { name } of fresh) sent.add(name);
    watch.add("fsync -> publish", -fresh.length);
    const answering = publishBulk.call(this, topic, events);
    watch.add("publish -> answer", 1);
    const outcome = await answering;
    watch.add("publish -> answer", -1);
    if (outcome.kind === "accepted") {
      for (const { queue, seq } of places) answered.set(queue, [...(answered.get(queue) ?? []), seq]);
      watch.add("answer -> ack", places.length);
    }
    return outcome;
  };
}

/** Heartbeats and dead letters have no place in a queue. */
function placeOf(event: OutboundEvent): { queue: string; seq: Seq; name: string }[] {
  if (!("seq" in event) || typeof event.seq !== "number") return [];
  return [{ queue: event.queue, seq: event.seq, name: `${event.queue} ${event.seq}` }];
}
