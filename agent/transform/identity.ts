/**
 * Identity (spec.md section 2): the UUID of an entity is a function of shop, entity and Magento's
 * key, so any service can compute it without a lookup.
 *
 *     UUIDv5(namespace, "<shop>/<entity>:<magento_id>")
 */
import { hash } from "node:crypto";
import { AgentError } from "../kernel/errors.ts";
import type { Value } from "../change.ts";

/** The namespace of shops that set none (IDENTITY_NAMESPACE). Never change it: every id would change. */
export const DEFAULT_IDENTITY_NAMESPACE = "18fd94b7-9f51-43a0-bd06-a6a1c5e0ae47";

/** Key of an entity as Magento has it: a number for one integer column, else text. */
export type MagentoId = number | string;

/** Imported identities: the UUID that an earlier migration gave to this key, or null. */
export type LookupUuid = (entity: string, magentoId: MagentoId) => string | null;

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const variantDigits = Buffer.from("89ab");
const DASH = 0x2d;
const VERSION_5 = 0x35;
/** Where the 32 digits of a hash stand in a UUID. */
const digitPlaces = Array.from(
  { length: 32 },
  (_, digit) => digit + (digit < 8 ? 0 : digit < 12 ? 1 : digit < 16 ? 2 : digit < 20 ? 3 : 4),
);
const namespaceBytes = 16;
const scratchBytes = 512;
/** Slots of the cache of integer keys of one entity; a power of two. */
const cacheSlots = 8_192;
/** Text keys kept; the cache starts afresh when it is full. */
const textCacheMax = 8_192;

/** Whether the text is a UUID in its usual form. */
export function isUuid(text: string): boolean {
  return uuidPattern.test(text);
}

/** UUIDs version 5 (RFC 9562) of one namespace. Not for use across threads: it owns a scratch buffer. */
export class UuidNamespace {
  readonly #scratch = Buffer.alloc(scratchBytes);
  readonly #text = Buffer.alloc(36, DASH);

  constructor(namespace: string) {
    if (!isUuid(namespace)) {
      throw new AgentError("CONFIG_INVALID", `IDENTITY_NAMESPACE "${namespace}" is not a UUID`, {
        hint: `Use a UUID such as ${DEFAULT_IDENTITY_NAMESPACE}.`,
      });
    }
    this.#scratch.write(namespace.replaceAll("-", ""), 0, "hex");
  }

  uuidOf(name: string): string {
    let bytes: Buffer;
    if (name.length * 3 <= scratchBytes - namespaceBytes) {
      const written = this.#scratch.write(name, namespaceBytes, "utf8");
      bytes = this.#scratch.subarray(0, namespaceBytes + written);
    } else {
      bytes = Buffer.concat([this.#scratch.subarray(0, namespaceBytes), Buffer.from(name, "utf8")]);
    }
    return this.#uuidText(hash("sha1", bytes, "hex"));
  }

  /** As one flat string: these are kept by the thousand, and one of slices would keep all its pieces. */
  #uuidText(hex: string): string {
    const text = this.#text;
    for (let digit = 0; digit < 32; digit += 1) text[digitPlaces[digit] ?? 0] = hex.charCodeAt(digit);
    text[14] = VERSION_5;
    text[19] = variantDigits[Number.parseInt(hex.charAt(16), 16) & 3] ?? 0;
    return text.toString("latin1");
  }
}

/**
 * UUIDs of the keys of one entity. Computed ones are remembered, in bounded memory: orders and
 * their items name the same customer, order and product again and again.
 */
export class EntityIdentity {
  readonly #entity: string;
  readonly #namespace: UuidNamespace;
  readonly #prefix: string;
  readonly #lookupUuid: LookupUuid | null;
  readonly #keys: Float64Array = new Float64Array(cacheSlots).fill(Number.NaN);
  readonly #uuids: string[] = Array<string>(cacheSlots).fill("");
  readonly #texts = new Map<string, string>();

  constructor(entity: string, shop: string, namespace: UuidNamespace, lookupUuid: LookupUuid | null) {
    this.#entity = entity;
    this.#namespace = namespace;
    this.#prefix = `${shop}/${entity}:`;
    this.#lookupUuid = lookupUuid;
  }

  uuidOf(magentoId: MagentoId): string {
    // Imported pairs are asked for each time: one may have been imported since the last event.
    const imported = this.#lookupUuid === null ? null : this.#lookupUuid(this.#entity, magentoId);
    if (imported !== null) return imported;
    if (typeof magentoId === "string") return this.#uuidOfText(magentoId);
    const slot = magentoId & (cacheSlots - 1);
    if (this.#keys[slot] === magentoId) return this.#uuids[slot] ?? "";
    const uuid = this.#namespace.uuidOf(this.#prefix + magentoId);
    this.#keys[slot] = magentoId;
    this.#uuids[slot] = uuid;
    return uuid;
  }

  #uuidOfText(magentoId: string): string {
    const known = this.#texts.get(magentoId);
    if (known !== undefined) return known;
    const uuid = this.#namespace.uuidOf(this.#prefix + magentoId);
    if (this.#texts.size >= textCacheMax) this.#texts.clear();
    this.#texts.set(magentoId, uuid);
    return uuid;
  }
}

/** Columns of a key: where they stand in a row, and their names for what is said when one is missing. */
export interface KeyColumns {
  readonly table: string;
  readonly columns: readonly string[];
  readonly indices: readonly number[];
}

/**
 * `magento_id` of a row: the number of a single integer column, the text of a single other one,
 * and of a composite key its parts, percent-encoded, joined by `:`.
 */
export function magentoIdOf(key: KeyColumns, row: readonly (Value | undefined)[]): MagentoId {
  const first = keyPart(key, row, 0);
  if (key.indices.length === 1) return first;
  let text = encodePart(first);
  for (let index = 1; index < key.indices.length; index += 1) {
    text += `:${encodePart(keyPart(key, row, index))}`;
  }
  return text;
}

/** Key inside the agent: table and length-prefixed parts, so that no two entities share one. */
export function entityKeyOf(key: KeyColumns, row: readonly (Value | undefined)[]): string {
  let text = key.table;
  for (let index = 0; index < key.indices.length; index += 1) {
    const part = String(keyPart(key, row, index));
    text += `|${part.length}:${part}`;
  }
  return text;
}

function keyPart(key: KeyColumns, row: readonly (Value | undefined)[], index: number): number | string {
  const value = row[key.indices[index] ?? -1];
  if (typeof value === "number" || typeof value === "string") return value;
  if (typeof value === "object" && value !== null) {
    // The bytes, not their reading: two keys with different invalid bytes read the same.
    return "base64" in value ? `%${value.base64}` : value.json;
  }
  // Without its key a row is nobody's; to leave it out would lose a change in silence.
  throw new AgentError(
    "SOURCE_UNREADABLE",
    `a row of ${key.table} has no value in the key column "${key.columns[index] ?? ""}"`,
    { hint: 'Give the table\'s mapping "keys" that are never null, such as its primary key.' },
  );
}

function encodePart(part: number | string): string {
  if (typeof part === "number") return String(part);
  if (!part.includes("%") && !part.includes(":")) return part;
  return part.replaceAll("%", "%25").replaceAll(":", "%3A");
}
