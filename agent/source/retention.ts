/**
 * How long the server still keeps what the agent has not read: its settings, the binlog files that
 * there are, and an estimate that is never too high by the clock. A file is purged by its age since
 * its last write, which no statement tells; it is no older than the newest commit that was read.
 */
import type { Checkpoint } from "../change.ts";
import { openControl, textOf } from "./control-connection.ts";
import { readBinlogFiles } from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";

export interface Retention {
  /** Age at which a file that is not the newest may be purged; null: none by age. */
  readonly expireSeconds: number | null;
  /** Bytes of all files over which the oldest are purged; null: none by size. */
  readonly totalBytesMax: number | null;
  /** MariaDB 11.4+: nothing is purged while fewer replicas are connected. */
  readonly replicasNeeded: number;
  /** Sizes by name, oldest first. */
  readonly files: ReadonlyMap<string, number>;
}

export interface BinlogRunway {
  /** Wall time before which the server purges nothing that is needed; Infinity: it purges nothing. */
  readonly purgeNotBeforeMs: number;
  /** What brings the purge about. */
  readonly by: "age" | "size" | "none" | "purged";
  /** The whole time by age, for comparison; null where age purges nothing. */
  readonly expireSeconds: number | null;
  readonly replicasNeeded: number;
}

const settingNames = [
  "binlog_expire_logs_seconds",
  "binlog_expire_logs_auto_purge",
  "expire_logs_days",
  "max_binlog_total_size",
  "binlog_space_limit",
  "slave_connections_needed_for_purge",
];

/** Asks the server, on a connection of its own. Throws AgentError. */
export async function readRetention(settings: SourceSettings): Promise<Retention> {
  await using control = await openControl(settings);
  const names = settingNames.map((name) => `'${name}'`).join(",");
  const rows = await control.query(`SHOW GLOBAL VARIABLES WHERE Variable_name IN (${names})`);
  const values = new Map(rows.map((row) => [textOf(row, "Variable_name"), textOf(row, "Value")]));
  const number = (name: string): number => Number(values.get(name) ?? 0);
  const seconds = number("binlog_expire_logs_seconds") || number("expire_logs_days") * 86_400;
  const isOff = /^(off|0)$/i.test(values.get("binlog_expire_logs_auto_purge") ?? "on");
  const totalBytes = number("max_binlog_total_size") || number("binlog_space_limit");
  return {
    expireSeconds: seconds > 0 && !isOff ? seconds : null,
    totalBytesMax: totalBytes > 0 ? totalBytes : null,
    replicasNeeded: number("slave_connections_needed_for_purge"),
    files: await readBinlogFiles(control),
  };
}

/** Bytes of binlog that were written between two readings. */
export function bytesWritten(before: Retention, after: Retention): number {
  const newest = [...before.files.keys()].at(-1);
  if (newest === undefined || !after.files.has(newest)) return 0;
  return bytesFrom(after.files, newest) - (before.files.get(newest) ?? 0);
}

/** `bytesPerSecond` is how fast the binlog grows, null when that is not known yet. */
export function binlogRunway(
  retention: Retention,
  checkpoint: Pick<Checkpoint, "file" | "newestCommitMs">,
  bytesPerSecond: number | null,
  nowMs: number,
): BinlogRunway {
  const { expireSeconds, totalBytesMax, replicasNeeded, files } = retention;
  const rest = { expireSeconds, replicasNeeded };
  // Right after a failover only GTIDs say what is still needed: it can begin in the oldest file.
  const file = checkpoint.file === "" ? [...files.keys()][0] : checkpoint.file;
  if (file === undefined || !files.has(file)) return { purgeNotBeforeMs: nowMs, by: "purged", ...rest };
  // The newest file is purged only after another one has followed it.
  const isNewest = [...files.keys()].at(-1) === file;
  const writtenMs = isNewest ? nowMs : Math.min(nowMs, checkpoint.newestCommitMs);
  const byAgeMs = expireSeconds === null ? Infinity : Math.max(nowMs, writtenMs + expireSeconds * 1000);
  let bySizeMs = Infinity;
  if (totalBytesMax !== null) {
    const room = totalBytesMax - bytesFrom(files, file);
    if (room <= 0) bySizeMs = nowMs;
    else if (bytesPerSecond !== null && bytesPerSecond > 0) bySizeMs = nowMs + (room / bytesPerSecond) * 1000;
  }
  const purgeNotBeforeMs = Math.min(byAgeMs, bySizeMs);
  const by = purgeNotBeforeMs === Infinity ? "none" : bySizeMs < byAgeMs ? "size" : "age";
  return { purgeNotBeforeMs, by, ...rest };
}

/** Of the file and all that follow it. */
function bytesFrom(files: ReadonlyMap<string, number>, first: string): number {
  let bytes = 0;
  let isNeeded = false;
  for (const [name, size] of files) {
    isNeeded ||= name === first;
    if (isNeeded) bytes += size;
  }
  return bytes;
}
