/** What a source is made of, and its limits. */
import type { Checkpoint, FollowedTable, WantedJob } from "../change.ts";
import type { Clock, Log } from "../kernel/service.ts";
import type { SourceObserver } from "../ports.ts";
import { partLimits } from "./group-rows.ts";
import type { SourceSettings } from "./settings.ts";
import type { ReadingRules } from "./snapshot/weave-parts.ts";
import type { StreamLimits } from "./stream-parts.ts";

export interface BinlogSourceParts {
  readonly settings: SourceSettings;
  readonly tables: readonly FollowedTable[];
  readonly observer: SourceObserver;
  readonly log: Log;
  readonly clock: Clock;
  /** For tests: smaller limits, shorter times. */
  readonly limits?: Partial<SourceLimits>;
  readonly silenceLookMs?: number;
  readonly snapshots?: SnapshotParts;
}

/** How rows are read beside the stream; without it only what a checkpoint has under way. */
export interface SnapshotParts extends Partial<ReadingRules> {
  /** What is to be read when the stream begins there (null: for the first time), beside what is under way. */
  readonly wanted: (after: Checkpoint | null) => readonly WantedJob[];
}

export interface SourceLimits extends StreamLimits {
  /** How long a server that took another one's place may lack what was read from that one. */
  readonly replicaDelayMs: number;
  /** Shortest wait after another client came with our server id: two that chase each other serve nobody. */
  readonly idTakenMs: number;
}

export const defaultLimits: SourceLimits = {
  parts: partLimits,
  queueBytes: 1024 * 1024,
  pauseMs: 10_000,
  heartbeatMs: 5_000,
  pullRows: 500,
  pullBytes: 512 * 1024,
  progressMs: 1_000,
  progressBytes: 8 * 1024 * 1024,
  replicaDelayMs: 30_000,
  idTakenMs: 5_000,
};
