/** What goes into the group assembler, and what comes out of it. */
import type { Checkpoint, Position, TableEvent, TransactionIdentity } from "../change.ts";
import type { KeptRows, PartLimits } from "./group-rows.ts";
import type { FollowedNames } from "./followed-names.ts";
import type { Flavour } from "./stream-progress.ts";
import type { TableShapes } from "./table-shapes.ts";

/** A committed group, or a part of one, not decoded yet. */
export interface RawPart {
  readonly start: Position;
  readonly end: Position;
  readonly gtid: string | null;
  readonly serverId: number;
  readonly commitTimeMs: number;
  readonly events: readonly KeptRows[];
  readonly firstOrdinal: number;
  readonly isLast: boolean;
  readonly bytes: number;
  /** Not less than the row images in it. */
  readonly rowsAtMost: number;
  readonly checkpoint: Checkpoint;
}

export interface GroupSink {
  part(part: RawPart): void;
  tableEvent(event: TableEvent): void;
  /**
   * A group larger than a part is committed: it is to be read again from the checkpoint, whose
   * `partial` says what the second reading needs. The assembler takes nothing more.
   */
  large(checkpoint: Checkpoint): void;
  oddity(what: string, table: string): void;
}

export interface AssemblerOptions {
  readonly flavour: Flavour;
  readonly names: FollowedNames;
  readonly shapes: TableShapes;
  readonly limits: PartLimits;
  readonly sink: GroupSink;
  /** Everything up to here is done; what comes before is read over. */
  readonly from: Checkpoint;
  /** False when the stream starts by GTID: then the server has skipped what is done. */
  readonly byPosition: boolean;
  /** The transaction before `from` must come again and be this one (proof of position). */
  readonly expected: TransactionIdentity | null;
}
