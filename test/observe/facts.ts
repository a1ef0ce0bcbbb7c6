import type { AgentFacts } from "../../agent/observe/facts.ts";
import type { Clock, Log, LogFields } from "../../agent/kernel/service.ts";

export const NOW_MS = Date.UTC(2026, 0, 15, 12, 0, 0);

/** Facts of an agent that is well. */
export function factsOf(changed: Partial<AgentFacts> = {}): AgentFacts {
  return {
    nowMs: NOW_MS,
    startedAtMs: NOW_MS - 3_600_000,
    version: "1.2.3",
    shop: "magento",
    database: "magento_db",
    instance: "b8f1c2d4-0000-4000-8000-000000000000",
    ready: true,
    halted: null,
    source: { state: "streaming", reason: null, server: "127.0.0.1:3306", silentMs: 5, reconnects: 0 },
    mapping: { sinceMs: NOW_MS - 3_600_000, versions: { order: 2, customer: 1 }, isNextWaiting: false },
    position: {
      file: "mariadb-bin.000007",
      position: 5_000_000_000,
      gtidSet: "0-1-99",
      epoch: 1_768_000_000,
    },
    snapshot: null,
    rows: { unread: [], isReading: false, trusted: null },
    index: [],
    verifications: [],
    complete: { completeUpToMs: null, file: null, position: null, gtidSet: null },
    spool: {
      events: 12,
      bytes: 2_000_000,
      bytesMax: 100_000_000,
      freeBytes: 5e10,
      freeMinBytes: 5e9,
      quarantined: 0,
      damagedQueues: 0,
    },
    runway: {
      binlog: {
        purgeNotBeforeMs: NOW_MS + 7 * 86_400_000,
        by: "age",
        expireSeconds: 7 * 86_400,
        replicasNeeded: 0,
        measuredAtMs: NOW_MS,
      },
      spoolHours: null,
    },
    heads: [],
    held: [],
    intakeClosed: null,
    lagSeconds: new Map(),
    accepted: { events: 5, lastAtMs: NOW_MS - 2000, lastSeconds: 0.02 },
    ...changed,
  };
}

/** A clock whose time the test moves; sleeping takes no time at all but yields. */
export class FakeClock implements Clock {
  nowMs = 0;

  wallMs(): number {
    return NOW_MS + this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  async sleep(delayMs: number): Promise<void> {
    this.nowMs += delayMs;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

export interface LogLine {
  readonly level: keyof Log;
  readonly message: string;
  readonly fields: LogFields;
}

/** A log that keeps its lines. */
export class LinesLog implements Log {
  readonly lines: LogLine[] = [];

  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "debug", message, fields });
  }

  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "info", message, fields });
  }

  notice(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "notice", message, fields });
  }

  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "warn", message, fields });
  }

  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "error", message, fields });
  }
}
