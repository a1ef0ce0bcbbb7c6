/**
 * An entity's mapping, compiled: where each column stands in a row, and every constant piece of its
 * events, escaped for the wire already. Made once; the hot path only joins.
 */
import { createHmac } from "node:crypto";
import type { FollowedTable, Value } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { indexPlaces, withIndexColumns } from "./child-index.ts";
import { EntityIdentity, UuidNamespace } from "./identity.ts";
import type { KeyColumns, LookupUuid, MagentoId } from "./identity.ts";
import { cascadingTables, companionPrefix, topicOf } from "./mapping.ts";
import type { EntityMapping, FieldMapping, Mapping, Treatment } from "./mapping.ts";
import { embed, sameValue, stringText, textUnits, valueText } from "./wire.ts";

/** Major version of the event's form; part of `dataschema`. */
export const eventFormMajor = 1;

/** Facts of the installation that stand in every event. */
export interface Installation {
  readonly shop: string;
  readonly database: string;
  readonly pubsub: string;
  /** Identity of the agent's state; two values for one shop at a time mean two agents. */
  readonly instance: string;
}

export interface FieldPlan {
  readonly name: string;
  /** Place of the column in a row. */
  readonly index: number;
  /** `,"name":` and `,"name"`, escaped. */
  readonly prefix: string;
  readonly quoted: string;
  /** The same of the integer beside a reference; "" where there is none. */
  readonly companionPrefix: string;
  readonly companionQuoted: string;
  /** UUIDs of the entity that it refers to. */
  readonly ref: EntityIdentity | null;
  readonly treatment: Treatment;
}

/** Constant pieces of an event, in order; between them stand id, uuid, time and so on. */
export interface EventPieces {
  readonly afterId: string;
  readonly afterPartitionKey: string;
  readonly dataStart: string;
}

export interface EntityPlan {
  readonly entity: string;
  readonly table: string;
  readonly topic: string;
  readonly key: KeyColumns;
  readonly cascades: boolean;
  readonly columns: readonly string[];
  readonly fields: readonly FieldPlan[];
  readonly deletes: "full" | "keys";
  readonly oversize: "dead-letter" | "omit";
  readonly identity: EntityIdentity;
  readonly pieces: Readonly<Record<"c" | "u" | "d" | "r", EventPieces>>;
  readonly afterMagentoId: string;
  readonly beforeSyncedAt: string;
  readonly originStart: string;
}

export const opTypes = { c: "created", u: "updated", d: "deleted", r: "read" } as const;

export interface PlanOptions extends Installation {
  readonly mapping: Mapping;
  readonly namespace: string;
  readonly schemaVersions: Readonly<Record<string, number>>;
  readonly lookupUuid: LookupUuid | null;
}

/** `source` attribute of every event of an installation. */
export function sourceOf(installation: Installation): string {
  return `/magento/${installation.shop}/${installation.database}`;
}

/** Compiles a checked mapping. The order of the plans is the order of the followed tables. */
export function compileMapping(options: PlanOptions): EntityPlan[] {
  const namespace = new UuidNamespace(options.namespace);
  const identities = new Map<string, EntityIdentity>();
  const identityOf = (entity: string): EntityIdentity => {
    const known = identities.get(entity);
    if (known !== undefined) return known;
    const made = new EntityIdentity(entity, options.shop, namespace, options.lookupUuid);
    identities.set(entity, made);
    return made;
  };
  return options.mapping.entities.map((entity) => compileEntity(entity, options, identityOf));
}

function compileEntity(
  entity: EntityMapping,
  options: PlanOptions,
  identityOf: (entity: string) => EntityIdentity,
): EntityPlan {
  const mapped = [...entity.keys, ...entity.fields.map((field) => field.column)];
  const columns = withIndexColumns(entity.table, mapped);
  const topic = topicOf(entity.topic, options.shop);
  const version = options.schemaVersions[entity.entity] ?? 1;
  const keyIndices = entity.keys.map((column) => columns.indexOf(column));
  const piecesOf = (op: "c" | "u" | "d" | "r"): EventPieces => eventPieces(entity.entity, topic, op, options);
  return {
    entity: entity.entity,
    table: entity.table,
    topic,
    key: { table: entity.table, columns: entity.keys, indices: keyIndices },
    cascades: cascadingTables.has(entity.table),
    columns,
    fields: entity.fields.map((field) => compileField(field, columns.indexOf(field.column), identityOf)),
    deletes: entity.deletes,
    oversize: entity.oversize,
    identity: identityOf(entity.entity),
    pieces: { c: piecesOf("c"), u: piecesOf("u"), d: piecesOf("d"), r: piecesOf("r") },
    afterMagentoId: embed(`,"shop":${JSON.stringify(options.shop)},"source":"magento","event_id":"`),
    beforeSyncedAt: embed(`","schema_version":${version},"synced_at":"`),
    originStart: embed(`,"origin":{"table":${JSON.stringify(entity.table)},`),
  };
}

export function eventPieces(
  entity: string,
  topic: string,
  op: "c" | "u" | "d" | "r",
  installation: Installation,
): EventPieces {
  const source = JSON.stringify(sourceOf(installation));
  const schema = `urn:magento-edge-agent:${entity}:${eventFormMajor}`;
  const pubsub = JSON.stringify(installation.pubsub);
  return {
    afterId: embed(`","source":${source},"type":"magento.${entity}.${opTypes[op]}","subject":"`),
    afterPartitionKey: embed(
      `","dataschema":"${schema}","topic":${JSON.stringify(topic)},"pubsubname":${pubsub},"traceparent":"`,
    ),
    dataStart: embed(`","data":{"op":"${op}","entity":${JSON.stringify(entity)},"id":"`),
  };
}

function compileField(
  field: FieldMapping,
  index: number,
  identityOf: (entity: string) => EntityIdentity,
): FieldPlan {
  const quoted = embed(`,${JSON.stringify(field.field)}`);
  const companion = field.ref === null ? "" : embed(`,${JSON.stringify(companionPrefix + field.field)}`);
  return {
    name: field.field,
    index,
    prefix: `${quoted}:`,
    quoted,
    companionPrefix: companion === "" ? "" : `${companion}:`,
    companionQuoted: companion,
    ref: field.ref === null ? null : identityOf(field.ref),
    treatment: field.treatment,
  };
}

/** What the source has to follow for this plan. */
export function followedTable({ table, columns, key }: EntityPlan): FollowedTable {
  const indexColumns = indexPlaces(table, columns);
  const kept = indexColumns.length === 0 ? {} : { indexColumns };
  return { table, columns, keyColumns: key.indices, ...kept };
}

/** Values as they leave the host: treated, and escaped for the wire. */
export class FieldText {
  readonly #hashKey: string | null;

  constructor(fieldHashKey: string | null) {
    this.#hashKey = fieldHashKey;
  }

  /** `,"field":value`, for a reference with the integer beside it. */
  entryOf(field: FieldPlan, value: Value): string {
    if (field.ref !== null) {
      return `${field.prefix}${refText(field.ref, value)}${field.companionPrefix}${valueText(value)}`;
    }
    if (field.treatment.kind === "none") return field.prefix + valueText(value);
    return field.prefix + this.#treatedText(field.treatment, value);
  }

  /** Whether two values of a column leave the host as different ones. */
  differs(field: FieldPlan, old: Value, value: Value): boolean {
    if (sameValue(old, value)) return false;
    if (field.treatment.kind === "none") return true;
    return this.#treatedText(field.treatment, old) !== this.#treatedText(field.treatment, value);
  }

  #treatedText(treatment: Treatment, value: Value): string {
    if (value === null) return "null";
    if (treatment.kind === "mask") return stringText("***");
    if (treatment.kind === "hash") return stringText(this.#hashOf(value));
    if (treatment.kind === "none" || typeof value === "number") return valueText(value);
    return stringText(firstCodePoints(plainText(value), treatment.characters));
  }

  /** Of the bytes where a text is not valid, so that two that read the same do not hash the same. */
  #hashOf(value: Exclude<Value, null>): string {
    if (this.#hashKey === null) {
      throw new AgentError("MAPPING_INVALID", "the mapping hashes a field and no field hash key is set");
    }
    const isInvalid = typeof value === "object" && "base64" in value;
    const input = isInvalid ? Buffer.from(value.base64, "base64") : plainText(value);
    return createHmac("sha256", this.#hashKey).update(input).digest("hex");
  }
}

function plainText(value: Exclude<Value, null>): string {
  if (typeof value !== "object") return String(value);
  return "json" in value ? value.json : value.text;
}

/** The first `count` code points; reads no more of the text than that. */
export function firstCodePoints(text: string, count: number): string {
  if (text.length <= count) return text;
  let end = 0;
  for (let taken = 0; taken < count && end < text.length; taken += 1) {
    end += (text.codePointAt(end) ?? 0) > 0xffff ? 2 : 1;
  }
  return text.slice(0, end);
}

/** UUID of a reference. Null stays null, and 0 is Magento's other way to say "none". */
function refText(identity: EntityIdentity, value: Value): string {
  if (value === null || value === 0 || value === "0") return "null";
  const magentoId: MagentoId = typeof value === "object" ? plainText(value) : value;
  return `\\"${identity.uuidOf(magentoId)}\\"`;
}

/** Fewest units that a treated value takes on the wire. */
export function treatedUnits(field: FieldPlan, value: Value | undefined): number {
  const { treatment } = field;
  if (treatment.kind === "none") return textUnits(value);
  if (treatment.kind === "truncate") return Math.min(textUnits(value), treatment.characters);
  return 8;
}
