/**
 * What the oracle asks of a replica, and the smallest one that can be: a map that applies events by
 * the consumers' one-line rule. The product's reference consumer is read through the same interface.
 */

/** One entity as a consumer holds it. */
export interface ReplicaEntity {
  readonly entity: string;
  readonly id: string;
  readonly magentoId: string | number;
  readonly deleted: boolean;
  readonly sequence: string;
  /** Mapped fields alone, without the names of the envelope. */
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface Replica {
  get(entity: string, id: string): ReplicaEntity | null;
  all(entity: string): Iterable<ReplicaEntity>;
}

/** Names of `data` that are not fields of the entity. */
export const envelopeNames: ReadonlySet<string> = new Set([
  ..."op entity id magento_id source shop synced_at event_id sequence schema_version".split(" "),
  ..."changed before attributes origin omitted".split(" "),
]);

/** The flat mapped fields of an event's data. */
export function mappedFields(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(data).filter(([name]) => !envelopeNames.has(name)));
}

function text(data: Readonly<Record<string, unknown>>, name: string): string {
  const value = data[name];
  if (typeof value !== "string") throw new Error(`data.${name} is not a string`);
  return value;
}

/** A consumer in memory: an event is applied if its sequence is greater than the one stored. */
export class MemoryReplica implements Replica {
  readonly #entities = new Map<string, Map<string, ReplicaEntity>>();

  /** Returns whether the event was newer than what is stored. */
  apply(data: Readonly<Record<string, unknown>>): boolean {
    const entity = text(data, "entity");
    const id = text(data, "id");
    const sequence = text(data, "sequence");
    const magentoId = data["magento_id"];
    if (typeof magentoId !== "string" && typeof magentoId !== "number")
      throw new Error("data.magento_id is missing");
    const known = this.#entities.get(entity) ?? new Map<string, ReplicaEntity>();
    this.#entities.set(entity, known);
    const stored = known.get(id);
    if (stored !== undefined && stored.sequence >= sequence) return false;
    const deleted = data["op"] === "d";
    known.set(id, { entity, id, magentoId, deleted, sequence, fields: deleted ? {} : mappedFields(data) });
    return true;
  }

  get(entity: string, id: string): ReplicaEntity | null {
    return this.#entities.get(entity)?.get(id) ?? null;
  }

  all(entity: string): Iterable<ReplicaEntity> {
    return this.#entities.get(entity)?.values() ?? [];
  }
}
