/** What stands in the tables of verifications and in their events, and the statements on them. */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { isRecord, MalformedEventError, text } from "./event.ts";
import { flooredBy, type KeyRange } from "./floors.ts";

export type DriftKind = "missing" | "changed" | "extra" | "ahead";

/** What GET /verifications/INSTANCE/GENERATION says. */
export interface VerificationReport {
  readonly instance: string;
  readonly verification: number;
  readonly entity: string;
  /** Everything came, and nothing is left to be looked at again. */
  readonly complete: boolean;
  /** Rows that the source had; null until the end of the verification came. */
  readonly rows: number | null;
  /** Those of them that were compared: equal, missing and changed. */
  readonly compared: number;
  /** Newer here than the digest, so that they were left out. */
  readonly newer: number;
  /** Too large to be delivered, so that nobody can compare them. */
  readonly undeliverable: number;
  readonly missing: number;
  readonly changed: number;
  /** Here, and not in the source; or here more than once. */
  readonly extra: number;
  /** Here with a greater sequence than any event of the entity that came. */
  readonly ahead: number;
  /** Rows that do not agree and are looked at again. */
  readonly waiting: number;
  /** At most 10,000; the counts are of all. `id` is null where nothing is held. */
  readonly drifts: readonly {
    readonly id: string | null;
    readonly magento_id: string | number;
    readonly kind: DriftKind;
  }[];
  readonly begun_at: string;
  readonly completed_at: string | null;
}

export interface VerificationRow {
  readonly instance: string;
  readonly generation: number;
  readonly entity: string;
  readonly begunMs: number;
  /** The greatest sequence of its digests. */
  readonly through: string;
  readonly verified: VerifiedFacts | null;
  readonly extrasLooked: boolean;
  readonly completedMs: number | null;
  readonly counts: Readonly<Record<CountName, number>>;
}

export interface Suspect {
  readonly instance: string;
  readonly generation: number;
  readonly magentoId: string | number;
  /** What it ought to hash to; null: it ought not to be here. */
  readonly hash: string | null;
  readonly sequence: string;
  readonly tries: number;
}

export interface Listed {
  readonly magentoId: string | number;
  /** Null: too large to be delivered. */
  readonly hash: string | null;
}

interface EventFacts {
  readonly instance: string;
  readonly generation: number;
  readonly entity: string;
  readonly sequence: string;
}

export interface DigestFacts extends EventFacts {
  readonly offset: number;
  readonly rows: readonly Listed[];
}

export interface VerifiedFacts extends EventFacts {
  readonly rows: number;
  readonly fromSequence: string;
  readonly from: unknown;
  readonly to: unknown;
  readonly keys: unknown;
}

const countNames = ["equal", "newer", "undeliverable", "missing", "changed", "extra", "ahead"] as const;
export type CountName = (typeof countNames)[number];

export function digestOf(data: Readonly<Record<string, unknown>>): DigestFacts {
  const { rows } = data;
  if (!Array.isArray(rows)) throw new MalformedEventError("a digest has no rows");
  return { ...factsOf(data), offset: wholeNumber(data, "offset"), rows: rows.map(listedOf) };
}

export function verifiedOf(data: Readonly<Record<string, unknown>>): VerifiedFacts {
  const { from = null, to = null, keys = null } = data;
  // Refuses bounds and keys that are none.
  flooredBy(data);
  return {
    ...factsOf(data),
    rows: wholeNumber(data, "rows"),
    fromSequence: text(data, "from_sequence"),
    from,
    to,
    keys,
  };
}

/** What was asked for: bounds, or single keys. */
export function scopeOf({
  from,
  to,
  keys,
}: VerifiedFacts): KeyRange & { readonly keys: ReadonlySet<unknown> | null } {
  const floored = flooredBy({ from, to, keys });
  if (!Array.isArray(keys) || "low" in floored)
    return { ...("low" in floored ? floored : { low: null, high: null }), keys: null };
  return {
    low: null,
    high: null,
    keys: new Set(keys.map((key: unknown) => (isRecord(key) ? key["magento_id"] : undefined))),
  };
}

function factsOf(data: Readonly<Record<string, unknown>>): EventFacts {
  return {
    instance: text(data, "instance"),
    generation: wholeNumber(data, "generation"),
    entity: text(data, "entity"),
    sequence: text(data, "sequence"),
  };
}

function wholeNumber(data: Readonly<Record<string, unknown>>, name: string): number {
  const value = data[name];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new MalformedEventError(`${name} is no whole number`);
}

function listedOf(entry: unknown): Listed {
  const [magentoId, hash]: unknown[] = Array.isArray(entry) ? entry : [];
  const isKey = typeof magentoId === "string" || typeof magentoId === "number";
  if (isKey && (typeof hash === "string" || hash === null)) return { magentoId, hash };
  throw new MalformedEventError("a row of the digest is no pair of key and hash");
}

type Row = Readonly<Record<string, unknown>>;

export function verificationOf(row: Row): VerificationRow {
  const { verified, completed_ms: completedMs } = row;
  const counts: Record<string, number> = {};
  for (const name of countNames) counts[name] = Number(row[name]);
  return {
    instance: String(row["instance"]),
    generation: Number(row["generation"]),
    entity: String(row["entity"]),
    begunMs: Number(row["begun_ms"]),
    through: String(row["through"]),
    verified: typeof verified === "string" ? JSON.parse(verified) : null,
    extrasLooked: row["extras_looked"] === 1,
    completedMs: completedMs === null ? null : Number(completedMs),
    counts: { equal: 0, newer: 0, undeliverable: 0, missing: 0, changed: 0, extra: 0, ahead: 0, ...counts },
  };
}

export function suspectOf(row: Row): Suspect {
  const hash = row["hash"];
  return {
    instance: String(row["instance"]),
    generation: Number(row["generation"]),
    magentoId: keyOf(row),
    hash: typeof hash === "string" ? hash : null,
    sequence: String(row["sequence"]),
    tries: Number(row["tries"]),
  };
}

export function keyOf(row: Row): string | number {
  const magentoId = row["magento_id"];
  return typeof magentoId === "number" ? magentoId : String(magentoId);
}

export function reportOf(
  { instance, generation, entity, verified, counts, begunMs, completedMs }: VerificationRow,
  waiting: number,
  drifts: readonly Row[],
): VerificationReport {
  const { equal, newer, undeliverable, missing, changed, extra, ahead } = counts;
  return {
    instance,
    verification: generation,
    entity,
    complete: completedMs !== null,
    rows: verified?.rows ?? null,
    compared: equal + missing + changed,
    newer,
    undeliverable,
    missing,
    changed,
    extra,
    ahead,
    waiting,
    drifts: drifts.map((row) => ({
      id: typeof row["id"] === "string" ? row["id"] : null,
      magento_id: keyOf(row),
      kind: kindOf(row["kind"]),
    })),
    begun_at: new Date(begunMs).toISOString(),
    completed_at: completedMs === null ? null : new Date(completedMs).toISOString(),
  };
}

function kindOf(value: unknown): DriftKind {
  return value === "missing" || value === "changed" || value === "ahead" ? value : "extra";
}

/** Rows that drifted apart, of every kind. */
export function driftsOf({ missing, changed, extra, ahead }: Record<DriftKind, number>): number {
  return missing + changed + extra + ahead;
}

export function prepareVerifications(database: DatabaseSync) {
  const prepare = (sql: string): StatementSync => database.prepare(sql);
  const of = "WHERE instance = ? AND generation = ?";
  const count = (name: CountName): StatementSync =>
    prepare(`UPDATE verifications SET ${name} = ${name} + 1 ${of}`);
  const kept =
    "SELECT instance, generation FROM verifications ORDER BY begun_ms DESC, generation DESC LIMIT ?";
  return {
    add: prepare(
      `INSERT INTO verifications (instance, generation, entity, begun_ms) VALUES (?, ?, ?, ?)
       ON CONFLICT DO NOTHING`,
    ),
    one: prepare(`SELECT * FROM verifications ${of}`),
    open: prepare("SELECT * FROM verifications WHERE completed_ms IS NULL ORDER BY begun_ms, generation"),
    newest: prepare("SELECT * FROM verifications ORDER BY begun_ms DESC, generation DESC LIMIT ?"),
    raiseThrough: prepare(`UPDATE verifications SET through = ? ${of} AND through < ?`),
    setVerified: prepare(`UPDATE verifications SET verified = ? ${of}`),
    extrasLooked: prepare(`UPDATE verifications SET extras_looked = 1 ${of}`),
    complete: prepare(`UPDATE verifications SET completed_ms = ? WHERE instance = ? AND generation = ?`),
    count: {
      equal: count("equal"),
      newer: count("newer"),
      undeliverable: count("undeliverable"),
      missing: count("missing"),
      changed: count("changed"),
      extra: count("extra"),
      ahead: count("ahead"),
    },
    addDigest: prepare(
      "INSERT INTO digests (instance, generation, first_row, count) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
    ),
    coverage: prepare(`SELECT first_row, count FROM digests ${of} ORDER BY first_row`),
    dropDigests: prepare(`DELETE FROM digests ${of}`),
    addListed: prepare(
      "INSERT INTO listed (instance, generation, magento_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    ),
    dropListed: prepare(`DELETE FROM listed ${of}`),
    held: prepare(
      `SELECT id, sequence, deleted, fields FROM entities WHERE entity = ? AND magento_id = ?
       ORDER BY deleted, sequence DESC`,
    ),
    takeBack: prepare(
      "UPDATE entities SET sequence = ? WHERE entity = ? AND magento_id = ? AND sequence > ?",
    ),
    unlisted: prepare(
      `SELECT magento_id, sequence FROM entities AS here
       WHERE entity = ? AND ((deleted = 0 AND sequence <= ?) OR sequence > ?)
       AND NOT EXISTS (SELECT 1 FROM listed ${of} AND magento_id = here.magento_id)`,
    ),
    putSuspect: prepare(
      `INSERT OR REPLACE INTO suspects (instance, generation, magento_id, hash, sequence, tries, due_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
    ),
    due: prepare(`SELECT * FROM suspects ${of} AND due_ms <= ? LIMIT ?`),
    waiting: prepare(`SELECT count(*) AS n FROM suspects ${of}`),
    dropSuspect: prepare(`DELETE FROM suspects ${of} AND magento_id = ?`),
    addDrift: prepare(
      `INSERT INTO drifts (instance, generation, magento_id, id, kind) SELECT ?, ?, ?, ?, ?
       WHERE (SELECT missing + changed + extra + ahead FROM verifications ${of}) <= ? ON CONFLICT DO NOTHING`,
    ),
    drifts: prepare(`SELECT magento_id, id, kind FROM drifts ${of} ORDER BY magento_id`),
    prune: ["digests", "listed", "suspects", "drifts", "verifications"].map((table) =>
      prepare(`DELETE FROM ${table} WHERE (instance, generation) NOT IN (${kept})`),
    ),
  };
}
