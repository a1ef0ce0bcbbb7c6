/**
 * What the agent knows of itself at one moment. `main.ts` gathers it from the rooms; metrics, health,
 * status command and systemd's status line are all made from it, so they cannot disagree.
 */
import type { Op, QueueLane } from "../change.ts";
import type { SnapshotStatus, SourceStatus } from "../ports.ts";

export interface SpoolFacts {
  readonly events: number;
  readonly bytes: number;
  readonly bytesMax: number;
  readonly freeBytes: number;
  readonly freeMinBytes: number;
  readonly quarantined: number;
  /** Queues that wait until their damage is healed. */
  readonly damagedQueues: number;
}

/** The oldest event of a lane of a queue that the broker has not accepted. */
export interface QueueHead extends QueueLane {
  readonly table: string;
  readonly op: Op | "";
  readonly commitTimeMs: number;
  readonly capturedAtMs: number;
  readonly waiting: number;
}

export interface HeldTopic {
  readonly topic: string;
  readonly code: string;
  readonly message: string;
  readonly sinceMs: number;
}

export interface PositionFacts {
  readonly file: string;
  readonly position: number;
  readonly gtidSet: string | null;
  readonly epoch: number;
}

export interface MappingFacts {
  /** When it was taken up: milliseconds since 1970. */
  readonly sinceMs: number;
  /** schema_version of each entity. */
  readonly versions: Readonly<Record<string, number>>;
  /** A newer one was read, and waits for the end of a large transaction. */
  readonly isNextWaiting: boolean;
}

/** Why nothing is captured until somebody acts. */
export interface HaltFacts {
  readonly code: string;
  /** Which case of the code; null where there is only one. */
  readonly detail: string | null;
  readonly message: string;
  readonly hint: string;
}

/** When the server purges what is still needed (source/retention.ts). */
export interface BinlogRunwayFacts {
  readonly purgeNotBeforeMs: number;
  readonly by: "age" | "size" | "none" | "purged";
  readonly expireSeconds: number | null;
  readonly replicasNeeded: number;
  readonly measuredAtMs: number;
}

export interface RunwayFacts {
  /** Null until it was measured. */
  readonly binlog: BinlogRunwayFacts | null;
  /** Hours until the spool is full at the pace of the last minutes; null while that is not known. */
  readonly spoolHours: number | null;
}

/** All commits up to this time and place were accepted; null before the first. */
export interface CompleteFacts {
  readonly completeUpToMs: number | null;
  readonly file: string | null;
  readonly position: number | null;
  readonly gtidSet: string | null;
}

/** What the index keeps: since which scan each relation is complete; null: some of it may be missing. */
export type IndexFacts = ReadonlyArray<{ readonly relation: string; readonly completeSince: number | null }>;

/**
 * How a row can have drifted apart. missing: not at the consumer, or deleted there; changed; extra: there,
 * and not in the source; ahead: there with a greater sequence than anything that came.
 */
export const driftKinds = ["missing", "changed", "extra", "ahead"] as const;

/** Rows of a verification, as a consumer counts them. */
export interface DriftCounts extends Readonly<Record<(typeof driftKinds)[number], number>> {
  readonly compared: number;
  /** Newer there than the digests, so that they were left out. */
  readonly newer: number;
  /** Too large to be delivered, so that nobody can compare them. */
  readonly undeliverable: number;
}

/** Rows that drifted apart, of every kind. */
export function driftedRows(counts: DriftCounts): number {
  return driftKinds.reduce((sum, kind) => sum + counts[kind], 0);
}

/**
 * How a verification ended. equal: no row drifted apart. healed: what had is read again, and compared
 * once more without drift. drift: some rows still differ. incomplete: none does, and some are too
 * large to be delivered. sent: nobody told the agent where consumers
 * report. unreported: no consumer gave a report in time. unread: its rows could not be read.
 */
export type VerifyOutcome = "equal" | "healed" | "drift" | "incomplete" | "sent" | "unreported" | "unread";

/** A comparison of an entity with its consumers (`verify`). */
export interface VerificationFacts {
  readonly generation: number;
  readonly entity: string;
  readonly startedAtMs: number;
  readonly state: "reading" | "delivering" | "asking" | "healing" | "done";
  /** When the broker had all of it. */
  readonly sentAtMs: number | null;
  /** The verification whose drift was healed before this one looked at the same rows again. */
  readonly recheckOf: number | null;
  readonly counts: DriftCounts | null;
  /** Resyncs that heal what it found. */
  readonly resyncs: readonly number[];
  readonly outcome: VerifyOutcome | null;
  readonly endedAtMs: number | null;
  /** Why, in words, where the outcome alone does not say it. */
  readonly reason: string | null;
}

/** What consumers can have of rows that were there before the agent, or whose history was lost. */
export interface RowsFacts {
  /** Tables of which not all rows were read; where they are trusted, those alone that lost something since. */
  readonly unread: readonly string[];
  /** Rows of some entity are being read, or about to be. */
  readonly isReading: boolean;
  /** The setting by which somebody else brings consumers what was there before; null: the agent does. */
  readonly trusted: "SNAPSHOT_MODE=never" | "START_POSITION" | null;
}

export interface AgentFacts {
  readonly nowMs: number;
  readonly startedAtMs: number;
  readonly version: string;
  readonly shop: string;
  readonly database: string;
  readonly instance: string;
  readonly ready: boolean;
  readonly source: SourceStatus;
  /** Null while capture goes on, or waits for what mends itself. */
  readonly halted: HaltFacts | null;
  readonly mapping: MappingFacts;
  readonly position: PositionFacts | null;
  /** Null where there is no spool (a run that prints its events). */
  readonly spool: SpoolFacts | null;
  readonly runway: RunwayFacts;
  /** What is being read beside the stream; null while nothing is. */
  readonly snapshot: SnapshotStatus | null;
  readonly rows: RowsFacts;
  readonly index: IndexFacts;
  /** The newest last; those that are done are kept for a while. */
  readonly verifications: readonly VerificationFacts[];
  readonly complete: CompleteFacts;
  readonly heads: readonly QueueHead[];
  readonly held: readonly HeldTopic[];
  readonly intakeClosed: { readonly code: string; readonly message: string } | null;
  /** Seconds from commit to acceptance by table, growing while something waits. */
  readonly lagSeconds: ReadonlyMap<string, number>;
  readonly accepted: {
    readonly events: number;
    readonly lastAtMs: number | null;
    readonly lastSeconds: number | null;
  };
}
