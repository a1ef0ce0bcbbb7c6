/** What the agent answers to `status`, and the screen made from it. */
import type { Lane } from "../change.ts";
import { formatBytes } from "../config/value-kinds.ts";
import {
  type AgentFacts,
  type CompleteFacts,
  driftKinds,
  type HaltFacts,
  type HeldTopic,
  type IndexFacts,
  type MappingFacts,
  type PositionFacts,
  type RowsFacts,
  type SpoolFacts,
  type VerificationFacts,
  type VerifyOutcome,
} from "../observe/facts.ts";
import { binlogHours, clocksText } from "../observe/clocks.ts";
import { ageText, computeHealth, type HealthLimits, type HealthReport } from "../observe/health.ts";
import type { Liveness } from "../observe/liveness.ts";
import { secondsLeft, type SnapshotStatus, type SourceStatus } from "../ports.ts";

export interface StatusReport {
  readonly schema: "magento-edge-agent/status/1";
  readonly timestamp: string;
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly shop: string;
  readonly database: string;
  readonly instance: string;
  readonly ready: boolean;
  readonly source: SourceStatus;
  readonly halted: AgentFacts["halted"];
  readonly mapping: MappingFacts;
  readonly position: PositionFacts | null;
  readonly spool: SpoolFacts | null;
  readonly queues: ReadonlyArray<{
    readonly queue: string;
    readonly lane: Lane;
    readonly waiting: number;
    readonly oldestSeconds: number;
  }>;
  readonly runway: {
    /** Null: not known yet, or nothing is purged. */
    readonly binlogHours: number | null;
    readonly spoolHours: number | null;
    /** Both in words. */
    readonly text: string;
  };
  readonly snapshot: SnapshotStatus | null;
  readonly rows: RowsFacts;
  readonly index: IndexFacts;
  /** The newest last; those that are done are kept for a while. */
  readonly verifications: readonly VerificationFacts[];
  /** Every commit up to there was accepted by the broker. */
  readonly complete: CompleteFacts;
  readonly held: readonly HeldTopic[];
  readonly intakeClosed: AgentFacts["intakeClosed"];
  readonly lagSeconds: Readonly<Record<string, number>>;
  readonly accepted: AgentFacts["accepted"];
  readonly health: HealthReport;
  readonly loops: Liveness;
}

export function statusReport(facts: AgentFacts, loops: Liveness, limits: HealthLimits): StatusReport {
  const { nowMs } = facts;
  return {
    schema: "magento-edge-agent/status/1",
    timestamp: new Date(nowMs).toISOString(),
    version: facts.version,
    uptimeSeconds: Math.round((nowMs - facts.startedAtMs) / 1000),
    shop: facts.shop,
    database: facts.database,
    instance: facts.instance,
    ready: facts.ready,
    source: facts.source,
    halted: facts.halted === null ? null : haltOf(facts.halted),
    mapping: facts.mapping,
    position: facts.position,
    spool: facts.spool,
    queues: facts.heads.map((head) => ({
      queue: head.queue,
      lane: head.lane,
      waiting: head.waiting,
      oldestSeconds: (nowMs - head.capturedAtMs) / 1000,
    })),
    runway: {
      binlogHours: finite(binlogHours(facts.runway.binlog, nowMs)),
      spoolHours: finite(facts.runway.spoolHours),
      text: clocksText(facts.runway, nowMs),
    },
    snapshot: facts.snapshot,
    rows: facts.rows,
    index: facts.index,
    verifications: facts.verifications,
    complete: facts.complete,
    held: facts.held,
    intakeClosed: facts.intakeClosed,
    lagSeconds: Object.fromEntries(facts.lagSeconds),
    accepted: facts.accepted,
    health: computeHealth(facts, limits),
    loops,
  };
}

/** The error itself has more than belongs into a report. */
function haltOf({ code, detail, message, hint }: HaltFacts): HaltFacts {
  return { code, detail, message, hint };
}

/** JSON has no infinity. */
function finite(hours: number | null): number | null {
  return hours !== null && Number.isFinite(hours) ? Math.round(hours * 100) / 100 : null;
}

/** Enough of a check that another version's answer is not misread. */
export function isStatusReport(value: unknown): value is StatusReport {
  return (
    typeof value === "object" &&
    value !== null &&
    "schema" in value &&
    value.schema === "magento-edge-agent/status/1"
  );
}

/** At another server the place is known only once something new has come from it. */
function positionText(position: StatusReport["position"]): string {
  if (position === null) return "none yet";
  const { file, position: offset, gtidSet } = position;
  const place = file === "" ? [] : [`${file}:${offset}`];
  return [...place, ...(gtidSet === null ? [] : [`GTID ${gtidSet}`])].join(", ");
}

export function statusScreen(report: StatusReport): string {
  const { source, position, spool } = report;
  const lines = [
    `magento-edge-agent ${report.version}: ${report.ready ? report.health.status : "starting"}, up ${ageText(report.uptimeSeconds * 1000)}`,
    `  shop       ${report.shop}, database ${report.database}, instance ${report.instance}`,
    `  source     ${source.state}${source.reason === null ? "" : `: ${source.reason}`}${source.server === null ? "" : ` (${source.server})`}`,
    `  position   ${positionText(position)}`,
  ];
  lines.push(mappingLine(report));
  if (spool !== null) {
    lines.push(
      `  spool      ${spool.events} events wait, ${formatBytes(spool.bytes)} of ${formatBytes(spool.bytesMax)}`,
      `  disk       ${formatBytes(spool.freeBytes)} free, ${formatBytes(spool.freeMinBytes)} are left to others`,
    );
    if (spool.quarantined > 0) lines.push(`  quarantine ${spool.quarantined} events`);
  }
  lines.push(`  clocks     ${report.runway.text}`);
  lines.push(`  accepted   ${report.accepted.events} events since the start`);
  for (const { queue, lane, waiting, oldestSeconds } of report.queues) {
    const name = lane === "bulk" ? `${queue} (bulk)` : queue;
    if (waiting > 0)
      lines.push(`  waits      ${name}: ${waiting} events, the oldest for ${ageText(oldestSeconds * 1000)}`);
  }
  for (const { topic, code, message } of report.held) lines.push(`  on hold    ${topic}: ${code} ${message}`);
  if (report.snapshot !== null) lines.push(`  reads      ${snapshotText(report.snapshot)}`);
  lines.push(`  rows       ${rowsText(report.rows)}`);
  lines.push(`  index      ${indexText(report.index)}`);
  for (const one of newestOfEach(report.verifications))
    lines.push(`  verify     ${verificationText(one, Date.parse(report.timestamp))}`);
  if (report.halted !== null) lines.push(`  to do      ${report.halted.hint}`);
  if (report.intakeClosed !== null) lines.push(`  intake     closed: ${report.intakeClosed.message}`);
  lines.push("  checks");
  for (const [name, check] of Object.entries(report.health.checks)) {
    lines.push(`    ${check.status === "healthy" ? "ok " : "BAD"} ${name.padEnd(17)} ${check.message}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Whether consumers were sent every row that is not told of by the stream alone. */
export function rowsText({ unread, trusted }: RowsFacts): string {
  const parts = unread.length === 0 ? [] : [`not all were read: ${unread.join(", ")}`];
  if (trusted !== null) parts.push(`${trusted}: what was there before the agent is not read`);
  return parts.length === 0 ? "all were read" : parts.join("; ");
}

/** Whether every child of a followed table is known by its parent. */
export function indexText(index: IndexFacts): string {
  const lacking = index.filter(({ completeSince }) => completeSince === null).map(({ relation }) => relation);
  return lacking.length === 0 ? "complete" : `not complete yet: ${lacking.join(", ")}`;
}

/** What was asked for last of each entity; a second look at what was healed is part of the first. */
function newestOfEach(verifications: readonly VerificationFacts[]): readonly VerificationFacts[] {
  const asked = verifications.filter(({ recheckOf }) => recheckOf === null);
  return [...new Map(asked.map((one) => [one.entity, one])).values()];
}

const verifyStates: Readonly<Record<VerificationFacts["state"], string>> = {
  reading: "rows are read",
  delivering: "digests are delivered",
  asking: "waits for a consumer's report",
  healing: "drifted rows are read again",
  done: "",
};

const verifyOutcomes: Readonly<Record<VerifyOutcome, string>> = {
  equal: "no drift",
  healed: "had drifted, and is healed",
  drift: "DRIFT",
  incomplete: "no drift, but not all could be compared",
  sent: "digests were sent; consumers report",
  unreported: "no report came",
  unread: "could not be read",
};

/** How a verification is, or how it ended and with what. */
export function verificationText(one: VerificationFacts, nowMs: number): string {
  const { entity, generation, state, outcome, counts, reason, endedAtMs } = one;
  const parts = [outcome === null ? verifyStates[state] : verifyOutcomes[outcome]];
  if (counts !== null) {
    parts.push(`${counts.compared} rows compared`, `${counts.newer} newer there`);
    for (const kind of driftKinds) if (counts[kind] > 0) parts.push(`${counts[kind]} ${kind}`);
    if (counts.undeliverable > 0) parts.push(`${counts.undeliverable} too large to be delivered`);
  }
  if (reason !== null) parts.push(reason);
  if (endedAtMs !== null) parts.push(`${ageText(Math.max(0, nowMs - endedAtMs))} ago`);
  return `${entity} (${generation}): ${parts.join("; ")}`;
}

/** How far the reading of rows is, and what is left by the server's estimate. */
export function snapshotText(snapshot: SnapshotStatus): string {
  const { table, reason, purpose, rows, rowsEstimated, rowsPerSecond, waiting, paused, waitsFor } = snapshot;
  const left = secondsLeft(snapshot);
  const parts = [
    `${table} (${reason}): ${rows} ${purpose === "index" ? "keys" : "rows"}${rowsEstimated === null ? "" : ` of about ${rowsEstimated}`}`,
    `${Math.round(rowsPerSecond)} rows/s${left === null ? "" : `, about ${ageText(left * 1000)} left`}`,
  ];
  if (waiting > 0) parts.push(`${waiting} more ${waiting === 1 ? "waits" : "wait"}`);
  if (paused) parts.push("paused: snapshot resume goes on");
  else if (waitsFor !== null) parts.push(`waits: ${waitsFor}`);
  return parts.join("; ");
}

function mappingLine({ mapping, timestamp }: StatusReport): string {
  const count = Object.keys(mapping.versions).length;
  const age = ageText(Date.parse(timestamp) - mapping.sinceMs);
  const next = mapping.isNextWaiting ? "; a newer one waits for the end of a large transaction" : "";
  return `  mapping    ${count} entities, taken up ${age} ago${next}`;
}
