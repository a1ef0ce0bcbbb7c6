/** What is kept of verifications, and how what they find is healed. */
import type { SnapshotScope } from "./change.ts";
import type { VerificationFacts } from "./observe/facts.ts";
import { RESYNC_KEYS_MAX } from "./snapshots.ts";
import type { VerifyReport } from "./verify-report.ts";

/** Single keys are not kept: their drift is listed in full. */
export type KeptScope = Exclude<SnapshotScope, { readonly kind: "keys" }> | { readonly kind: "keys" };

export interface VerificationRecord extends VerificationFacts {
  readonly scope: KeptScope;
}

/** Verifications that are done and still told of. */
const DONE_MAX = 30;
/** Drifted rows that are read again by their keys; with more a range or the whole is read. */
const HEAL_KEYS_MAX = 4 * RESYNC_KEYS_MAX;

export function newRecord(made: {
  readonly entity: string;
  readonly generation: number;
  readonly scope: SnapshotScope;
  readonly recheckOf: number | null;
  readonly nowMs: number;
}): VerificationRecord {
  const { entity, generation, scope, recheckOf, nowMs } = made;
  return {
    entity,
    generation,
    scope: scope.kind === "keys" ? { kind: "keys" } : scope,
    recheckOf,
    startedAtMs: nowMs,
    state: "reading",
    sentAtMs: null,
    counts: null,
    resyncs: [],
    outcome: null,
    endedAtMs: null,
    reason: null,
  };
}

/** Without the oldest of those that nobody waits for. */
export function pruned(records: readonly VerificationRecord[]): readonly VerificationRecord[] {
  const open = new Set(records.filter(({ state }) => state !== "done").map(({ generation }) => generation));
  const isNeeded = ({ generation, recheckOf }: VerificationRecord): boolean =>
    open.has(generation) || (recheckOf !== null && open.has(recheckOf));
  const done = records.filter((one) => !isNeeded(one)).slice(-DONE_MAX);
  return records.filter((one) => isNeeded(one) || done.includes(one));
}

/** What is read again: single keys in groups, else the range that holds them, else what was compared. */
export function healingScopes(
  scope: KeptScope,
  keys: VerifyReport["keys"],
  drifted: number,
): readonly SnapshotScope[] {
  if (keys.length === drifted && drifted <= HEAL_KEYS_MAX) {
    const groups: SnapshotScope[] = [];
    for (let at = 0; at < keys.length; at += RESYNC_KEYS_MAX)
      groups.push({ kind: "keys", keys: keys.slice(at, at + RESYNC_KEYS_MAX).map(String) });
    return groups;
  }
  const numbers = keys.filter((key) => typeof key === "number");
  if (keys.length === drifted && numbers.length === drifted) {
    const [from, to] = [numbers.reduce((a, b) => Math.min(a, b)), numbers.reduce((a, b) => Math.max(a, b))];
    return [{ kind: "range", from: String(from), to: String(to) }];
  }
  return [scope.kind === "keys" ? { kind: "all" } : scope];
}

/** Of a value that this agent wrote and the spool has verified: enough to tell its shape. */
export function isStored(value: unknown): value is { readonly records: readonly VerificationRecord[] } {
  return typeof value === "object" && value !== null && "records" in value && Array.isArray(value.records);
}
