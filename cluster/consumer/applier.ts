/**
 * What a consumer of magento-edge-agent does, on SQLite and without Dapr:
 *
 *     apply an event if its sequence is greater than the one stored for that id
 *
 * A deleted entity stays as a tombstone with its sequence, so that an older event that comes later
 * does not bring it back. A reset (the table was truncated, dropped, made or replaced) and a range (what a
 * snapshot or resync did not find) stay as floors: everything below them is deleted, also when it
 * comes later. So the state after any set of events is the same in whatever order and however often
 * they were delivered. Digests are compared with what is here (verifications.ts), and change nothing but
 * the sequence of what nobody sent.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { entityEvent, optionalText, text, type DeliveredEvent, type EntityEvent } from "./event.ts";
import { flooredBy, Floors, isWithin, type KeyRange } from "./floors.ts";
import { allRows, countOf, openDatabase } from "./schema.ts";
import { defaultVerifyOptions, Verifications, type VerifyOptions } from "./verifications.ts";
import { digestOf, driftsOf, verifiedOf, type VerificationReport } from "./verification-tables.ts";

/** Field names per entity that are emptied when the entity is deleted. */
export type PersonalFields = Readonly<Record<string, readonly string[]>>;

export type Verdict = "applied" | "stale" | "recorded" | "repeated";

/** An entity as it is stored. A tombstone holds what its delete carried, personal fields emptied. */
export interface StoredEntity {
  readonly entity: string;
  readonly id: string;
  readonly magentoId: string | number;
  readonly deleted: boolean;
  readonly sequence: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface Statistics {
  /** Live and deleted entities, by entity. */
  readonly entities: Readonly<Record<string, { readonly live: number; readonly deleted: number }>>;
  /** Since this process started. */
  readonly applied: number;
  /** Not newer than what was stored: repeats and events that were overtaken. */
  readonly stale: number;
  readonly controlEvents: number;
  readonly deadLetters: number;
  /** Those that are kept, and the drifted rows that they found. */
  readonly verifications: { readonly open: number; readonly complete: number; readonly drifts: number };
  /** Newest heartbeat of each agent instance; two recent ones mean two agents for one shop. */
  readonly heartbeats: readonly {
    readonly instance: string;
    readonly time: string;
    readonly data: unknown;
  }[];
}

const deadLetterType = "magento.dead-letter";
const heartbeatType = "magento.heartbeat";
const resetType = "magento.reset";
const rangeType = "magento.range";
const digestType = "magento.digest";
const verifiedType = "magento.verified";
const entityType = /^magento\..+\.(created|updated|deleted|read)$/;

/** Owns the database file. Synchronous: a caller batches many deliveries into one transaction. */
export class Applier {
  readonly #database: DatabaseSync;
  readonly #personal: PersonalFields;
  readonly #statements: Statements;
  readonly #floors: Floors;
  #applied = 0;
  #stale = 0;
  readonly #verifications: Verifications;

  constructor(file: string, personal: PersonalFields, verify: VerifyOptions = defaultVerifyOptions) {
    this.#database = openDatabase(file);
    this.#personal = personal;
    this.#statements = prepare(this.#database);
    this.#floors = new Floors(this.#database);
    this.#verifications = new Verifications(this.#database, verify);
  }

  /**
   * Runs `work` in one transaction: everything it applied is there when this returns, or nothing of
   * it when it throws.
   */
  inTransaction<T>(work: () => T): T {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (thrown) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      // A floor of the lost transaction may stand in memory.
      this.#floors.reload();
      this.#verifications.reload();
      throw thrown;
    }
  }

  /** Applies or records whatever comes from the entity topics and the control topic. */
  receive(event: DeliveredEvent): Verdict {
    if (entityType.test(event.type)) return this.applyEntity(entityEvent(event.data));
    if (event.type === deadLetterType) return this.recordDeadLetter(event);
    return this.applyControl(event);
  }

  /** The one-line rule. */
  applyEntity(event: EntityEvent): Verdict {
    this.#verifications.arrived(event.entity, event.sequence);
    const deleted = event.op === "d" || this.#floors.covers(event);
    const fields = deleted ? this.#withoutPersonal(event.entity, event.fields) : event.fields;
    const { changes } = this.#statements.upsert.run(
      event.entity,
      event.id,
      event.magentoId,
      event.sequence,
      deleted ? 1 : 0,
      JSON.stringify(fields),
    );
    if (Number(changes) === 0) {
      this.#stale += 1;
      return "stale";
    }
    this.#applied += 1;
    return "applied";
  }

  /**
   * Records a control event; a reset or a range also deletes what is older there, a digest is compared.
   * Of a digest its rows are not recorded.
   */
  applyControl(event: DeliveredEvent): Verdict {
    if (event.type === heartbeatType) {
      const instance = optionalText(event.data, "instance");
      this.#statements.heartbeat.run(instance, event.time, JSON.stringify(event.data));
      return "recorded";
    }
    if (event.type === resetType) {
      this.#raise(text(event.data, "entity"), { low: null, high: null }, sequenceOf(event));
    } else if (event.type === rangeType) this.#range(event);
    // Refused before anything of it is written.
    const digest = event.type === digestType ? digestOf(event.data) : null;
    const verified = event.type === verifiedType ? verifiedOf(event.data) : null;
    const { changes } = this.#statements.control.run(
      event.id,
      event.type,
      event.time,
      optionalText(event.data, "entity"),
      JSON.stringify(digest === null ? event.data : { ...event.data, rows: null }),
    );
    if (Number(changes) === 0) return "repeated";
    if (digest !== null) this.#verifications.digest(digest);
    if (verified !== null) this.#verifications.verified(verified);
    return "recorded";
  }

  /**
   * Records what arrived on the dead letter topic: the agent's own dead letters, and deliveries that
   * a consumer refused to the end (those are the original events).
   */
  recordDeadLetter(event: DeliveredEvent): Verdict {
    const byAgent = event.type === deadLetterType;
    const { changes } = this.#statements.deadLetter.run(
      event.id,
      byAgent ? "agent" : "consumer",
      event.time,
      optionalText(event.data, "entity"),
      optionalText(event.data, "id"),
      byAgent ? optionalText(event.data, "code") : "CONSUMER_REFUSED",
      JSON.stringify(event.data),
    );
    return Number(changes) === 0 ? "repeated" : "recorded";
  }

  get(entity: string, id: string): StoredEntity | null {
    const row = this.#statements.one.get(entity, id);
    return row === undefined ? null : storedEntity(row);
  }

  /** Every stored entity of that name, tombstones too, ordered by id. */
  *all(entity: string): Generator<StoredEntity> {
    for (const row of this.#statements.every.iterate(entity)) yield storedEntity(row);
  }

  /** Looks again at rows that did not agree with their digests; reports of the verifications that are complete now. */
  lookAgain(): VerificationReport[] {
    return this.#verifications.isIdle ? [] : this.inTransaction(() => this.#verifications.look());
  }

  /** Null: nothing of it came. */
  verification(instance: string, generation: number): VerificationReport | null {
    return this.#verifications.report(instance, generation);
  }

  /** The newest first, without their drifted rows. */
  verifications(): VerificationReport[] {
    return this.#verifications.all();
  }

  statistics(): Statistics {
    const verifications = this.verifications();
    const complete = verifications.filter((one) => one.complete).length;
    const drifts = verifications.reduce((sum, one) => sum + driftsOf(one), 0);
    const entities: Record<string, { live: number; deleted: number }> = {};
    for (const row of allRows(
      this.#database,
      "SELECT entity, sum(deleted) AS deleted, count(*) AS n FROM entities GROUP BY entity",
    )) {
      const deleted = Number(row["deleted"]);
      entities[String(row["entity"])] = { live: Number(row["n"]) - deleted, deleted };
    }
    return {
      entities,
      applied: this.#applied,
      stale: this.#stale,
      controlEvents: countOf(this.#database, "control"),
      deadLetters: countOf(this.#database, "dead_letters"),
      verifications: { open: verifications.length - complete, complete, drifts },
      heartbeats: allRows(
        this.#database,
        "SELECT instance, time, data FROM heartbeats ORDER BY time DESC",
      ).map((row) => ({
        instance: String(row["instance"]),
        time: String(row["time"]),
        data: JSON.parse(String(row["data"])),
      })),
    };
  }

  /** Throws when the database cannot be written. */
  probe(): void {
    this.inTransaction(() => this.#database.exec("PRAGMA user_version = 1"));
  }

  close(): void {
    this.#database.close();
  }

  #range(event: DeliveredEvent): void {
    const entity = text(event.data, "entity");
    const floored = flooredBy(event.data);
    const sequence = sequenceOf(event);
    if (!("length" in floored)) return this.#raise(entity, floored, sequence);
    for (const magentoId of floored) {
      if (!this.#floors.raiseKey(entity, magentoId, sequence)) continue;
      // Under whatever id, and also where somebody wrote the key in its other form.
      const forms = [String(magentoId), Number(magentoId)] as const;
      for (const row of this.#statements.belowOf.all(entity, ...forms, sequence))
        this.#bury(entity, storedEntity(row));
    }
  }

  #raise(entity: string, range: KeyRange, sequence: string): void {
    if (!this.#floors.raise(entity, range, sequence)) return;
    for (const row of this.#statements.below.all(entity, sequence)) {
      const stored = storedEntity(row);
      if (isWithin(stored.magentoId, range)) this.#bury(entity, stored);
    }
  }

  #bury(entity: string, stored: StoredEntity): void {
    const fields = JSON.stringify(this.#withoutPersonal(entity, stored.fields));
    this.#statements.bury.run(fields, entity, stored.id);
  }

  /** Of an entity that nobody described, every field is taken for personal. */
  #withoutPersonal(entity: string, fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
    const personal = this.#personal[entity];
    if (personal === undefined) return {};
    const kept: Record<string, unknown> = { ...fields };
    for (const name of personal) if (name in kept) kept[name] = null;
    return kept;
  }
}

interface Statements {
  readonly upsert: StatementSync;
  readonly one: StatementSync;
  readonly every: StatementSync;
  readonly below: StatementSync;
  readonly belowOf: StatementSync;
  readonly bury: StatementSync;
  readonly control: StatementSync;
  readonly heartbeat: StatementSync;
  readonly deadLetter: StatementSync;
}

function prepare(database: DatabaseSync): Statements {
  const row = "SELECT entity, id, magento_id, sequence, deleted, fields FROM entities";
  return {
    upsert: database.prepare(
      `INSERT INTO entities (entity, id, magento_id, sequence, deleted, fields) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (entity, id) DO UPDATE SET magento_id = excluded.magento_id,
         sequence = excluded.sequence, deleted = excluded.deleted, fields = excluded.fields
       WHERE excluded.sequence > entities.sequence`,
    ),
    one: database.prepare(`${row} WHERE entity = ? AND id = ?`),
    every: database.prepare(`${row} WHERE entity = ? ORDER BY id`),
    below: database.prepare(`${row} WHERE entity = ? AND sequence <= ? AND deleted = 0`),
    belowOf: database.prepare(
      `${row} WHERE entity = ? AND magento_id IN (?, ?) AND sequence <= ? AND deleted = 0`,
    ),
    bury: database.prepare("UPDATE entities SET deleted = 1, fields = ? WHERE entity = ? AND id = ?"),
    control: database.prepare(
      "INSERT INTO control (id, type, time, entity, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    ),
    heartbeat: database.prepare(
      `INSERT INTO heartbeats (instance, time, data) VALUES (?, ?, ?)
       ON CONFLICT (instance) DO UPDATE SET time = excluded.time, data = excluded.data
       WHERE excluded.time > heartbeats.time`,
    ),
    deadLetter: database.prepare(
      `INSERT INTO dead_letters (event_id, origin, time, entity, id, code, data) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (event_id) DO NOTHING`,
    ),
  };
}

function storedEntity(row: Record<string, unknown>): StoredEntity {
  const magentoId = row["magento_id"];
  return {
    entity: String(row["entity"]),
    id: String(row["id"]),
    magentoId: typeof magentoId === "number" ? magentoId : String(magentoId),
    deleted: row["deleted"] === 1,
    sequence: String(row["sequence"]),
    fields: JSON.parse(String(row["fields"])),
  };
}

/** A control event's sequence stands in the CloudEvent, and in data where the agent puts it there. */
function sequenceOf(event: DeliveredEvent): string {
  return event.sequence ?? text(event.data, "sequence");
}
