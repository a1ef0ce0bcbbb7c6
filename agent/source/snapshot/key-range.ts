/** Ranges of a single integer key that digests are made of: each holds all its rows at one place. */
import type { FollowedTable, KeyRange, Row, SnapshotJob } from "../../change.ts";
import { assert } from "../../kernel/assert.ts";
import type { OpenTable, ReadChunk } from "./chunk-reader.ts";

/** Which rows belong to a chunk that were not there when it was read, and how all of them are ordered. */
export interface RangeRule {
  readonly range: KeyRange;
  holds(row: Row): boolean;
  compare(one: Row, other: Row): number;
}

/**
 * The range of a chunk of digests; null for other purposes, for other keys, and where single keys
 * were asked for: there a chunk is the rows that it lists.
 */
export function rangeRule(
  job: SnapshotJob,
  followed: FollowedTable,
  table: OpenTable | null,
  read: Pick<ReadChunk, "after" | "isLast">,
): RangeRule | null {
  const { scope, purpose } = job;
  if (purpose !== "digests" || scope.kind === "keys" || table === null) return null;
  const { reading } = table;
  const [index] = followed.keyColumns;
  const [order] = reading.order;
  const isOrdered = reading.order.length === 1 && order?.name.toLowerCase() === keyName(followed);
  if (index === undefined || !reading.isIntegerKey || !isOrdered) return null;
  const first = scope.kind === "range" ? String(BigInt(scope.from) - 1n) : null;
  const last = scope.kind === "range" ? scope.to : null;
  const range: KeyRange = {
    after: job.after === null ? first : integerText(job.after),
    through: read.isLast || read.after === null ? last : integerText(read.after),
  };
  const key = (row: Row): bigint => {
    const value = row[index];
    assert(typeof value === "number" || typeof value === "string", "an integer key has a value");
    return BigInt(value);
  };
  return {
    range,
    holds: (row) =>
      (range.after === null || key(row) > BigInt(range.after)) &&
      (range.through === null || key(row) <= BigInt(range.through)),
    compare: (one, other) => (key(one) < key(other) ? -1 : 1),
  };
}

function keyName({ columns, keyColumns }: FollowedTable): string {
  return (columns[keyColumns[0] ?? -1] ?? "").toLowerCase();
}

function integerText(after: readonly string[]): string {
  return Buffer.from(after[0] ?? "", "base64").toString("latin1");
}
