/** Stand-ins for the rooms around the forwarder: a spool in memory, encoder, observer. */
import assert from "node:assert/strict";
import type { Lane, OutboundEvent, Seq, SpooledEvent } from "../../agent/change.ts";
import type {
  ControlEncoder,
  ForwardObserver,
  EventFacts,
  HeartbeatFacts,
  QuarantinedEvent,
  QuarantineRoom,
  QuarantineVerdict,
  QueueReader,
  QueueState,
  ReadLimits,
} from "../../agent/ports.ts";
import type { PublishOutcome } from "../../agent/forward/classify.ts";
import { DaprClient, type Publisher } from "../../agent/forward/dapr-client.ts";
import { Forwarder } from "../../agent/forward/forwarder.ts";
import type { ForwarderOptions } from "../../agent/forward/forwarder-options.ts";
import { systemClock } from "../../agent/kernel/service.ts";

export const TOPIC = "migration.order.changed";
export const DLQ = "migration.dlq";
export const CONTROL = "migration.control";

export interface EventFields {
  readonly key: string;
  readonly queue?: string;
  readonly lane?: Lane;
  readonly topic?: string;
  readonly barrier?: boolean;
  readonly oversize?: boolean;
  readonly bytes?: number;
  readonly op?: OutboundEvent["op"];
}

let made = 0;

export function eventOf(fields: EventFields): OutboundEvent {
  const id = `e${++made}`;
  const queue = fields.queue ?? TOPIC;
  const cloudEvent = JSON.stringify({ id, key: fields.key, pad: "x".repeat(fields.bytes ?? 10) });
  return {
    kind: fields.barrier === true ? "control" : "entity",
    queue,
    lane: fields.lane ?? "live",
    topic: fields.topic ?? queue,
    table: "sales_order",
    op: fields.op ?? "u",
    id,
    entityKey: fields.key,
    commitTimeMs: Date.now(),
    capturedAtMs: Date.now(),
    barrier: fields.barrier ?? false,
    oversize: fields.oversize ?? false,
    payload: Buffer.from(JSON.stringify(cloudEvent)),
  };
}

/** A quarantine without a disk; it looks at sequences as the real one does. */
export class MemoryQuarantine implements QuarantineRoom {
  events: QuarantinedEvent[] = [];

  get count(): number {
    return this.events.length;
  }

  add(event: SpooledEvent, verdict: QuarantineVerdict): void {
    const others = this.events.filter((one) => !isSame(one.event, event));
    this.events = [...others, { event, verdict, quarantinedAtMs: 0, overtakenBy: null, resync: null }];
  }

  has(queue: string, seq: Seq, lane: Lane = "live"): boolean {
    return this.events.some(({ event }) => event.queue === queue && event.seq === seq && event.lane === lane);
  }

  async find(id: string): Promise<QuarantinedEvent | null> {
    await new Promise((resolve) => setImmediate(resolve));
    return this.events.find(({ event }) => event.id === id) ?? null;
  }

  concerns(event: SpooledEvent): boolean {
    return this.events.some((one) => one.event.entityKey === event.entityKey);
  }

  accepted(event: SpooledEvent, sequence: string | null): void {
    this.events = this.events
      .filter((one) => !isSame(one.event, event))
      .map((one) => {
        const own = one.verdict.about?.sequence ?? null;
        const isOlder = sequence !== null && own !== null && own < sequence;
        return one.event.entityKey === event.entityKey && isOlder ? { ...one, overtakenBy: sequence } : one;
      });
  }
}

function isSame(one: SpooledEvent, other: SpooledEvent): boolean {
  return one.queue === other.queue && one.lane === other.lane && one.seq === other.seq;
}

class MemoryLane {
  readonly queue: string;
  readonly lane: Lane;
  readonly events: SpooledEvent[] = [];
  acked: Seq = 0;
  barrierAt: Seq = 0;
  unboundThrough: Seq = 0;

  constructor(queue: string, lane: Lane) {
    this.queue = queue;
    this.lane = lane;
  }

  push(event: OutboundEvent, other: MemoryLane | null): void {
    const seq = this.events.length + 1;
    const barrierBefore = this.lane === "bulk" ? (other?.barrierAt ?? 0) : 0;
    const otherLaneThrough = event.barrier ? (other?.events.length ?? 0) : barrierBefore;
    if (event.barrier) this.barrierAt = seq;
    this.events.push({ ...event, seq, otherLaneThrough });
  }

  state(): QueueState {
    const { queue, lane, acked, unboundThrough } = this;
    const last = this.events.length;
    return { queue, lane, acked, last, readable: last, unboundThrough };
  }
}

/** A spool without a disk, which checks what the forwarder owes it. */
export class MemoryQueues implements QueueReader {
  /** The live lane of a queue before its bulk lane. */
  readonly #lanes = new Map<string, MemoryLane>();
  readonly #listeners = new Set<(queues: readonly string[]) => void>();
  readonly quarantined = new MemoryQuarantine();
  /** Asked at each acknowledgement whether everything up to there is done. */
  onAck: (queue: string, through: Seq, lane: Lane) => void = () => undefined;
  failReadWith: Error | null = null;

  append(...events: readonly OutboundEvent[]): void {
    this.appendAll(events);
  }

  /** As `append`, for more than fit into a call's arguments. */
  appendAll(events: readonly OutboundEvent[]): void {
    const names = new Set<string>();
    for (const event of events) {
      const other = this.#find(event.queue, event.lane === "live" ? "bulk" : "live");
      this.#laneOf(event.queue, event.lane).push(event, other);
      names.add(event.queue);
    }
    this.tellGrown([...names]);
  }

  tellGrown(names: readonly string[]): void {
    for (const listener of this.#listeners) listener(names);
  }

  queues(): readonly QueueState[] {
    return Array.from(this.#lanes.values(), (lane) => lane.state());
  }

  async read(queue: string, after: Seq, limits: ReadLimits, lane: Lane): Promise<SpooledEvent[]> {
    await new Promise((resolve) => setImmediate(resolve));
    if (this.failReadWith !== null) throw this.failReadWith;
    const read: SpooledEvent[] = [];
    let bytes = 0;
    for (const event of this.#laneOf(queue, lane).events.slice(after, after + limits.maxEvents)) {
      bytes += event.payload.length;
      if (bytes > limits.maxBytes && read.length > 0) break;
      read.push(event);
    }
    return read;
  }

  ack(queue: string, through: Seq, lane: Lane): void {
    const state = this.#laneOf(queue, lane);
    assert.ok(through > state.acked && through <= state.events.length, "an acknowledgement moves forwards");
    this.onAck(queue, through, lane);
    state.acked = through;
  }

  async quarantine(event: SpooledEvent, verdict: QuarantineVerdict): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.quarantined.add(event, verdict);
  }

  onAppended(listener: (queues: readonly string[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  eventsOf(queue: string, lane: Lane = "live"): readonly SpooledEvent[] {
    return this.#laneOf(queue, lane).events;
  }

  /** As after a rewind of the live lane: what the bulk lane holds waits for nothing there any more. */
  unbindBulk(queue: string): void {
    const bulk = this.#laneOf(queue, "bulk");
    bulk.unboundThrough = bulk.events.length;
    this.tellGrown([queue]);
  }

  isEmpty(): boolean {
    return this.queues().every((state) => state.acked === state.last);
  }

  #find(queue: string, lane: Lane): MemoryLane | null {
    return this.#lanes.get(`${queue} ${lane}`) ?? null;
  }

  #laneOf(queue: string, lane: Lane): MemoryLane {
    const known = this.#find(queue, lane);
    if (known !== null) return known;
    if (lane === "bulk") this.#laneOf(queue, "live");
    const fresh = new MemoryLane(queue, lane);
    this.#lanes.set(`${queue} ${lane}`, fresh);
    return fresh;
  }
}

/** Of `eventOf`: its number stands for the sequence. */
function aboutOf(event: SpooledEvent): EventFacts {
  const sequence = event.id.slice(1).padStart(10, "0");
  const { entityKey: key, payload } = event;
  return { entity: "order", id: key, magentoId: key, sequence, bytes: payload.length };
}

export const encoder: ControlEncoder = {
  about: aboutOf,
  deadLetter: (event, verdict, withPayload = true) => ({
    ...eventOf({ key: "", queue: DLQ }),
    id: `dead-${event.id}`,
    payload: Buffer.from(
      JSON.stringify(
        JSON.stringify({ of: event.id, code: verdict.code, ...(withPayload ? { payload: "p" } : {}) }),
      ),
    ),
  }),
  heartbeat: (facts: HeartbeatFacts) => ({
    ...eventOf({ key: "", queue: CONTROL }),
    payload: Buffer.from(JSON.stringify(JSON.stringify(facts))),
  }),
};

export interface Told extends ForwardObserver {
  readonly lines: string[];
  readonly counts: { published: number; failed: number; batches: number; quarantined: number };
}

export function observerOf(): Told {
  const lines: string[] = [];
  const counts = { published: 0, failed: 0, batches: 0, quarantined: 0 };
  return {
    lines,
    counts,
    published: () => void counts.published++,
    publishFailed: () => void counts.failed++,
    batchSent: () => void counts.batches++,
    held: (topic, code) => void lines.push(`held ${topic} ${code}`),
    released: (topic) => void lines.push(`released ${topic}`),
    quarantined: () => void counts.quarantined++,
  };
}

/** Fails the test when two events of one entity are under way at once (invariant 5). */
export class WatchedPublisher implements Publisher {
  readonly #inner: Publisher;
  readonly #underWay = new Set<string>();
  violations = 0;
  largest = 0;
  mostAtOnce = 0;
  #atOnce = 0;

  constructor(inner: Publisher) {
    this.#inner = inner;
  }

  async publishBulk(topic: string, events: readonly OutboundEvent[]): Promise<PublishOutcome> {
    const keys = events
      .filter((event) => event.kind === "entity" && event.queue !== DLQ)
      .map((event) => event.entityKey);
    for (const key of keys) {
      if (this.#underWay.has(key)) this.violations++;
      this.#underWay.add(key);
    }
    this.largest = Math.max(this.largest, events.length);
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#atOnce);
    const outcome = await this.#inner.publishBulk(topic, events);
    this.#atOnce--;
    for (const key of keys) this.#underWay.delete(key);
    return outcome;
  }

  reachable(): Promise<boolean> {
    return this.#inner.reachable();
  }

  resetConnections(): Promise<void> {
    return this.#inner.resetConnections();
  }
}

export const options: ForwarderOptions = {
  batchSize: 20,
  syncIntervalMs: 5,
  maxRetries: 3,
  quarantineMax: 100,
  rateMax: null,
  heartbeat: null,
};

export interface Rig {
  readonly queues: MemoryQueues;
  readonly forwarder: Forwarder;
  readonly told: Told;
  readonly publisher: WatchedPublisher;
  readonly client: DaprClient;
  /** What run() came to. */
  readonly ended: Promise<void>;
  /** Resolves when all is acknowledged; fails after the time. */
  drained(timeoutMs?: number): Promise<void>;
  stop(): Promise<void>;
}

export interface RigOptions extends Partial<ForwarderOptions> {
  readonly endpoint: string;
  readonly token?: () => string | null;
  readonly headersMs?: number;
}

/** A running forwarder between a spool in memory and a Dapr API. */
export function startRig({ endpoint, token, headersMs = 2000, ...changes }: RigOptions): Rig {
  const limits = { connectMs: 1000, headersMs, bodyMs: headersMs };
  const client = new DaprClient(
    { endpoint, pubsub: "pubsub", token: token ?? (() => null), limits },
    systemClock,
  );
  const publisher = new WatchedPublisher(client);
  const queues = new MemoryQueues();
  const told = observerOf();
  const parts = { reader: queues, publisher, encoder, observer: told, clock: systemClock };
  const forwarder = new Forwarder(parts, { ...options, ...changes });
  const ended = forwarder.run();
  // Whoever stops the rig sees the failure; until then it is nobody's.
  ended.catch(() => undefined);
  return {
    queues,
    forwarder,
    told,
    publisher,
    client,
    ended,
    drained: (timeoutMs = 20_000) => until(() => queues.isEmpty(), "the queues are empty", timeoutMs),
    stop: async () => {
      await forwarder.stop();
      await client.close();
      await ended;
    },
  };
}

export async function until(isTrue: () => boolean, what: string, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!isTrue()) {
    if (performance.now() > deadline) throw new Error(`not in ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** mulberry32: the same numbers for the same seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
