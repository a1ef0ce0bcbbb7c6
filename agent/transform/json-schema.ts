/**
 * What consumers get to know of the events: JSON Schema and TypeScript types per entity, both from
 * the mapping; and the mapping itself in words for `mapping show`.
 */
import { eventFormMajor, opTypes } from "./entity-plan.ts";
import { companionPrefix, topicOf } from "./mapping.ts";
import type { EntityMapping, FieldMapping, Mapping, ValueType } from "./mapping.ts";
import { secretColumnsOf } from "./secrets.ts";

export type JsonSchema = Readonly<Record<string, unknown>>;

const uuid: JsonSchema = { type: "string", format: "uuid" };
const dateTime: JsonSchema = { type: "string", format: "date-time" };
const text: JsonSchema = { type: "string" };
const sequence: JsonSchema = {
  type: "string",
  pattern: "^\\d{10}\\.\\d{10}\\.\\d{16}\\.\\d\\.\\d{6}\\.\\d{10}\\.\\d$",
  description: "Compared as text: apply an event if it is greater than the one stored for this id.",
};

/** Values are null where the column is, so every type allows it. */
const valueSchemas: Readonly<Record<ValueType, JsonSchema>> = {
  integer: { type: ["integer", "null"] },
  decimal: { type: ["string", "null"], pattern: "^-?\\d+(\\.\\d+)?$" },
  text: { type: ["string", "null"] },
  datetime: { type: ["string", "null"], format: "date-time" },
  date: { type: ["string", "null"], format: "date" },
  unknown: {},
};

const valueTypes: Readonly<Record<ValueType, string>> = {
  integer: "number | null",
  decimal: "string | null",
  text: "string | null",
  datetime: "string | null",
  date: "string | null",
  unknown: "unknown",
};

/** A treated value is a text, but for numbers that truncate leaves alone. */
function typeOf(field: FieldMapping): ValueType {
  const { kind } = field.treatment;
  if (kind === "mask" || kind === "hash") return "text";
  return kind === "truncate" && field.type !== "integer" ? "text" : field.type;
}

/** Type of `magento_id`: fixed per entity. Null where the mapping does not know the column. */
function magentoIdType(entity: EntityMapping): "integer" | "string" | null {
  if (entity.keys.length > 1) return "string";
  // Every single key of the default mapping is an integer column; a user's table may have any.
  return entity.entity === entity.table ? null : "integer";
}

function fieldSchemas(entity: EntityMapping): Record<string, JsonSchema> {
  const schemas: Record<string, JsonSchema> = {};
  for (const field of entity.fields) {
    const marks = field.personal ? { "x-personal": true } : {};
    if (field.ref === null) {
      schemas[field.field] = { ...valueSchemas[typeOf(field)], ...marks };
    } else {
      const description = `UUID of the ${field.ref}; it may not have arrived yet`;
      schemas[field.field] = { type: ["string", "null"], format: "uuid", description, ...marks };
      schemas[companionPrefix + field.field] = { ...valueSchemas[field.type], ...marks };
    }
  }
  return schemas;
}

const originSchema: JsonSchema = {
  type: "object",
  properties: {
    table: text,
    server: { type: "integer" },
    position: { type: "string", description: "file:position of the end of the transaction" },
    gtid: { type: ["string", "null"] },
    ts_ms: { type: "integer", description: "commit time" },
    transaction: { type: "string" },
    transaction_events: {
      type: ["integer", "null"],
      description: "Events of the whole transaction; null where its end was not yet read.",
    },
    instance: {
      type: "string",
      description: "Identity of the agent's state: two at a time for one shop mean two agents.",
    },
    derived: { description: "Present where no row of its own said this." },
  },
  required: ["table", "server", "position", "gtid", "ts_ms", "transaction", "transaction_events", "instance"],
};

function dataSchema(entity: EntityMapping): JsonSchema {
  const fields = fieldSchemas(entity);
  const idType = magentoIdType(entity);
  return {
    type: "object",
    properties: {
      op: { enum: Object.keys(opTypes) },
      entity: { const: entity.entity },
      id: uuid,
      magento_id: { type: idType ?? ["integer", "string"] },
      shop: text,
      source: { const: "magento" },
      event_id: text,
      sequence,
      schema_version: { type: "integer", minimum: 1 },
      synced_at: dateTime,
      ...fields,
      invalid_text: {
        type: "object",
        additionalProperties: { type: "string", contentEncoding: "base64" },
        description: "Bytes of texts that are not valid in their character set, by field or before.<field>.",
      },
      omitted: { type: "array", items: text, description: "Left out because the event was too large." },
      changed: {
        type: "array",
        items: { enum: Object.keys(fields) },
        description: "On u: fields whose values differ.",
      },
      before: {
        type: "object",
        properties: fields,
        additionalProperties: false,
        description: "On u: their old values.",
      },
      origin: originSchema,
    },
    required: "op entity id magento_id shop source event_id sequence schema_version synced_at origin".split(
      " ",
    ),
    additionalProperties: false,
  };
}

/** JSON Schema (draft 2020-12) of an entity's event, data included. */
export function eventJsonSchema(entity: EntityMapping): JsonSchema {
  const types = Object.values(opTypes).map((word) => `magento.${entity.entity}.${word}`);
  const dataschema = `urn:magento-edge-agent:${entity.entity}:${eventFormMajor}`;
  const properties = {
    specversion: { const: "1.0" },
    id: text,
    source: { type: "string", description: "/magento/<shop>/<database>" },
    type: { enum: types },
    subject: uuid,
    time: dateTime,
    datacontenttype: { const: "application/json" },
    sequence,
    partitionkey: uuid,
    dataschema: { const: dataschema },
    topic: text,
    pubsubname: text,
    traceparent: text,
    traceid: text,
    data: dataSchema(entity),
  };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $id: dataschema,
    title: `Events of the entity ${entity.entity}`,
    type: "object",
    properties,
    required: Object.keys(properties),
  };
}

function pascalCase(name: string): string {
  return name
    .split(/[^A-Za-z0-9]+/)
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join("");
}

const sharedTypes = `// Types of the entity events, made from the mapping. Do not edit: run test/transform/generate.ts.

export interface Origin {
  readonly table: string;
  readonly server: number;
  readonly position: string;
  readonly gtid: string | null;
  readonly ts_ms: number;
  readonly transaction: string;
  readonly transaction_events: number | null;
  readonly instance: string;
  readonly derived?: unknown;
}

/** What every event's data has; fields of the entity stand beside it. */
export interface EventData {
  readonly op: "c" | "u" | "d" | "r";
  readonly entity: string;
  readonly id: string;
  readonly magento_id: number | string;
  readonly shop: string;
  readonly source: "magento";
  readonly event_id: string;
  /** Compared as text: apply an event if it is greater than the one stored for this id. */
  readonly sequence: string;
  readonly schema_version: number;
  readonly synced_at: string;
  readonly invalid_text?: Readonly<Record<string, string>>;
  readonly omitted?: readonly string[];
  readonly changed?: readonly string[];
  readonly origin: Origin;
}
`;

/** TypeScript types of all events of a mapping. */
export function eventTypes(mapping: Mapping): string {
  const parts = [sharedTypes];
  const names: string[] = [];
  for (const entity of mapping.entities) {
    const name = pascalCase(entity.entity);
    names.push(name);
    const idType = magentoIdType(entity);
    const idText = idType === null ? "number | string" : idType === "integer" ? "number" : "string";
    const members = entity.fields.flatMap((field) => memberLines(field));
    parts.push(
      `/** Mapped fields of ${entity.entity}. A field that the shop's table lacks is absent. */
export interface ${name}Fields {
${members.join("\n")}
}

export interface ${name}Data extends EventData, ${name}Fields {
  readonly entity: ${JSON.stringify(entity.entity)};
  readonly magento_id: ${idText};
  readonly before?: Partial<${name}Fields>;
}
`,
    );
  }
  const union = ` ${names.map((name) => `${name}Data`).join(" | ")}`;
  const unionLines = names.map((name) => `\n  | ${name}Data`).join("");
  parts.push(`export type AnyEventData =${union.length > 80 ? unionLines : union};\n`);
  return parts.join("\n");
}

/** TypeScript source of the personal fields per entity. */
export function personalFieldsSource(mapping: Mapping): string {
  return `// Made from the mapping. Do not edit: run test/transform/generate.ts.

/** Personal fields, to be emptied when an entity is deleted. */
export const personalFields = {
${mapping.entities.map(personalLine).join("\n")}
} as const;
`;
}

/** Lines as the formatter would break them, so that the file needs no formatting. */
function personalLine(entity: EntityMapping): string {
  const fields = entity.fields.filter((field) => field.personal).map((field) => JSON.stringify(field.field));
  const key = /^[A-Za-z_$][\w$]*$/.test(entity.entity) ? entity.entity : JSON.stringify(entity.entity);
  const line = `  ${key}: [${fields.join(", ")}],`;
  return line.length <= 110 ? line : `  ${key}: [\n${fields.map((field) => `    ${field},\n`).join("")}  ],`;
}

function memberLines(field: FieldMapping): string[] {
  const mark = field.personal ? "  /** Personal. */\n" : "";
  if (field.ref === null) return [`${mark}  readonly ${field.field}?: ${valueTypes[typeOf(field)]};`];
  return [
    `${mark}  /** UUID of the ${field.ref}. */\n  readonly ${field.field}?: string | null;`,
    `  readonly ${companionPrefix}${field.field}?: ${valueTypes[field.type]};`,
  ];
}

/** An entity of the mapping, for people. */
export interface EntityDescription {
  readonly entity: string;
  readonly table: string;
  readonly topic: string;
  readonly keys: readonly string[];
  readonly deletes: "full" | "keys";
  readonly oversize: "dead-letter" | "omit";
  readonly fields: readonly FieldDescription[];
  /** Columns of the table that are refused whatever the mapping says; `*` stands for any rest. */
  readonly secrets: readonly string[];
}

export interface FieldDescription {
  readonly column: string;
  readonly field: string;
  readonly ref: string | null;
  readonly personal: boolean;
  /** "sent as it is", "masked", "hashed", "first 10 characters". */
  readonly treatment: string;
}

/** The mapping in effect, for `mapping show`. */
export function describeMapping(mapping: Mapping, shop: string): EntityDescription[] {
  return mapping.entities.map((entity) => ({
    entity: entity.entity,
    table: entity.table,
    topic: topicOf(entity.topic, shop),
    keys: entity.keys,
    deletes: entity.deletes,
    oversize: entity.oversize,
    fields: entity.fields.map((field) => ({
      column: field.column,
      field: field.field,
      ref: field.ref,
      personal: field.personal,
      treatment: treatmentWords(field),
    })),
    secrets: secretColumnsOf(entity.table),
  }));
}

function treatmentWords({ treatment }: FieldMapping): string {
  if (treatment.kind === "mask") return "masked";
  if (treatment.kind === "hash") return "hashed";
  if (treatment.kind === "truncate") return `first ${treatment.characters} characters`;
  return "sent as it is";
}
