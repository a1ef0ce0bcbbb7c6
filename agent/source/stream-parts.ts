/** What a stream is made of, and what it is opened with. */
import type { Checkpoint, FollowedTable, TransactionIdentity } from "../change.ts";
import type { Clock, Log } from "../kernel/service.ts";
import type { SourceObserver } from "../ports.ts";
import type { SchemaColumn } from "./decode/column-definition.ts";
import type { DumpOptions } from "./dump-connection.ts";
import type { PartLimits } from "./group-rows.ts";
import type { Flavour } from "./stream-progress.ts";

export interface StreamLimits {
  readonly parts: PartLimits;
  /** Queued bytes at which the connection is paused; it goes on at half of it. */
  readonly queueBytes: number;
  /** A pause longer than this closes the connection: the server's dump must not hang on us. */
  readonly pauseMs: number;
  readonly heartbeatMs: number;
  /** Most that one pull gets. */
  readonly pullRows: number;
  readonly pullBytes: number;
  /** Without rows of ours, how often a pull says where the stream stands. */
  readonly progressMs: number;
  readonly progressBytes: number;
}

export interface StreamParts {
  readonly database: string;
  readonly tablePrefix: string;
  readonly tables: readonly FollowedTable[];
  readonly observer: SourceObserver;
  readonly log: Log;
  readonly clock: Clock;
  readonly limits: StreamLimits;
  readonly readColumns: (table: string) => Promise<readonly SchemaColumn[] | null>;
}

export interface StreamOpening {
  readonly flavour: Flavour;
  readonly from: Checkpoint;
  readonly expected: TransactionIdentity | null;
  readonly dump: DumpOptions;
  /** The shop's tables in memory as they are now (server-facts.ts); none where they were not asked for. */
  readonly memoryTables: ReadonlySet<string>;
}
