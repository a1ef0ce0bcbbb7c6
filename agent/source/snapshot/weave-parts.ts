/** What the weave works with: the stream, the rules of reading, and the chunk under way. */
import type { Checkpoint, FollowedTable, Position, SnapshotJob, SnapshotProgress } from "../../change.ts";
import type { AgentError } from "../../kernel/errors.ts";
import type { Clock, Log } from "../../kernel/service.ts";
import type { SourceObserver } from "../../ports.ts";
import type { SourceSettings } from "../settings.ts";
import type { ReadChunk } from "./chunk-reader.ts";
import type { Window } from "./window.ts";

/** The stream as the weave sees it. */
export interface StreamView {
  /** A number of its connection; null while there is none. */
  connection(): number | null;
  /** Everything up to here was taken; null inside a transaction, or while nothing is known. */
  delivered(): Position | null;
  deliveredCheckpoint(): Checkpoint | null;
  /** Whether a transaction that was read ends there. */
  endsAt(position: Position): boolean;
  /** Makes whoever waits for the stream look again. */
  wakeUp(): void;
}

/** When rows may be read, and how many. */
export interface ReadingRules {
  /** Why no rows may be read now; null where they may. */
  readonly mayRead: () => string | null;
  /** Rows a second; null: as fast as the database answers quickly. */
  readonly rateMax: number | null;
  /** What is to be read once a statement put rows into the table, or changed their values; without it nothing more. */
  readonly afterReplacement?: (table: string, progress: SnapshotProgress | undefined) => SnapshotProgress;
  /** For tests: smaller chunks. */
  readonly rowsMax?: number;
  /** For a test that shows what the low mark is for: everything that was streamed is taken for visible. */
  readonly naiveLowMark?: boolean;
}

export interface WeaveParts extends ReadingRules {
  readonly settings: SourceSettings;
  readonly tables: readonly FollowedTable[];
  readonly observer: Pick<SourceObserver, "oddity">;
  readonly clock: Clock;
  readonly log: Log;
}

/** A chunk under way, from before its SELECT until it was given or thrown away. */
export interface UnderWay {
  readonly job: SnapshotJob;
  readonly window: Window;
  readonly connection: number;
  readonly place: Checkpoint;
  /** Fingerprint of the columns that are read. */
  shape: string;
  /** Tables (indices) whose deletes reach into this one. */
  parents: ReadonlySet<number>;
  read: ReadChunk | null;
  failed: AgentError | null;
  /** The shop has no such table. */
  isMissing: boolean;
  /** The server does not show everything up to `place` yet, or the stream is behind. */
  tooEarly: boolean;
}
