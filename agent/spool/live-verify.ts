/**
 * Proof of an open spool, beside its work: its tables' blocks, then every record that waits, the
 * quarantine and the index, in small steps at a bounded pace. What is acknowledged, appended or
 * compacted meanwhile is no fault.
 */
import type { Seq } from "../change.ts";
import type { Clock } from "../kernel/service.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { entriesOf, isCorruption } from "./database.ts";
import type { Database, KeyRange } from "./database.ts";
import { damagedTables, tableBytes } from "./database-files.ts";
import { indexRoom, parseQuarantineKey, parseQueueKey, quarantineRoom } from "./keys.ts";
import { databasePath } from "./opening.ts";
import type { Queue, Queues } from "./queue.ts";
import { recordAtOrBefore } from "./reading.ts";
import { decodeQuarantined, openFrame, placeIn, RunReader } from "./record.ts";
import { laneRange } from "./segments.ts";
import { faultOf, MAX_FAULTS, type QueueReport, type SpoolFault, type SpoolReport } from "./verify.ts";

/** Of one second; a disk that is the database's has more to do. */
const BYTES_PER_SECOND = 20 * 1024 * 1024;
const STEP_RECORDS = 200;

export interface LiveProof {
  /** Bytes read so far, and about how many there were at the beginning. */
  readonly bytes: number;
  readonly ofBytes: number;
  /** Null while it is under way. */
  readonly report: SpoolReport | null;
}

export interface LiveVerifyParts {
  readonly stateDir: string;
  readonly database: Database;
  readonly queues: Queues;
  readonly clock: Clock;
  /** The spool closes. */
  readonly signal: AbortSignal;
}

export class LiveVerify {
  readonly #parts: LiveVerifyParts;
  readonly #faults: SpoolFault[] = [];
  readonly #reports: QueueReport[] = [];
  #bytes = 0;
  #ofBytes = 0;
  #report: SpoolReport | null = null;

  constructor(parts: LiveVerifyParts) {
    this.#parts = parts;
  }

  get proof(): LiveProof {
    return { bytes: this.#bytes, ofBytes: Math.max(this.#bytes, this.#ofBytes), report: this.#report };
  }

  /** Resolves when the report stands, or the spool closes. Rejects when the disk fails. */
  async run(): Promise<void> {
    const path = databasePath(this.#parts.stateDir);
    try {
      // Each table is read twice: by its blocks, and by its records.
      this.#ofBytes = 2 * (await tableBytes(path));
      for await (const { name, what } of damagedTables(path, (bytes) => this.#paced(bytes))) {
        this.#fault(faultOf(`${name}: ${what}`));
      }
      const nothing = { queues: [], quarantined: 0, indexRecords: 0, faults: this.#faults };
      // To read records of a damaged table could end the process.
      this.#report = this.#faults.length > 0 ? nothing : await this.#records();
    } catch (error) {
      if (!this.#parts.signal.aborted) throw error;
    }
  }

  async #records(): Promise<SpoolReport> {
    for (const queue of this.#parts.queues.all) await this.#queue(queue);
    const quarantined = await this.#room(quarantineRoom, (key, value) => {
      const place = parseQuarantineKey(key);
      const named = place === null ? null : this.#parts.queues.byTag(place.tag, place.lane);
      const lane = place?.lane ?? "live";
      return decodeQuarantined(key, value, { queue: named?.name ?? "", lane, seq: place?.seq ?? 0 });
    });
    const indexRecords = await this.#room(indexRoom, openFrame);
    return { queues: this.#reports, quarantined, indexRecords, faults: this.#faults };
  }

  /** From what is acknowledged now to the end that it has when it is reached. */
  async #queue(queue: Queue): Promise<void> {
    const { name, lane } = queue;
    const report: QueueReport = {
      queue: name,
      lane,
      acked: queue.acked,
      last: queue.durable,
      events: 0,
      bytes: 0,
    };
    this.#reports.push(report);
    const head = await recordAtOrBefore(this.#parts.database, queue, queue.acked + 1);
    let next: Seq = head?.first ?? queue.acked + 1;
    // How many events a damaged record held is unknown: what follows it tells.
    let isSure = true;
    while (next <= queue.durable && queue.damagedAt === null) {
      const before = next;
      const segment = queue.segments.of(next);
      const end = queue.segments.endIn(segment, queue.durable);
      const range = laneRange(segment, queue, next, end);
      let stepBytes = 0;
      for await (const [key, value] of this.#step(range)) {
        stepBytes += key.length + value.length;
        const first = parseQueueKey(key)?.seq ?? next;
        if (first > next && isSure) this.#missing(queue, next, first - 1);
        const last = this.#run(queue, key, value, report);
        isSure = last !== null;
        next = (last ?? first) + 1;
      }
      await this.#paced(stepBytes);
      if (next === before) {
        // Nothing stands there: it is missing, or was acknowledged and deleted meanwhile.
        if (isSure) this.#missing(queue, next, end);
        next = end + 1;
      }
    }
    if (queue.damagedAt !== null)
      this.#fault({ queue: name, lane, seq: queue.damagedAt, what: "it is damaged, and being healed" });
  }

  /** The record's last number; null where it is damaged. */
  #run(queue: Queue, key: Buffer, value: Buffer, report: QueueReport): Seq | null {
    const first = parseQueueKey(key)?.seq ?? 0;
    try {
      const run = new RunReader(key, value, placeIn(queue, first));
      while (run.next <= run.last) run.read();
      report.events += run.last - Math.max(first - 1, Math.min(run.last, report.acked));
      report.bytes += key.length + value.length;
      return run.last;
    } catch (error) {
      if (first > queue.acked)
        this.#fault({ queue: queue.name, lane: queue.lane, seq: first, what: sentenceOf(error) });
      return null;
    }
  }

  async #room(
    room: Pick<KeyRange, "gte" | "lte">,
    check: (key: Buffer, value: Buffer) => unknown,
  ): Promise<number> {
    let count = 0;
    let from: Buffer | null = room.gte;
    while (from !== null) {
      let stepBytes = 0;
      let last: Buffer | null = null;
      for await (const [key, value] of this.#step({ gte: from, lte: room.lte })) {
        stepBytes += key.length + value.length;
        count += 1;
        last = key;
        try {
          check(key, value);
        } catch (error) {
          this.#fault(faultOf(`a record ${key.toString("hex")}: ${sentenceOf(error)}`));
        }
      }
      // The next possible key.
      from = last === null ? null : Buffer.concat([last, Buffer.alloc(1)]);
      await this.#paced(stepBytes);
    }
    return count;
  }

  /** An iterator that lives long would keep what is deleted meanwhile on the disk. */
  async *#step(range: Pick<KeyRange, "gte" | "lte">): AsyncGenerator<[Buffer, Buffer]> {
    try {
      yield* entriesOf(this.#parts.database, { ...range, limit: STEP_RECORDS });
    } catch (error) {
      if (!isCorruption(error)) throw error;
      this.#fault(faultOf("a table of the database is damaged"));
    }
  }

  async #paced(bytes: number): Promise<void> {
    const { clock, signal } = this.#parts;
    this.#bytes += bytes;
    await clock.sleep((bytes / BYTES_PER_SECOND) * 1000, signal);
    signal.throwIfAborted();
  }

  #missing(queue: Queue, from: Seq, through: Seq): void {
    const lost = Math.max(from, queue.acked + 1);
    if (lost > through) return;
    const what = lost === through ? "it is missing" : `it is missing, as is all up to ${through}`;
    this.#fault({ queue: queue.name, lane: queue.lane, seq: lost, what });
  }

  #fault(fault: SpoolFault): void {
    if (this.#faults.length < MAX_FAULTS) this.#faults.push(fault);
  }
}

function sentenceOf(error: unknown): string {
  if (error instanceof DamagedRecord) return error.damage;
  throw error;
}
