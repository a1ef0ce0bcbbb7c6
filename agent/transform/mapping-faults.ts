/** Faults of a mapping file: all of them, each by its path, with what mends it. */
import { AgentError } from "../kernel/errors.ts";
import type { ErrorObject } from "ajv/dist/2020.js";

export interface MappingFault {
  /** JSONPath: `$.entities.order.fields.customer_note`. */
  readonly path: string;
  /** The faulty value as JSON, cut short. */
  readonly value: string;
  readonly rule: string;
  readonly mend: string;
}

/** MAPPING_INVALID with every fault of the file. */
export class MappingError extends AgentError {
  readonly faults: readonly MappingFault[];

  constructor(faults: readonly MappingFault[]) {
    const lines = faults.map(({ path, value, rule, mend }) => `${path} = ${value}: ${rule}; ${mend}`);
    super("MAPPING_INVALID", `the mapping file has ${faults.length} fault(s):\n${lines.join("\n")}`);
    this.faults = faults;
  }
}

const shownMax = 80;

/** A value as it is shown in a fault. */
export function shown(value: unknown): string {
  const text = value === undefined ? "(missing)" : JSON.stringify(value);
  return text.length > shownMax ? `${text.slice(0, shownMax)}...` : text;
}

/** `$.a.b` with names that need it in brackets. */
export function jsonPath(...names: readonly string[]): string {
  return names.reduce(
    (path, name) =>
      /^[A-Za-z_$][\w$-]*$/.test(name) ? `${path}.${name}` : `${path}[${JSON.stringify(name)}]`,
    "$",
  );
}

/** What the schema found, in the same words as all other faults. */
export function schemaFault(error: ErrorObject, root: unknown): MappingFault {
  const names = error.instancePath
    .split("/")
    .slice(1)
    .map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));
  const params: Readonly<Record<string, unknown>> = error.params;
  const extra = params["additionalProperty"] ?? error.propertyName;
  if (typeof extra === "string") names.push(extra);
  const value = names.reduce<unknown>(memberOf, root);
  const base = { path: jsonPath(...names), value: shown(value) };
  if (error.keyword === "additionalProperties") {
    return {
      ...base,
      rule: "is not a member that a mapping has here",
      mend: `remove it, or correct its name`,
    };
  }
  if (error.keyword === "pattern" || error.keyword === "propertyNames") {
    return {
      ...base,
      rule: "is not a usable name",
      mend: `use one that matches ${String(params["pattern"])}`,
    };
  }
  const allowed = params["allowedValues"] ?? params["allowedValue"];
  if (allowed !== undefined) {
    return { ...base, rule: "is not one of the values it may have", mend: `use ${JSON.stringify(allowed)}` };
  }
  const rule = error.message ?? "does not fit the schema";
  return { ...base, rule, mend: "see docs/mapping.schema.json" };
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  const entry = Object.entries(value).find(([key]) => key === name);
  return entry?.[1];
}
