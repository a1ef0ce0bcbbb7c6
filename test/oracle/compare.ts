/**
 * The oracle: source tables against a consumer's replica, entity by entity and field by field. It
 * never passes on nothing: a followed table without rows is itself a difference.
 */
import { isDeepStrictEqual } from "node:util";
import type { Connection } from "mysql2/promise";
import { entities, type EntitySpec } from "./entities.ts";
import type { Replica, ReplicaEntity } from "./replica.ts";
import { describeSource, sourceRows, type ExpectedEntity, type ShopIdentity } from "./source-rows.ts";

export interface EntityCounts {
  readonly entity: string;
  readonly source: number;
  readonly live: number;
  readonly deleted: number;
  readonly different: number;
}

export interface Comparison {
  readonly equal: boolean;
  readonly counts: readonly EntityCounts[];
  /** The first differences in words; `total` counts all of them. */
  readonly differences: readonly string[];
  readonly total: number;
}

export interface ComparisonSettings {
  readonly connection: Connection;
  readonly identity: ShopIdentity;
  readonly replica: Replica;
  /** Entities to compare; all ten when left out. */
  readonly entities?: readonly EntitySpec[];
  /** Entities whose table may be empty because the test deletes everything on purpose. */
  readonly mayBeEmpty?: readonly string[];
}

const shownDifferences = 40;

class Differences {
  readonly shown: string[] = [];
  total = 0;

  add(words: string): void {
    this.total += 1;
    if (this.shown.length < shownDifferences) this.shown.push(words);
  }
}

function brief(value: unknown): string {
  const json = value === undefined ? "(absent)" : JSON.stringify(value);
  return json.length > 120 ? `${json.slice(0, 117)}...` : json;
}

function compareFields(
  label: string,
  expected: ExpectedEntity,
  held: ReplicaEntity,
  found: Differences,
): void {
  const names = new Set([...Object.keys(expected.fields), ...Object.keys(held.fields)]);
  for (const name of names) {
    const [want, have] = [expected.fields[name], held.fields[name]];
    if (!isDeepStrictEqual(want, have)) {
      found.add(`${label}: ${name}: source ${brief(want)}, replica ${brief(have)}`);
    }
  }
}

function compareOne(
  spec: EntitySpec,
  expected: ExpectedEntity,
  held: ReplicaEntity | null,
  found: Differences,
): void {
  const label = `${spec.entity} ${expected.magentoId}`;
  if (held === null) {
    found.add(`${label}: missing in the replica (id ${expected.id})`);
    return;
  }
  if (held.deleted) {
    found.add(`${label}: deleted in the replica, present in the source (sequence ${held.sequence})`);
    return;
  }
  if (held.magentoId !== expected.magentoId) {
    found.add(`${label}: magento_id: source ${brief(expected.magentoId)}, replica ${brief(held.magentoId)}`);
  }
  compareFields(label, expected, held, found);
}

/** Replica's side: what lives there must be in the source, and what died must hold no person. */
function compareRest(
  spec: EntitySpec,
  replica: Replica,
  seen: ReadonlySet<string>,
  found: Differences,
): { live: number; deleted: number } {
  const personal = spec.fields.filter((field) => field.personal).map((field) => field.field);
  let [live, deleted] = [0, 0];
  for (const held of replica.all(spec.entity)) {
    const label = `${spec.entity} ${held.magentoId}`;
    if (!held.deleted) {
      live += 1;
      if (!seen.has(held.id)) {
        found.add(`${label}: lives in the replica, absent in the source (sequence ${held.sequence})`);
      }
      continue;
    }
    deleted += 1;
    const kept = personal.filter((name) => (held.fields[name] ?? null) !== null);
    if (kept.length > 0) found.add(`${label}: deleted, but the replica still holds ${kept.join(", ")}`);
  }
  return { live, deleted };
}

async function compareEntity(
  settings: ComparisonSettings,
  spec: EntitySpec,
  found: Differences,
): Promise<EntityCounts> {
  const before = found.total;
  const seen = new Set<string>();
  const shape = await describeSource(settings.connection, settings.identity, spec);
  for await (const expected of sourceRows(settings.connection, shape, settings.identity)) {
    seen.add(expected.id);
    compareOne(spec, expected, settings.replica.get(spec.entity, expected.id), found);
  }
  if (seen.size === 0 && !(settings.mayBeEmpty ?? []).includes(spec.entity)) {
    found.add(`${spec.entity}: ${spec.table} is empty, so nothing is proven about it`);
  }
  const { live, deleted } = compareRest(spec, settings.replica, seen, found);
  return { entity: spec.entity, source: seen.size, live, deleted, different: found.total - before };
}

/** Compares while no one writes and everything was delivered; the caller sees to both. */
export async function compareReplica(settings: ComparisonSettings): Promise<Comparison> {
  const found = new Differences();
  const counts: EntityCounts[] = [];
  for (const spec of settings.entities ?? entities) counts.push(await compareEntity(settings, spec, found));
  return { equal: found.total === 0, counts, differences: found.shown, total: found.total };
}

/** Counts per entity as lines for a person. */
export function countsTable(counts: readonly EntityCounts[]): string {
  const rows = counts.map((row) =>
    [
      row.entity.padEnd(14),
      String(row.source).padStart(9),
      String(row.live).padStart(9),
      String(row.deleted).padStart(9),
      String(row.different).padStart(10),
    ].join(""),
  );
  const head = `${"entity".padEnd(14)}${"source".padStart(9)}${"replica".padStart(9)}${"deleted".padStart(9)}`;
  return [`${head}${"different".padStart(10)}`, ...rows].join("\n");
}

/** The comparison as text: counts, then the differences. */
export function describeComparison(comparison: Comparison): string {
  const lines = [countsTable(comparison.counts)];
  if (!comparison.equal) {
    lines.push(`${comparison.total} differences, the first ${comparison.differences.length}:`);
    lines.push(...comparison.differences);
  }
  return lines.join("\n");
}
