/**
 * The two clocks of an outage in words: until when the server keeps the binlog that is still needed,
 * and when the spool is full at the present pace.
 */
import type { BinlogRunwayFacts, RunwayFacts } from "./facts.ts";

/** Too little is what leaves no working day to react, unless the server never keeps that much. */
export const RUNWAY_HOURS_MIN = 12;

/** Hours until the server may purge what is still needed; Infinity: never, null: not known yet. */
export function binlogHours(binlog: BinlogRunwayFacts | null, nowMs: number): number | null {
  if (binlog === null) return null;
  return binlog.by === "purged" ? 0 : Math.max(0, (binlog.purgeNotBeforeMs - nowMs) / 3_600_000);
}

/** Whether somebody should act now. */
export function isBinlogShort(binlog: BinlogRunwayFacts | null, nowMs: number): boolean {
  const hours = binlogHours(binlog, nowMs);
  if (binlog === null || hours === null) return false;
  const whole = binlog.expireSeconds === null ? Infinity : binlog.expireSeconds / 3600;
  return hours < Math.min(RUNWAY_HOURS_MIN, whole / 2);
}

/** Both in one line. */
export function clocksText(runway: RunwayFacts, nowMs: number): string {
  return `binlog ${binlogText(runway.binlog, nowMs)}; spool ${spoolText(runway.spoolHours)}`;
}

function binlogText(binlog: BinlogRunwayFacts | null, nowMs: number): string {
  const hours = binlogHours(binlog, nowMs);
  if (hours === null) return "not measured yet";
  if (binlog?.by === "purged") return "purged that is still needed";
  return hours === Infinity ? "not purged by the server itself" : `kept at least ${hoursText(hours)}`;
}

function spoolText(hours: number | null): string {
  if (hours === null) return "not measured yet";
  return hours === Infinity ? "does not grow" : `full in ${hoursText(hours)} at this pace`;
}

export function hoursText(hours: number): string {
  if (hours < 2) return `${Math.round(hours * 60)} min`;
  return hours < 48 ? `${hours.toFixed(1)} h` : `${Math.round(hours / 24)} days`;
}
