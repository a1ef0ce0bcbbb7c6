/** What the spool is opened with. */
import type { Clock, Log } from "../kernel/service.ts";
import type { SpoolObserver } from "../ports.ts";
import type { Database } from "./database.ts";
import type { SpoolLimits } from "./limits.ts";
import type { MarkTuning } from "./marks.ts";
import type { OpeningTuning } from "./opening.ts";
import type { SegmentTuning } from "./segments.ts";
import type { TrimTuning } from "./trim.ts";

export interface SpoolOptions {
  /** STATE_DIR. Made with mode 0700 when there is none. */
  readonly stateDir: string;
  readonly limits: SpoolLimits;
  /** SPOOL_SYNC_MIN_MS. */
  readonly syncMinMs: number;
  /** QUARANTINE_KEEP_DAYS. */
  readonly quarantineKeepDays: number;
  readonly observer: SpoolObserver;
  readonly log: Log;
  readonly clock: Clock;
  /** For tests: another database than LevelDB. */
  readonly database?: Database;
  /** For tests: when room is given back, marks are made, segments end and tables are proven at a start. */
  readonly tuning?: Partial<TrimTuning & MarkTuning & SegmentTuning & OpeningTuning>;
}
