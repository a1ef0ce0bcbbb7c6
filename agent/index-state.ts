/**
 * How the index of one relation stands, and how that changes. Pure.
 *
 * Each entry carries the number that was in force when it was written. A relation's number grows with
 * every loop of capture, so that of a loop in which a scan's first rows are read is in no older entry,
 * and in every entry of a row that changed since before that read. When the scan ends all entries with
 * smaller numbers are void at once, whether they were removed already or not: they are of children that
 * are no more. So a scan ends with exactly what is there, and removing what is void can take its time.
 */
import type { SnapshotChunk, TableEvent } from "./change.ts";
import type { IndexChange } from "./ports.ts";

export interface RelationState {
  /** Of what its entries depend on (transform/relations.ts); "" while its table is not followed. */
  readonly fingerprint: string;
  /** Stands in every entry that is written now. */
  readonly number: number;
  /** Entries with a smaller number are void. */
  readonly floor: number;
  /** Those with a smaller number than this one were removed too. */
  readonly swept: number;
  /** The scan under way: its job, and the number in force when it read its first rows. */
  readonly scan: { readonly generation: number; readonly floor: number } | null;
  /** Generation of the job since whose end every child is there; null: some may be missing. */
  readonly completeSince: number | null;
}

/** A new loop begins. `before` null: nothing is known of what lies on disk. */
export function begun(before: RelationState | null, fingerprint: string, nowMs: number): RelationState {
  const number = nextNumber(before?.number ?? 0, nowMs);
  if (before?.fingerprint === fingerprint) return { ...before, number };
  return {
    fingerprint,
    number,
    floor: number,
    swept: before?.swept ?? 0,
    scan: null,
    completeSince: null,
  };
}

/** A chunk of its table begins or ends a scan. */
export function scanned(state: RelationState, { job, isFirst, isLast }: SnapshotChunk): RelationState {
  if (job.scope.kind !== "all" || job.purpose === "digests") return state;
  const { generation } = job;
  const scan = isFirst ? { generation, floor: state.number } : state.scan;
  if (!isLast) return { ...state, scan };
  // Begun before something that made it void: it proves nothing.
  if (scan?.generation !== generation) return state;
  return { ...state, scan: null, floor: scan.floor, completeSince: generation };
}

/**
 * Its table was changed by a statement: what its rows are now, only a scan tells, and one that was begun
 * before proves nothing. Values may have another type from here on, and so another form in entries.
 */
export function tableChanged(state: RelationState, what: TableEvent["what"], nowMs: number): RelationState {
  const number = nextNumber(state.number, nowMs);
  return { ...distrusted(state), number, floor: what === "altered" ? state.floor : number };
}

/** Children may be missing: a part of the history was not read, or entries were lost. */
export function distrusted(state: RelationState): RelationState {
  return { ...state, scan: null, completeSince: null };
}

/** Not behind the clock, so that it is greater than those on disk also where the state was lost. */
function nextNumber(before: number, nowMs: number): number {
  return Math.max(before + 1, Math.floor(nowMs / 1000));
}

/** Key of a relation's state in the index room. */
export function stateKey(relation: number): Buffer {
  return Buffer.from([0, relation]);
}

export function stateRecord(relation: number, state: RelationState): IndexChange {
  return { key: stateKey(relation), value: Buffer.from(JSON.stringify(state)) };
}

/** Null where it cannot be understood. */
export function readState(value: Buffer): RelationState | null {
  let read: unknown;
  try {
    read = JSON.parse(value.toString("utf8"));
  } catch {
    return null;
  }
  return isRelationState(read) ? read : null;
}

function isRelationState(value: unknown): value is RelationState {
  if (typeof value !== "object" || value === null) return false;
  if (!("fingerprint" in value && "number" in value && "floor" in value && "swept" in value)) return false;
  if (!("scan" in value && "completeSince" in value)) return false;
  return (
    typeof value.fingerprint === "string" &&
    [value.number, value.floor, value.swept].every(Number.isSafeInteger) &&
    (value.completeSince === null || Number.isSafeInteger(value.completeSince))
  );
}

/** Whether an entry, or a lookup, is void. */
export function isVoid(value: Buffer, floor: number): boolean {
  return value.length < 4 || value.readUInt32BE(0) < floor;
}
