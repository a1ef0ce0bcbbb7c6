/**
 * JSON Schema (draft 2020-12) of the mapping file, published as docs/mapping.schema.json. It says
 * the form; what only the meaning can tell (secrets, reserved names, references) is checked by
 * mapping-file.ts.
 */

const topicPattern = "^(?:[A-Za-z0-9._-]|\\{shop\\})+$";
const fieldNamePattern = "^[A-Za-z][A-Za-z0-9_]{0,63}$";

const fieldSchema = {
  description:
    "A column: the name of its field in the event, or an object with more, or null to leave a default column out.",
  type: ["string", "object", "null"],
  pattern: fieldNamePattern,
  properties: {
    field: {
      type: "string",
      pattern: fieldNamePattern,
      description: "Name in the event; the default mapping's, else the column's own.",
    },
    ref: {
      type: ["string", "null"],
      minLength: 1,
      description:
        "Entity that the value is the key of: the field carries its UUID, magento_<field> the value.",
    },
    personal: {
      type: "boolean",
      description: "Personal data: consumers empty it when the entity is deleted.",
    },
    mask: { const: true, description: 'Any value becomes "***"; null stays null.' },
    hash: {
      const: true,
      description:
        "HMAC-SHA-256 of the value's text with the installation's key, 64 hexadecimal digits; null stays null.",
    },
    truncate: {
      type: "integer",
      minimum: 1,
      description: "The first so many characters (code points) of a text; numbers and null stay.",
    },
  },
  additionalProperties: false,
} as const;

const entitySchema = {
  description:
    "An entity of the default mapping, or a table (without prefix) beyond it; null leaves a default entity out.",
  type: ["object", "null"],
  properties: {
    keys: {
      type: "array",
      minItems: 1,
      uniqueItems: true,
      items: { type: "string", minLength: 1, maxLength: 64 },
      description:
        "Key columns, never null and together unique. Only for tables beyond the default mapping, and needed there.",
    },
    fields: {
      type: "object",
      propertyNames: { minLength: 1, maxLength: 64 },
      additionalProperties: { $ref: "#/$defs/field" },
      description: "Columns. Those of the default mapping that are not named here stay as they are.",
    },
    replace: { type: "boolean", description: "true: only the fields named here are sent." },
    topic: { type: "string", pattern: topicPattern, description: "{shop} stands for the shop's name." },
    deletes: {
      enum: ["full", "keys"],
      description: "What a delete carries: the mapped before image, or only ids.",
    },
    oversize: {
      enum: ["dead-letter", "omit"],
      description: "An event over the body limit: to the dead letters, or without its largest fields.",
    },
  },
  additionalProperties: false,
} as const;

/** The schema as published. */
export const mappingFileSchema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  $id: "urn:magento-edge-agent:mapping:1",
  title: "Mapping file of magento-edge-agent",
  description: "Extends or replaces the default mapping: which columns leave the host, and how.",
  type: "object",
  properties: {
    $schema: { type: "string" },
    entities: {
      type: "object",
      propertyNames: { pattern: "^[A-Za-z0-9][A-Za-z0-9_$-]{0,63}$" },
      additionalProperties: { $ref: "#/$defs/entity" },
    },
    topics: {
      type: "object",
      properties: {
        control: { type: "string", pattern: topicPattern },
        deadLetters: { type: "string", pattern: topicPattern },
      },
      additionalProperties: false,
    },
  },
  additionalProperties: false,
  $defs: { entity: entitySchema, field: fieldSchema },
} as const;
