/**
 * What the state must agree with before anything is captured: the identity that all ids are made
 * from, and the version of each entity's mapping.
 */
import { randomUUID } from "node:crypto";
import { AgentError } from "./kernel/errors.ts";
import type { Settings } from "./config/settings-table.ts";
import { mappingFingerprint } from "./transform/transform.ts";
import type { Mapping } from "./transform/mapping.ts";

/** Small durable values; the spool's meta room. */
export interface StateValues {
  get(name: string): Promise<unknown>;
  put(name: string, value: unknown): Promise<void>;
}

export interface StoredIdentity {
  readonly shop: string;
  readonly namespace: string;
  readonly instance: string;
}

/**
 * Writes shop and namespace at the first start and compares them ever after. Resolves with the
 * state's own UUID. Throws IDENTITY_CHANGED with both values.
 */
export async function guardIdentity(values: StateValues, settings: Settings): Promise<string> {
  const stored = await readIdentity(values);
  if (stored === null) {
    const identity: StoredIdentity = {
      shop: settings.shopName,
      namespace: settings.identityNamespace,
      instance: randomUUID(),
    };
    await values.put("identity", identity);
    return identity.instance;
  }
  const differences: string[] = [];
  if (stored.shop !== settings.shopName) {
    differences.push(`SHOP_NAME is "${settings.shopName}", the state was made with "${stored.shop}"`);
  }
  if (stored.namespace !== settings.identityNamespace) {
    differences.push(
      `IDENTITY_NAMESPACE is ${settings.identityNamespace}, the state was made with ${stored.namespace}`,
    );
  }
  if (differences.length > 0) throw new AgentError("IDENTITY_CHANGED", differences.join("; "));
  return stored.instance;
}

/** What the state was made for; null before its first start. */
export async function readIdentity(values: StateValues): Promise<StoredIdentity | null> {
  const stored = await values.get("identity");
  if (stored === undefined) return null;
  if (!isStoredIdentity(stored))
    throw new AgentError("SPOOL_CORRUPT", "the state's identity is not readable");
  return stored;
}

function isStoredIdentity(value: unknown): value is StoredIdentity {
  if (typeof value !== "object" || value === null) return false;
  if (!("shop" in value && "namespace" in value && "instance" in value)) return false;
  return [value.shop, value.namespace, value.instance].every((text) => typeof text === "string");
}

/** Version and fingerprint of each entity, as they are kept in the state. */
export type SchemaRecord = Readonly<
  Record<string, { readonly version: number; readonly fingerprint: string }>
>;

export interface SchemaChange {
  readonly entity: string;
  readonly schemaVersion: number;
  readonly previousVersion: number | null;
}

export interface SchemaPlan {
  readonly record: SchemaRecord;
  readonly versions: Readonly<Record<string, number>>;
  /** Entities whose mapping is another one than in the state. Empty at the first start. */
  readonly changes: readonly SchemaChange[];
}

/** Compares the mapping in effect with the state's. Pure; the caller stores `record` afterwards. */
export function planSchemas(
  stored: SchemaRecord | null,
  mapping: Mapping,
  fieldHashKey: string | null,
): SchemaPlan {
  // Entities that the mapping no longer has keep their version: one that returns must not fall back.
  const record: Record<string, { version: number; fingerprint: string }> = { ...stored };
  const versions: Record<string, number> = {};
  const changes: SchemaChange[] = [];
  for (const entity of mapping.entities) {
    const fingerprint = mappingFingerprint(entity, fieldHashKey);
    const known = stored?.[entity.entity];
    const version =
      known === undefined ? 1 : known.fingerprint === fingerprint ? known.version : known.version + 1;
    record[entity.entity] = { version, fingerprint };
    versions[entity.entity] = version;
    if (stored !== null && known?.fingerprint !== fingerprint) {
      changes.push({
        entity: entity.entity,
        schemaVersion: version,
        previousVersion: known?.version ?? null,
      });
    }
  }
  return { record, versions, changes };
}

/** The state's record, or null at the first start. */
export async function readSchemas(values: StateValues): Promise<SchemaRecord | null> {
  const stored = await values.get("schemas");
  if (stored === undefined) return null;
  if (!isSchemaRecord(stored))
    throw new AgentError("SPOOL_CORRUPT", "the state's schema versions are not readable");
  return stored;
}

function isSchemaRecord(value: unknown): value is SchemaRecord {
  if (typeof value !== "object" || value === null) return false;
  return Object.values(value).every(
    (entry: unknown) =>
      typeof entry === "object" &&
      entry !== null &&
      "version" in entry &&
      typeof entry.version === "number" &&
      "fingerprint" in entry &&
      typeof entry.fingerprint === "string",
  );
}
