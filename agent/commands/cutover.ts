/** What a migration team asks before it switches over: does everything stand at the consumers' broker? */
import type { StatusReport } from "./status-report.ts";
import { rowsText, snapshotText } from "./status-report.ts";

export interface CutoverCondition {
  readonly name: string;
  readonly holds: boolean;
  readonly says: string;
}

/** Longest silence of the database that still counts as reading: its heartbeats come every 5 s. */
const SILENCE_MS = 15_000;

/** Every condition, those that hold too. */
export function cutoverConditions(report: StatusReport): readonly CutoverCondition[] {
  const { source, snapshot, rows, complete, spool, held, position } = report;
  const silentMs = source.silentMs ?? Number.POSITIVE_INFINITY;
  const waiting = report.queues.reduce((sum, one) => sum + one.waiting, 0);
  const condition = (name: string, holds: boolean, says: string): CutoverCondition => ({ name, holds, says });
  return [
    condition(
      "the binlog is read",
      source.state === "streaming" && silentMs < SILENCE_MS,
      source.state === "streaming"
        ? `last heard of ${Math.round(silentMs / 1000)} s ago`
        : (source.reason ?? source.state),
    ),
    condition("nothing is halted", report.halted === null, report.halted?.message ?? "capture goes on"),
    condition(
      "all rows were read",
      rows.unread.length === 0 && !rows.isReading,
      rows.isReading && snapshot !== null ? snapshotText(snapshot) : rowsText(rows),
    ),
    condition(
      "everything that was read is accepted",
      complete.file !== null &&
        position !== null &&
        complete.file === position.file &&
        complete.position === position.position &&
        waiting === 0,
      complete.completeUpToMs === null
        ? "nothing was completed yet"
        : `complete up to ${new Date(complete.completeUpToMs).toISOString()}, ${complete.file ?? ""}:${complete.position ?? 0}; ${waiting} events wait`,
    ),
    condition(
      "nothing is on hold",
      held.length === 0,
      held.map(({ topic, code }) => `${topic}: ${code}`).join(", ") || "no topic",
    ),
    condition(
      "nothing is in quarantine",
      (spool?.quarantined ?? 0) === 0,
      `${spool?.quarantined ?? 0} events`,
    ),
  ];
}

export function cutoverScreen(conditions: readonly CutoverCondition[]): string {
  const lines = conditions.map(
    ({ name, holds, says }) => `${holds ? "ok " : "NO "} ${name.padEnd(38)} ${says}`,
  );
  const ready = conditions.every(({ holds }) => holds);
  lines.push(
    ready
      ? "ready: stop the shop's writes, ask again, and switch when this still stands"
      : "not ready: what says NO has to hold first",
  );
  return `${lines.join("\n")}\n`;
}
