/**
 * What was delivered, in the order in which the broker took it, and what must hold for any such
 * history: one id, one change; the events of an entity first arrive in the order of their sequences;
 * no dead letters.
 */
import { isDeepStrictEqual } from "node:util";
import type { RedisServer, StreamEntry } from "../servers/redis.ts";
import { entities } from "./entities.ts";
import type { Random } from "./random.ts";

type Json = Readonly<Record<string, unknown>>;

export interface DeliveredEvent {
  readonly topic: string;
  /** Place in the broker's stream. */
  readonly entry: string;
  /** The wire's bytes as text. */
  readonly raw: string;
  readonly event: Json;
  readonly data: Json;
}

export const deadLetterTopic = "migration.dlq";
export const controlTopic = "migration.control";

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: unknown, what: string): Json {
  if (!isObject(value)) throw new Error(`${what} is not an object`);
  return value;
}

function stringOf(object: Json, name: string): string {
  const value = object[name];
  if (typeof value !== "string")
    throw new Error(`"${name}" is not a string in ${JSON.stringify(object).slice(0, 200)}`);
  return value;
}

export function parseDelivered(topic: string, entry: string, raw: string): DeliveredEvent {
  const event = objectOf(JSON.parse(raw), `entry ${entry} of ${topic}`);
  return { topic, entry, raw, event, data: objectOf(event["data"], `data of entry ${entry} of ${topic}`) };
}

/** Where events are read from: a Redis with the streams that Dapr's component writes. */
export type Streams = Pick<RedisServer, "streamEntries" | "streamLength">;

/** All entries of a stream, oldest first, read in steps. */
export async function* allEntries(streams: Streams, stream: string): AsyncGenerator<StreamEntry> {
  const count = 300;
  let from = "-";
  while (true) {
    const entries = await streams.streamEntries(stream, { from, count });
    yield* entries;
    const last = entries.at(-1);
    if (last === undefined || entries.length < count) return;
    from = `(${last.id}`;
  }
}

/** Every event of the entity topics, topic by topic. */
export async function readHistory(streams: Streams): Promise<DeliveredEvent[]> {
  const delivered: DeliveredEvent[] = [];
  for (const { topic } of entities) {
    for await (const entry of allEntries(streams, topic)) {
      const raw = entry.fields["data"];
      if (raw === undefined) throw new Error(`entry ${entry.id} of ${topic} has no data field`);
      delivered.push(parseDelivered(topic, entry.id, raw));
    }
  }
  return delivered;
}

/** What may differ between two deliveries of one change: when it was captured, nothing else. */
function withoutCapture(event: Json): Json {
  const { synced_at: _capturedAt, ...data } = objectOf(event["data"], "data");
  return { ...event, data };
}

function checkEnvelope(delivered: DeliveredEvent): string | null {
  const { event, data } = delivered;
  const faults: string[] = [];
  if (event["id"] !== data["event_id"]) faults.push("id is not data.event_id");
  if (event["subject"] !== data["id"]) faults.push("subject is not data.id");
  if (event["sequence"] !== data["sequence"]) faults.push("sequence is not data.sequence");
  if (event["topic"] !== delivered.topic) faults.push(`topic says ${JSON.stringify(event["topic"])}`);
  if (event["specversion"] !== "1.0") faults.push("specversion is not 1.0");
  return faults.length === 0 ? null : `${delivered.topic} ${delivered.entry}: ${faults.join(", ")}`;
}

export interface HistoryReport {
  readonly events: number;
  readonly distinct: number;
  readonly problems: readonly string[];
}

/** Checks a whole history; `problems` is empty when everything holds. */
export function checkHistory(history: readonly DeliveredEvent[]): HistoryReport {
  const problems: string[] = [];
  const first = new Map<string, DeliveredEvent>();
  const newest = new Map<string, DeliveredEvent>();
  const places = new Map<string, string>();
  for (const delivered of history) {
    const fault = checkEnvelope(delivered);
    if (fault !== null) problems.push(fault);
    const id = stringOf(delivered.event, "id");
    const earlier = first.get(id);
    if (earlier !== undefined) {
      if (!isDeepStrictEqual(withoutCapture(earlier.event), withoutCapture(delivered.event))) {
        problems.push(
          `two different changes share the id ${id}: ${earlier.topic} ${earlier.entry} and ${delivered.entry}`,
        );
      }
      continue;
    }
    first.set(id, delivered);
    const entity = `${stringOf(delivered.data, "entity")} ${stringOf(delivered.data, "id")}`;
    const sequence = stringOf(delivered.data, "sequence");
    // Rows that were read go by a lane of their own: between the lanes there is no order.
    const lane = `${entity} ${delivered.data["op"] === "r" ? "bulk" : "live"}`;
    const last = newest.get(lane);
    if (last !== undefined && stringOf(last.data, "sequence") >= sequence) {
      problems.push(
        `${entity}: entry ${delivered.entry} (${sequence}) first came after ${last.entry} (${stringOf(last.data, "sequence")})`,
      );
    }
    newest.set(lane, delivered);
    const place = `${entity} ${sequence}`;
    const holder = places.get(place);
    if (holder !== undefined) problems.push(`${entity}: events ${holder} and ${id} share one sequence`);
    places.set(place, id);
  }
  return { events: history.length, distinct: first.size, problems };
}

/** Dead letters in the broker; a healthy run has none. */
export function deadLetters(streams: Streams): Promise<number> {
  return streams.streamLength(deadLetterTopic);
}

/** The history in another order, with a share of it delivered twice. */
export function shuffledWithDoubles<T>(random: Random, history: readonly T[], doubled: number): T[] {
  const again = history.filter(() => random.chance(doubled));
  return random.shuffled([...history, ...again]);
}
