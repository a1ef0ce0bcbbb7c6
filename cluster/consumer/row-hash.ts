/**
 * The hash of what a consumer holds of one entity, as digests have it (docs/events.md): the first 16
 * hexadecimal digits of SHA-256 over the canonical JSON (RFC 8785) of `[magento_id, fields]`.
 */
import { createHash } from "node:crypto";
import { isRecord } from "./event.ts";

/** @param fields as they were delivered: `data` without its envelope */
export function rowHash(magentoId: string | number, fields: Readonly<Record<string, unknown>>): string {
  const text = canonicalJson([magentoId, comparable(fields)]);
  return createHash("sha256").update(text, "utf8").digest("hex").slice(0, 16);
}

/** Bytes of an update's old values are part of its event, and not of the state. */
function comparable(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { invalid_text: bytes, ...rest } = fields;
  if (!isRecord(bytes)) return rest;
  const now = Object.entries(bytes).filter(([name]) => !name.startsWith("before."));
  return now.length === 0 ? rest : { ...rest, invalid_text: Object.fromEntries(now) };
}

export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((one) => canonicalJson(one)).join(",")}]`;
  if (!isRecord(value)) return JSON.stringify(value);
  const members: string[] = [];
  for (const name of Object.keys(value).sort()) {
    members.push(`${JSON.stringify(name)}:${canonicalJson(value[name])}`);
  }
  return `{${members.join(",")}}`;
}
