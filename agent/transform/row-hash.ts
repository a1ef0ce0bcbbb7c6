/**
 * The hash of one entity's state, as any consumer can compute it from a delivered event
 * (docs/events.md): SHA-256 over the canonical JSON (RFC 8785) of `[magento_id, fields]`, its first
 * 16 hexadecimal digits.
 */
import { hash } from "node:crypto";
import type { MagentoId } from "./identity.ts";
import { reservedFields } from "./mapping.ts";

const notFields: ReadonlySet<string> = new Set(reservedFields);
/** What an event leaves of an old value's bytes; part of no state. */
const beforePrefix = "before.";

/** `data` is an event's, read back: what is hashed is what is delivered, treated and cut as it is there. */
export function rowHash(magentoId: MagentoId, data: Readonly<Record<string, unknown>>): string {
  return shortHash(canonicalJson([magentoId, fieldsOf(data)]));
}

/** One value for a range: of its rows' hashes, in the order of their text. */
export function rangeHash(rowHashes: readonly string[]): string {
  return shortHash(rowHashes.toSorted().join(""));
}

function shortHash(text: string): string {
  return hash("sha256", text, "hex").slice(0, 16);
}

/** The mapped fields, with the bytes of those that are not valid text. */
function fieldsOf(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const fields = Object.entries(data).filter(([name]) => !notFields.has(name));
  const bytes = data["invalid_text"];
  if (isRecord(bytes)) {
    const now = Object.entries(bytes).filter(([name]) => !name.startsWith(beforePrefix));
    if (now.length > 0) fields.push(["invalid_text", Object.fromEntries(now)]);
  }
  return Object.fromEntries(fields);
}

/** RFC 8785: members in the order of their names' UTF-16 units, numbers as ECMAScript writes them. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (!isRecord(value)) return JSON.stringify(value);
  const members = Object.keys(value)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonicalJson(value[name])}`);
  return `{${members.join(",")}}`;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
