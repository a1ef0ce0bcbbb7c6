import type { SpoolStats } from "../../agent/ports.ts";

/** Figures of an empty spool that takes everything. */
export function createSpoolStats(changed: Partial<SpoolStats> = {}): SpoolStats {
  return {
    intake: "open",
    queues: [],
    events: 0,
    bytes: 0,
    directoryBytes: 0,
    bytesMax: 1_000_000,
    freeBytes: 10_000_000,
    diskFreeMin: 1_000_000,
    fsync: { count: 0, lastSeconds: 0, p99Seconds: 0 },
    waitingBatches: 0,
    quarantined: 0,
    lossesAtOpen: 0,
    ...changed,
  };
}
