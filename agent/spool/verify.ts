/**
 * Offline proof of a whole spool: every record of every queue, the quarantine and the index, read
 * once in the order of their keys. For `spool verify`, while no agent runs.
 */
import type { Lane, Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { entriesOf, isCorruption, levelDatabase, openError } from "./database.ts";
import type { Database, KeyRange } from "./database.ts";
import { damagedTables, missingFile } from "./database-files.ts";
import { indexRoom, parseQuarantineKey, parseQueueKey, quarantineRoom, queueRoom } from "./keys.ts";
import { databasePath } from "./opening.ts";
import { Queues } from "./queue.ts";
import type { Queue } from "./queue.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { decodeQuarantined, openFrame, placeIn, RunReader } from "./record.ts";
import { readMarker } from "./marker.ts";
import { readState, refuseOther } from "./state.ts";

export interface SpoolFault {
  /** "" where no queue is known. */
  readonly queue: string;
  readonly lane: Lane | null;
  readonly seq: Seq | null;
  readonly what: string;
}

export interface QueueReport {
  readonly queue: string;
  readonly lane: Lane;
  readonly acked: Seq;
  readonly last: Seq;
  /** Sound records that wait. */
  events: number;
  bytes: number;
}

export interface SpoolReport {
  readonly queues: readonly QueueReport[];
  readonly quarantined: number;
  readonly indexRecords: number;
  /** The first thousand. Empty: the spool is sound. */
  readonly faults: readonly SpoolFault[];
}

export const MAX_FAULTS = 1000;

/**
 * Reads everything and reports; damage is a fault of the report, not an error, also when the state
 * cannot be opened at all. Throws SPOOL_LOCKED while an agent runs, SPOOL_FORMAT for a newer state.
 * Memory does not depend on the size of the spool.
 */
export async function verifySpool(stateDir: string): Promise<SpoolReport> {
  const marker = await readMarker(stateDir);
  if (typeof marker === "object") refuseOther(marker.formatVersion);
  const path = databasePath(stateDir);
  const missing = await missingFile(path).catch(() => "all");
  if (missing !== null) return unopened(missing === "all" ? "it is gone" : `${missing} is missing`);
  const tables: SpoolFault[] = [];
  for await (const { name, what } of damagedTables(path)) tables.push(faultOf(`${name}: ${what}`));
  // To read on could end this process. The agent repairs the database when it starts.
  if (tables.length > 0) return { ...nothingRead, faults: tables.slice(0, MAX_FAULTS) };
  const database = levelDatabase(path, { createIfMissing: false });
  try {
    await database.open();
    return await new Verification(database).run();
  } catch (error) {
    const known = error instanceof AgentError ? error : openError(error, stateDir);
    if (known.code !== "SPOOL_CORRUPT") throw known;
    return unopened(known.message);
  } finally {
    await database.close();
  }
}

function unopened(what: string): SpoolReport {
  return { ...nothingRead, faults: [faultOf(`the database: ${what}`)] };
}

const nothingRead = { queues: [], quarantined: 0, indexRecords: 0 } as const;

/** Of no known queue. */
export function faultOf(what: string): SpoolFault {
  return { queue: "", lane: null, seq: null, what };
}

class Verification {
  readonly #database: Database;
  readonly #queues = new Queues();
  readonly #reports = new Map<Queue, QueueReport>();
  readonly #faults: SpoolFault[] = [];
  /** The number that the next record of each queue must have. */
  readonly #next = new Map<Queue, Seq>();
  /** Queues whose last record seen is damaged: where the next one begins is not known. */
  readonly #afterDamage = new Set<Queue>();

  constructor(database: Database) {
    this.#database = database;
  }

  async run(): Promise<SpoolReport> {
    await this.#restore();
    await this.#scan(queueRoom, (key, value) => this.#event(key, value));
    for (const [queue, next] of this.#next) {
      if (next <= queue.durable && !this.#afterDamage.has(queue)) this.#missing(queue, next, queue.durable);
    }
    const quarantined = await this.#scan(quarantineRoom, (key, value) => this.#quarantined(key, value));
    const indexRecords = await this.#scan(indexRoom, (key, value) => {
      try {
        openFrame(key, value);
      } catch (error) {
        this.#fault({ queue: "", lane: null, seq: null, what: `an index record: ${sentenceOf(error)}` });
      }
    });
    return { queues: [...this.#reports.values()], quarantined, indexRecords, faults: this.#faults };
  }

  async #restore(): Promise<void> {
    const state = await readState(this.#database);
    for (const record of state.damaged) {
      this.#fault({ queue: "", lane: null, seq: null, what: `the state's record ${record}` });
    }
    if (state.format === null)
      this.#fault({ queue: "", lane: null, seq: null, what: "the state's format is missing" });
    for (const [tag, lane, name] of state.queues?.names ?? []) this.#queues.restore(name, tag, lane);
    for (const [tag, lane, acked] of state.cursors?.acked ?? []) {
      const queue = this.#queues.byTag(tag, lane);
      if (queue !== null) queue.acked = acked;
    }
    for (const [tag, lane, last] of state.progress?.ends ?? []) {
      const queue = this.#queues.byTag(tag, lane);
      if (queue !== null) queue.durable = last;
    }
    for (const queue of this.#queues.all) {
      queue.durable = Math.max(queue.durable, queue.acked);
      this.#next.set(queue, queue.acked + 1);
      this.#reports.set(queue, {
        queue: queue.name,
        lane: queue.lane,
        acked: queue.acked,
        last: queue.durable,
        events: 0,
        bytes: 0,
      });
    }
  }

  async #scan(
    room: Pick<KeyRange, "gte" | "lte">,
    visit: (key: Buffer, value: Buffer) => void,
  ): Promise<number> {
    let count = 0;
    try {
      for await (const [key, value] of entriesOf(this.#database, room)) {
        visit(key, value);
        count += 1;
      }
    } catch (error) {
      if (!isCorruption(error)) throw error;
      this.#fault({ queue: "", lane: null, seq: null, what: "a table of the database is damaged" });
    }
    return count;
  }

  #event(key: Buffer, value: Buffer): void {
    const place = parseQueueKey(key);
    const queue = place === null ? null : this.#queues.byTag(place.tag, place.lane);
    if (place === null || queue === null) {
      this.#fault({ queue: "", lane: null, seq: place?.seq ?? null, what: "a record of an unknown queue" });
      return;
    }
    let run: RunReader;
    try {
      run = new RunReader(key, value, placeIn(queue, place.seq));
    } catch (error) {
      this.#damagedRun(queue, place.seq, sentenceOf(error));
      return;
    }
    this.#sequence(queue, run);
    try {
      while (run.next <= run.last) run.read();
    } catch (error) {
      this.#fault({ queue: queue.name, lane: queue.lane, seq: run.next, what: sentenceOf(error) });
      return;
    }
    // Events that are acknowledged stand in a record until all of it is.
    const waiting = run.last - Math.max(run.first - 1, queue.acked);
    const report = this.#reports.get(queue);
    if (report === undefined || waiting <= 0) return;
    report.events += waiting;
    report.bytes += key.length + value.length;
  }

  #sequence(queue: Queue, run: RunReader): void {
    if (run.last <= queue.acked) return;
    const next = this.#next.get(queue) ?? run.first;
    if (run.last > queue.durable)
      this.#fault({ queue: queue.name, lane: queue.lane, seq: run.last, what: "no checkpoint covers it" });
    else if (run.first > next && !this.#afterDamage.has(queue)) this.#missing(queue, next, run.first - 1);
    this.#afterDamage.delete(queue);
    this.#next.set(queue, run.last + 1);
  }

  /** How many events it held is unknown; what follows it tells. */
  #damagedRun(queue: Queue, seq: Seq, what: string): void {
    if (queue.acked >= seq && queue.acked === queue.durable) return;
    const next = this.#next.get(queue) ?? seq;
    if (seq > next) this.#missing(queue, next, seq - 1);
    this.#fault({ queue: queue.name, lane: queue.lane, seq, what });
    this.#next.set(queue, Math.max(next, seq + 1));
    this.#afterDamage.add(queue);
  }

  #quarantined(key: Buffer, value: Buffer): void {
    const place = parseQuarantineKey(key);
    const lane = place?.lane ?? "live";
    const queue = place === null ? "" : (this.#queues.byTag(place.tag, lane)?.name ?? "");
    const seq = place?.seq ?? null;
    try {
      decodeQuarantined(key, value, { queue, lane, seq: seq ?? 0 });
    } catch (error) {
      this.#fault({ queue, lane, seq, what: `in quarantine: ${sentenceOf(error)}` });
    }
  }

  #missing(queue: Queue, from: Seq, through: Seq): void {
    const what = from === through ? "it is missing" : `it is missing, as is all up to ${through}`;
    this.#fault({ queue: queue.name, lane: queue.lane, seq: from, what });
  }

  #fault(fault: SpoolFault): void {
    if (this.#faults.length < MAX_FAULTS) this.#faults.push(fault);
  }
}

function sentenceOf(error: unknown): string {
  if (error instanceof DamagedRecord) return error.damage;
  throw error;
}
