import { createHash } from "node:crypto";

/** Numbers from a seed, between 0 and 1; the same seed gives the same test again. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A new order of the same things. */
export function shuffled<T>(things: readonly T[], random: () => number): T[] {
  return things
    .map((thing) => ({ thing, key: random() }))
    .sort((a, b) => a.key - b.key)
    .map((one) => one.thing);
}

/** A sequence as wide as the contract's, growing with `n`. */
export function sequenceAt(n: number): string {
  return `1700000000.0000000001.${String(n).padStart(16, "0")}.1.000000.0000000000.1`;
}

export interface CloudEvent {
  readonly id: string;
  readonly type: string;
  readonly time: string;
  readonly sequence: string | null;
  readonly data: Readonly<Record<string, unknown>>;
}

const types = { c: "created", u: "updated", d: "deleted", r: "read" } as const;

/** What a resync did not find is gone: all of the entity, a range of its keys, or some of them. */
export function rangeCloudEvent(
  entity: string,
  n: number,
  scope: {
    readonly from: string | null;
    readonly to: string | null;
    readonly keys: readonly number[] | null;
  },
): CloudEvent {
  const keys = scope.keys?.map((key) => ({ id: entityId(entity, key), magento_id: key })) ?? null;
  return {
    id: `range-${entity}-${n}`,
    type: "magento.range",
    time: new Date(1_700_000_000_000 + n).toISOString(),
    sequence: sequenceAt(n),
    data: { ...scope, keys, entity, sequence: sequenceAt(n) },
  };
}

export function entityId(entity: string, key: number): string {
  return createHash("sha256").update(`${entity}:${key}`).digest("hex").slice(0, 32);
}

export interface EntityFacts {
  readonly entity: string;
  readonly op: "c" | "u" | "d" | "r";
  readonly key: number;
  readonly n: number;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** An entity event as the agent writes it, less what the rule does not read. */
export function entityCloudEvent(facts: EntityFacts): CloudEvent {
  const { entity, op, key, n } = facts;
  const id = entityId(entity, key);
  const eventId = createHash("sha256").update(`${entity}:${key}:${n}`).digest("hex").slice(0, 32);
  return {
    id: eventId,
    type: `magento.${entity}.${types[op]}`,
    time: new Date(1_700_000_000_000 + n).toISOString(),
    sequence: sequenceAt(n),
    data: {
      op,
      entity,
      id,
      magento_id: key,
      shop: "magento",
      source: "magento",
      event_id: eventId,
      sequence: sequenceAt(n),
      schema_version: 1,
      synced_at: "2026-01-01T00:00:00Z",
      ...facts.fields,
      ...(op === "u" ? { changed: ["total_amount"], before: { total_amount: "0.0000" } } : {}),
      origin: { table: "sales_order" },
    },
  };
}

/** A table was truncated. */
export function resetCloudEvent(entity: string, n: number): CloudEvent {
  return {
    id: `reset-${entity}-${n}`,
    type: "magento.reset",
    time: new Date(1_700_000_000_000 + n).toISOString(),
    sequence: sequenceAt(n),
    data: { entity, table: entity, reason: "TRUNCATE" },
  };
}

/** The body of a raw bulk publish, as the forwarder writes it. */
export function rawBulk(topic: string, events: readonly CloudEvent[]): string {
  return JSON.stringify(
    events.map((event, index) => ({
      // A doubled event may stand twice in one bulk; daprd wants each entryId once.
      entryId: `${event.id}-${index}`,
      contentType: "text/plain",
      event: JSON.stringify({
        specversion: "1.0",
        source: "/magento/test/magento_db",
        subject: "test",
        datacontenttype: "application/json",
        topic,
        pubsubname: "pubsub",
        ...event,
      }),
    })),
  );
}
