/**
 * Reads a mapping file: form by its JSON Schema, then meaning. Every fault is found and told at
 * once; nothing of a faulty file is used.
 */
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { asError } from "../kernel/errors.ts";
import { defaultMapping, defaultTopicOf } from "./default-mapping.ts";
import { MappingError, jsonPath, schemaFault, shown } from "./mapping-faults.ts";
import type { MappingFault } from "./mapping-faults.ts";
import { mappingFileSchema } from "./mapping-schema.ts";
import { attributeValueOwner, companionPrefix, reservedFields } from "./mapping.ts";
import type { EntityMapping, FieldMapping, Mapping, Treatment } from "./mapping.ts";
import { isSecretColumn, isSecretTable } from "./secrets.ts";

export interface MappingFileOptions {
  /** Whether a key for hashed fields is set; without one no field may be hashed. */
  readonly hasFieldHashKey: boolean;
}

interface FieldObject {
  readonly field?: string;
  readonly ref?: string | null;
  readonly personal?: boolean;
  readonly mask?: true;
  readonly hash?: true;
  readonly truncate?: number;
}

type FieldEntry = string | FieldObject | null;

interface EntityObject {
  readonly keys?: readonly string[];
  readonly fields?: Readonly<Record<string, FieldEntry>>;
  readonly replace?: boolean;
  readonly topic?: string;
  readonly deletes?: "full" | "keys";
  readonly oversize?: "dead-letter" | "omit";
}

interface MappingFile {
  readonly entities?: Readonly<Record<string, EntityObject | null>>;
  readonly topics?: { readonly control?: string; readonly deadLetters?: string };
}

/**
 * The mapping that the file's text gives: the default one, extended or replaced.
 * Throws a MappingError (MAPPING_INVALID) with every fault.
 */
export function parseMapping(text: string, options: MappingFileOptions): Mapping {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    const rule = `is not JSON: ${asError(error).message}`;
    throw new MappingError([{ path: "$", value: "(text)", rule, mend: "correct the file's syntax" }]);
  }
  const isMappingFile = formCheck({ allErrors: true });
  if (isMappingFile(root)) return new MappingReader(root, options).read([]);
  const faults = (isMappingFile.errors ?? [])
    // A faulty property name is told by the pattern's own error; this one only repeats it.
    .filter((error) => error.keyword !== "propertyNames")
    .map((error) => schemaFault(error, root));
  // What is well formed is checked for its meaning too, so that one run names everything.
  return new MappingReader(withoutFaulty(root, faults), options).read(faults);
}

/** That the schema is one of its draft a test proves: here it would cost more than the file does. */
function formCheck(options: { readonly allErrors: boolean }): ValidateFunction<MappingFile> {
  return new Ajv2020({ ...options, strict: false, meta: false, validateSchema: false }).compile<MappingFile>(
    mappingFileSchema,
  );
}

/** The file without the entities that have faults in their form. */
function withoutFaulty(root: unknown, faults: readonly MappingFault[]): MappingFile {
  const entities: unknown =
    typeof root === "object" && root !== null && "entities" in root ? root.entities : null;
  if (typeof entities !== "object" || entities === null || Array.isArray(entities)) return {};
  const isFaulty = (name: string): boolean => {
    const path = jsonPath("entities", name);
    return faults.some(
      (fault) =>
        fault.path === path || fault.path.startsWith(`${path}.`) || fault.path.startsWith(`${path}[`),
    );
  };
  // A part of a file is a file of the same form, so it can be checked by the same schema.
  const sound: unknown = {
    entities: Object.fromEntries(Object.entries(entities).filter(([name]) => !isFaulty(name))),
  };
  const isMappingFile = formCheck({ allErrors: false });
  return isMappingFile(sound) ? sound : {};
}

class MappingReader {
  readonly #file: MappingFile;
  readonly #options: MappingFileOptions;
  readonly #faults: MappingFault[] = [];
  /** Entities that a reference may name, with the number of their key columns. */
  readonly #keyCounts = new Map<string, number>();

  constructor(file: MappingFile, options: MappingFileOptions) {
    this.#file = file;
    this.#options = options;
    for (const { entity, keys } of defaultMapping.entities) this.#keyCounts.set(entity, keys.length);
    for (const [name, entry] of Object.entries(file.entities ?? {})) {
      if (entry !== null && !this.#keyCounts.has(name)) this.#keyCounts.set(name, entry.keys?.length ?? 1);
    }
  }

  read(formFaults: readonly MappingFault[]): Mapping {
    const given = this.#file.entities ?? {};
    const entities: EntityMapping[] = [];
    for (const base of defaultMapping.entities) {
      const entry = given[base.entity];
      if (entry === undefined) entities.push(base);
      else if (entry !== null) entities.push(this.#entity(base, entry, true));
    }
    for (const [name, entry] of Object.entries(given)) {
      if (this.#isDefault(name)) continue;
      const table = this.#table(name, entry);
      if (table !== null) entities.push(table);
    }
    const mapping = {
      entities,
      controlTopic: this.#file.topics?.control ?? defaultMapping.controlTopic,
      deadLetterTopic: this.#file.topics?.deadLetters ?? defaultMapping.deadLetterTopic,
    };
    this.#checkTopics(mapping);
    const faults = [...formFaults, ...this.#faults];
    if (faults.length > 0) throw new MappingError(faults);
    return mapping;
  }

  #isDefault(name: string): boolean {
    return defaultMapping.entities.some(({ entity }) => entity === name);
  }

  /** A table beyond the default mapping; null when it cannot be mapped at all. */
  #table(name: string, entry: EntityObject | null): EntityMapping | null {
    const path = ["entities", name];
    if (entry === null) {
      this.#fault(path, null, "is no entity of the default mapping", "remove it, or correct its name");
      return null;
    }
    if (isSecretTable(name)) {
      this.#fault(path, name, "is a table of secrets, which never leaves the host", "remove it");
      return null;
    }
    const owner =
      defaultMapping.entities.find(({ table }) => table === name.toLowerCase())?.entity ??
      attributeValueOwner(name);
    if (owner !== null && owner !== undefined) {
      this.#fault(
        path,
        name,
        `is a table of the entity "${owner}"`,
        `map its columns under ${jsonPath("entities", owner)}`,
      );
      return null;
    }
    if (entry.keys === undefined) {
      this.#fault(
        [...path, "keys"],
        undefined,
        "is needed for a table beyond the default mapping",
        'add "keys": [its primary key]',
      );
    }
    if (Object.keys(entry.fields ?? {}).length === 0) {
      this.#fault([...path, "fields"], entry.fields, "names no column", 'add "fields": {"column": "field"}');
    }
    for (const column of entry.keys ?? []) this.#checkSecret([...path, "keys"], name, column);
    const base: EntityMapping = {
      entity: name,
      table: name,
      topic: defaultTopicOf(name),
      keys: entry.keys ?? [],
      fields: [],
      deletes: "full",
      oversize: "dead-letter",
    };
    return this.#entity(base, entry, false);
  }

  #entity(base: EntityMapping, entry: EntityObject, isDefault: boolean): EntityMapping {
    const path = ["entities", base.entity];
    if (isDefault && entry.keys !== undefined) {
      const rule = "would change every id of this entity";
      this.#fault([...path, "keys"], entry.keys, rule, `remove it: the key is ${base.keys.join(", ")}`);
    }
    const fields = new Map<string, FieldMapping>();
    if (entry.replace !== true) for (const field of base.fields) fields.set(field.column, field);
    for (const [column, value] of Object.entries(entry.fields ?? {})) {
      this.#field(base, column, value, fields);
    }
    // The parts of a composite key are fields of their own in every event.
    if (base.keys.length > 1) {
      for (const column of base.keys) if (!fields.has(column)) this.#keepKeyPart(base, column, fields, entry);
    }
    const mapped = [...fields.values()];
    this.#checkTargets(path, mapped);
    return {
      ...base,
      topic: entry.topic ?? base.topic,
      fields: mapped,
      deletes: entry.deletes ?? base.deletes,
      oversize: entry.oversize ?? base.oversize,
    };
  }

  #keepKeyPart(
    base: EntityMapping,
    column: string,
    fields: Map<string, FieldMapping>,
    entry: EntityObject,
  ): void {
    if (entry.fields?.[column] === null) {
      const rule = "is part of the key, which every event carries";
      this.#fault(["entities", base.entity, "fields", column], null, rule, "remove this line");
    }
    fields.set(column, base.fields.find((field) => field.column === column) ?? plainField(column));
  }

  #field(base: EntityMapping, column: string, value: FieldEntry, fields: Map<string, FieldMapping>): void {
    const path = ["entities", base.entity, "fields", column];
    const known = base.fields.find((field) => field.column === column);
    if (value === null) {
      if (known === undefined)
        this.#fault(path, null, "leaves out a column that is not mapped", "remove this line");
      fields.delete(column);
      return;
    }
    if (!this.#checkSecret(path, base.table, column)) return;
    const object = typeof value === "string" ? { field: value } : value;
    const start = known ?? plainField(column);
    const field: FieldMapping = {
      ...start,
      field: object.field ?? start.field,
      ref: object.ref === undefined ? start.ref : object.ref,
      personal: object.personal ?? start.personal,
      treatment: treatmentOf(object),
    };
    this.#checkTarget(path, base.entity, field.field);
    this.#checkTreatment(path, base, field, object);
    if (field.ref !== null && object.ref !== undefined) this.#checkRef([...path, "ref"], field.ref);
    fields.set(column, field);
  }

  #checkSecret(path: readonly string[], table: string, column: string): boolean {
    if (!isSecretColumn(table, column)) return true;
    this.#fault(path, column, "is a secret, which never leaves the host", "remove it");
    return false;
  }

  #checkTarget(path: readonly string[], entity: string, target: string): void {
    const other = `${entity.replaceAll("-", "_")}_${target.replace(companionPrefix, "")}`;
    if (reservedFields.includes(target)) {
      const mend = target === "id" ? "remove it: the key gives id and magento_id" : `name it "${other}"`;
      this.#fault(path, target, "is a name that the agent itself writes", mend);
    } else if (target.startsWith(companionPrefix)) {
      this.#fault(
        path,
        target,
        `begins with "${companionPrefix}", which the agent itself writes`,
        `name it "${other}"`,
      );
    }
  }

  #checkTreatment(
    path: readonly string[],
    base: EntityMapping,
    field: FieldMapping,
    object: FieldObject,
  ): void {
    const given = (["mask", "hash", "truncate"] as const).filter((name) => object[name] !== undefined);
    if (given.length === 0) return;
    if (given.length > 1) {
      this.#fault(path, object, `has ${given.join(" and ")}`, "keep one of them");
    }
    if (given.includes("hash") && !this.#options.hasFieldHashKey) {
      this.#fault(
        [...path, "hash"],
        true,
        "needs a key, and none is set",
        "set the field hash key, or use mask",
      );
    }
    if (field.ref !== null) {
      this.#fault(
        path,
        object,
        "treats a reference, which then refers to nothing",
        "remove the treatment or the reference",
      );
    }
    if (base.keys.includes(field.column)) {
      this.#fault(
        path,
        object,
        "treats a part of the key, which every event carries as it is",
        "remove the treatment",
      );
    }
  }

  #checkRef(path: readonly string[], ref: string): void {
    const keyCount = this.#keyCounts.get(ref);
    if (keyCount === undefined) {
      const names = [...this.#keyCounts].filter(([, count]) => count === 1).map(([name]) => name);
      this.#fault(path, ref, "is no entity of this mapping", `use one of ${names.join(", ")}`);
    } else if (keyCount > 1) {
      this.#fault(
        path,
        ref,
        "has a key of several columns, which one value cannot name",
        "remove the reference",
      );
    }
  }

  /** No two columns under one name. */
  #checkTargets(path: readonly string[], fields: readonly FieldMapping[]): void {
    const columns = new Map<string, string>();
    for (const { field, column } of fields) {
      const taken = columns.get(field);
      if (taken !== undefined) {
        this.#fault(
          [...path, "fields", column],
          field,
          `is the name of the column "${taken}" too`,
          "give one of them another name",
        );
      }
      columns.set(field, column);
    }
  }

  #checkTopics({ entities, controlTopic, deadLetterTopic }: Mapping): void {
    for (const { entity, topic } of entities) {
      if (topic !== controlTopic && topic !== deadLetterTopic) continue;
      const rule = "is the topic of control events or of dead letters";
      this.#fault(
        ["entities", entity, "topic"],
        topic,
        rule,
        `use another one, such as ${defaultTopicOf(entity)}`,
      );
    }
    if (controlTopic === deadLetterTopic) {
      this.#fault(
        ["topics"],
        controlTopic,
        "is the topic of control events and of dead letters",
        "use two topics",
      );
    }
  }

  #fault(path: readonly string[], value: unknown, rule: string, mend: string): void {
    this.#faults.push({ path: jsonPath(...path), value: shown(value), rule, mend });
  }
}

function plainField(column: string): FieldMapping {
  return { column, field: column, type: "unknown", ref: null, personal: false, treatment: { kind: "none" } };
}

function treatmentOf(object: FieldObject): Treatment {
  if (object.mask === true) return { kind: "mask" };
  if (object.hash === true) return { kind: "hash" };
  if (object.truncate !== undefined) return { kind: "truncate", characters: object.truncate };
  return { kind: "none" };
}
