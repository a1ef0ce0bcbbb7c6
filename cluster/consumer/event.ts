/** A CloudEvent as daprd delivers it: attributes as sent, data as an object. */
export interface DeliveredEvent {
  readonly id: string;
  readonly type: string;
  readonly time: string;
  /** Present on events that have a place in the source's history. */
  readonly sequence: string | null;
  readonly data: Readonly<Record<string, unknown>>;
}

/** What the rule needs of an entity event. */
export interface EntityEvent {
  readonly op: "c" | "u" | "d" | "r";
  readonly entity: string;
  readonly id: string;
  readonly magentoId: string | number;
  readonly sequence: string;
  /** The mapped fields alone. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** The event can never be applied, however often it is delivered. */
export class MalformedEventError extends Error {
  override readonly name = "MalformedEventError";
}

/** Names of `data` that are not fields of the entity. */
const envelope: ReadonlySet<string> = new Set(
  (
    "op entity id magento_id source shop synced_at event_id sequence schema_version " +
    "changed before attributes origin omitted"
  ).split(" "),
);

/** Checks the body of a delivery. */
export function deliveredEvent(body: unknown): DeliveredEvent {
  if (!isRecord(body)) throw new MalformedEventError("the delivery is not a CloudEvent");
  const data = body["data"];
  if (!isRecord(data)) throw new MalformedEventError("the CloudEvent's data is not an object");
  const sequence = body["sequence"];
  return {
    id: text(body, "id"),
    type: text(body, "type"),
    time: optionalText(body, "time"),
    sequence: typeof sequence === "string" ? sequence : null,
    data,
  };
}

/** Checks the data of an entity event. */
export function entityEvent(data: Readonly<Record<string, unknown>>): EntityEvent {
  const op = data["op"];
  const magentoId = data["magento_id"];
  if (op !== "c" && op !== "u" && op !== "d" && op !== "r") {
    throw new MalformedEventError("data.op is none of c, u, d, r");
  }
  if (typeof magentoId !== "string" && typeof magentoId !== "number") {
    throw new MalformedEventError("data.magento_id is missing");
  }
  const fields: Record<string, unknown> = {};
  for (const name in data) if (!envelope.has(name)) fields[name] = data[name];
  const entity = text(data, "entity");
  return { op, entity, id: text(data, "id"), magentoId, sequence: text(data, "sequence"), fields };
}

/** A non-empty text, or a MalformedEventError. */
export function text(record: Readonly<Record<string, unknown>>, name: string): string {
  const value = record[name];
  if (typeof value !== "string" || value === "") throw new MalformedEventError(`${name} is missing`);
  return value;
}

/** A text, "" where there is none. */
export function optionalText(record: Readonly<Record<string, unknown>>, name: string): string {
  const value = record[name];
  return typeof value === "string" ? value : "";
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
