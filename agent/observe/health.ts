/** What /health says: pure, from facts. An unhealthy check names what is wrong in words. */
import { formatBytes } from "../config/value-kinds.ts";
import { binlogHours, hoursText, isBinlogShort } from "./clocks.ts";
import type { AgentFacts } from "./facts.ts";

export interface HealthCheck {
  readonly status: "healthy" | "unhealthy";
  readonly message: string;
  /** Milliseconds, where something was measured. */
  readonly latency: number | null;
}

export interface HealthReport {
  readonly status: "healthy" | "unhealthy";
  readonly timestamp: string;
  readonly checks: {
    readonly magento_database: HealthCheck;
    readonly dapr: HealthCheck;
    readonly sync_lag: HealthCheck;
    readonly spool: HealthCheck;
    readonly binlog_runway: HealthCheck;
  };
}

export interface HealthLimits {
  readonly lagUnhealthySeconds: number;
}

export function computeHealth(facts: AgentFacts, limits: HealthLimits): HealthReport {
  const checks = {
    magento_database: checkDatabase(facts),
    dapr: checkDapr(facts),
    sync_lag: checkLag(facts, limits),
    spool: checkSpool(facts),
    binlog_runway: checkBinlogRunway(facts),
  };
  const all = Object.values(checks).every((check) => check.status === "healthy");
  return {
    status: all ? "healthy" : "unhealthy",
    timestamp: new Date(facts.nowMs).toISOString(),
    checks,
  };
}

function checkDatabase({ source }: AgentFacts): HealthCheck {
  const server = source.server ?? "the database";
  if (source.state === "streaming") return healthy(`reading the binlog of ${server}`, source.silentMs);
  if (source.state === "paused")
    return healthy(`paused: the spool takes no more for now (${server})`, source.silentMs);
  return unhealthy(`${source.state}: ${source.reason ?? server}`, source.silentMs);
}

function checkDapr({ held, accepted, nowMs }: AgentFacts): HealthCheck {
  const latency = accepted.lastSeconds === null ? null : Math.round(accepted.lastSeconds * 1000);
  if (held.length > 0) {
    const parts = held.map(
      (one) => `${one.topic === "*" ? "all topics" : one.topic}: ${one.code} ${one.message}`,
    );
    return unhealthy(`on hold: ${parts.join("; ")}`, latency);
  }
  if (accepted.lastAtMs === null) return healthy("nothing was sent yet", null);
  return healthy(`last acceptance ${ageText(nowMs - accepted.lastAtMs)} ago`, latency);
}

function checkLag({ lagSeconds }: AgentFacts, limits: HealthLimits): HealthCheck {
  let worst = 0;
  let table = "";
  for (const [name, seconds] of lagSeconds) {
    if (seconds > worst) {
      worst = seconds;
      table = name;
    }
  }
  const latency = Math.round(worst * 1000);
  if (worst <= limits.lagUnhealthySeconds) return healthy(`${worst.toFixed(1)} s`, latency);
  return unhealthy(`${worst.toFixed(1)} s on ${table}, more than ${limits.lagUnhealthySeconds} s`, latency);
}

function checkSpool({ spool, intakeClosed, runway }: AgentFacts): HealthCheck {
  if (intakeClosed !== null) return unhealthy(`reading waits: ${intakeClosed.message}`, null);
  if (spool === null) return healthy("none: events are printed", null);
  if (spool.damagedQueues > 0) {
    return unhealthy(`${spool.damagedQueues} queues wait until damage of the spool is healed`, null);
  }
  const share = Math.round((spool.bytes / spool.bytesMax) * 100);
  const { spoolHours } = runway;
  const forecast =
    spoolHours === null || spoolHours === Infinity ? "" : `; full in ${hoursText(spoolHours)} at this pace`;
  return healthy(
    `${spool.events} events wait, ${formatBytes(spool.bytes)} of ${formatBytes(spool.bytesMax)} (${share} %)${forecast}`,
    null,
  );
}

function checkBinlogRunway(facts: AgentFacts): HealthCheck {
  const { binlog } = facts.runway;
  const hours = binlogHours(binlog, facts.nowMs);
  if (binlog === null || hours === null) return healthy("not measured yet", null);
  if (binlog.by === "purged") return unhealthy("the server has purged binlog that is still needed", null);
  const replicas =
    binlog.replicasNeeded > 0
      ? `; nothing is purged while fewer than ${binlog.replicasNeeded} replicas are connected, so a stopped agent can fill the server's disk`
      : "";
  if (hours === Infinity) return healthy(`the server purges nothing by itself${replicas}`, null);
  const what = binlog.by === "size" ? "by size, at the pace of the last minutes" : "by age";
  const text = `what is still needed stays at least ${hoursText(hours)} (${what})${replicas}`;
  return isBinlogShort(binlog, facts.nowMs) ? unhealthy(text, null) : healthy(text, null);
}

/** One line for systemd's status and the status screen. */
export function statusLine(facts: AgentFacts): string {
  const worst = Math.max(0, ...facts.lagSeconds.values());
  const parts: string[] = [facts.source.state, `lag ${worst.toFixed(1)} s`];
  if (facts.spool !== null) {
    const share = Math.round((facts.spool.bytes / facts.spool.bytesMax) * 100);
    parts.push(`spool ${facts.spool.events} events, ${formatBytes(facts.spool.bytes)} (${share} %)`);
  }
  const { spoolHours } = facts.runway;
  if (spoolHours !== null && spoolHours < 48) parts.push(`full in ${hoursText(spoolHours)} at this pace`);
  if (facts.held.length > 0) parts.push(`${facts.held.length} topics on hold`);
  if (facts.intakeClosed !== null) parts.push(facts.intakeClosed.code);
  const { lastAtMs } = facts.accepted;
  parts.push(
    lastAtMs === null ? "nothing accepted yet" : `last accepted ${ageText(facts.nowMs - lastAtMs)} ago`,
  );
  return parts.join(", ");
}

export function ageText(ageMs: number): string {
  const seconds = Math.max(0, Math.round(ageMs / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
}

function healthy(message: string, latency: number | null): HealthCheck {
  return { status: "healthy", message, latency };
}

function unhealthy(message: string, latency: number | null): HealthCheck {
  return { status: "unhealthy", message, latency };
}
