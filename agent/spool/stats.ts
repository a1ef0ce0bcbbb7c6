/** The spool's figures, from memory. */
import type { QueueState, SpoolStats } from "../ports.ts";
import type { FsyncTimes } from "./fsync-times.ts";
import type { IntakeGate, SpoolLimits } from "./limits.ts";
import type { Queue, Queues } from "./queue.ts";

export interface StatsParts {
  readonly queues: Queues;
  readonly gate: IntakeGate;
  readonly limits: SpoolLimits;
  readonly fsyncs: FsyncTimes;
  readonly failed: boolean;
  readonly waitingBatches: number;
  readonly quarantined: number;
  readonly lossesAtOpen: number;
}

export function spoolStats(parts: StatsParts): SpoolStats {
  const { gate, limits, fsyncs } = parts;
  const queues = parts.queues.all.map((queue) => ({
    ...queueState(queue),
    events: queue.durable - queue.acked,
    bytes: Math.round(queue.pendingBytes),
    oldestCapturedAtMs: queue.acked < queue.durable ? queue.oldestCapturedAtMs : null,
  }));
  return {
    intake: parts.failed ? "failed" : (gate.closed ?? "open"),
    queues,
    events: queues.reduce((sum, queue) => sum + queue.events, 0),
    bytes: queues.reduce((sum, queue) => sum + queue.bytes, 0),
    directoryBytes: gate.usage.directoryBytes,
    bytesMax: limits.bytesMax,
    freeBytes: gate.usage.freeBytes,
    diskFreeMin: limits.diskFreeMin,
    fsync: {
      count: fsyncs.count,
      lastSeconds: fsyncs.lastSeconds,
      p99Seconds: fsyncs.p99Seconds(),
    },
    waitingBatches: parts.waitingBatches,
    quarantined: parts.quarantined,
    lossesAtOpen: parts.lossesAtOpen,
  };
}

/** How far one lane of a queue has come. */
export function queueState(queue: Queue): QueueState {
  const { name, lane, acked, durable: last, readable, unboundThrough } = queue;
  return { queue: name, lane, acked, last, readable, unboundThrough };
}
