/**
 * The ways in which a position is lost, each with its name and what the operator can do. The name
 * stands in the log, in status and in the metric of a halted capture.
 */
import { type Checkpoint, binlogFileNumber } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";

const restart =
  "magento-edge-agent position restart --from=current begins a new epoch at the current end and tells consumers of the gap.";
const goOn = `Nothing is published until you decide: ${restart}`;
const byItself = `With ON_POSITION_LOST=resnapshot (the default) a new epoch begins, and all rows are read again, without you; with ON_POSITION_LOST=operator or SNAPSHOT_MODE=never: ${restart}`;

const cases = {
  purged: `The binlogs were deleted before they were read: keep them longer (binlog_expire_logs_seconds). ${byItself}`,
  cut_short: `The server lost the end of its binlog: a crash without sync_binlog=1, or files of an older backup. ${byItself}`,
  numbering_restarted: `RESET MASTER or RESET BINARY LOGS was run, or the binlogs were deleted by hand. ${byItself}`,
  other_history: `The server was restored from a backup, or its binlogs were exchanged. ${byItself}`,
  files_renamed: `log_bin has another value than before. Set it back, or: ${goOn}`,
  other_server: `Is MAGENTO_DB_HOST or MAGENTO_DB_SOCKET still the shop's server? If it is the right one: ${goOn}`,
  server_copied: `Is this a copy of the shop's server? If it is the right one, and only its server_id was changed: ${goOn}`,
  gtid_purged: `The binlogs behind that GTID were deleted. ${byItself}`,
  gtid_unknown: `This server never had that GTID: it is behind, or another one. ${goOn}`,
  errant_tail: `Those transactions were lost with the server that failed (or log_slave_updates is OFF here): consumers have what they changed, and this server has not. ${byItself}`,
  refused: `The log of the database server may say more. ${goOn}`,
  start_position: "Correct START_POSITION; SHOW BINARY LOGS names what the server has.",
} as const;

export type LossCase = keyof typeof cases;

export function positionLost(detail: LossCase, text: string, cause?: unknown): AgentError {
  return new AgentError("POSITION_LOST", text, {
    detail,
    hint: cases[detail],
    ...(cause === undefined ? {} : { cause }),
  });
}

/** It is the server that was read, or one that has its history, and a part is missing. */
const lossesOfSameServer: ReadonlySet<string> = new Set<LossCase>([
  "purged",
  "cut_short",
  "numbering_restarted",
  "other_history",
  "gtid_purged",
  "errant_tail",
]);

/** False where it may be the wrong server that answers: reading that one anew could mix two shops. */
export function isLossOfSameServer({ code, detail }: AgentError): boolean {
  return code === "POSITION_LOST" && detail !== null && lossesOfSameServer.has(detail);
}

/** What a closer look at the server can tell; each answer costs it a question. */
export interface LossEvidence {
  readonly files: ReadonlyMap<string, number>;
  /** When a file was created, in seconds since 1970; null when that cannot be read. */
  readonly createdSeconds: (file: string) => Promise<number | null>;
}

/**
 * Gives the loss a better name where the first look could not tell: numbers that started anew, files
 * that were exchanged, or an end that is missing. Whatever cannot be found out keeps its name.
 */
export async function nameLoss(
  failure: AgentError,
  from: Checkpoint,
  evidence: LossEvidence,
): Promise<AgentError> {
  if (failure.detail !== "other_history" && failure.detail !== "cut_short" && failure.detail !== "refused")
    return failure;
  const { files, createdSeconds } = evidence;
  const [oldest] = files.keys();
  const newestSeconds = Math.floor(from.newestCommitMs / 1000);
  if (oldest === undefined || newestSeconds === 0) return failure;
  const oldestCreated = await createdSeconds(oldest);
  if (oldestCreated !== null && oldestCreated > newestSeconds && sharesNumbers(from.file, files)) {
    return positionLost(
      "numbering_restarted",
      `the binlog's numbering was started anew: ${oldest}, the oldest file, was created at ${timeText(oldestCreated)}, and the state stands at ${from.file}:${from.position} with a commit of ${timeText(newestSeconds)}`,
      failure,
    );
  }
  const created = files.has(from.file) ? await createdSeconds(from.file) : null;
  if (created === null || created <= newestSeconds || from.lastTransaction?.file !== from.file)
    return failure;
  return positionLost(
    "other_history",
    `${from.file} is another file than the one that was read: it was created at ${timeText(created)}, and the state has a commit of ${timeText(newestSeconds)} from it`,
    failure,
  );
}

/** Numbers that only grow leave the state's file behind; these begin at or before it. */
function sharesNumbers(file: string, files: ReadonlyMap<string, number>): boolean {
  const [oldest = file] = files.keys();
  return binlogFileNumber(oldest) <= binlogFileNumber(file);
}

function timeText(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
