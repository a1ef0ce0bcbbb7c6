/** What the forwarder is set to: the settings of the user, and limits that tests lower. */
import type { HeartbeatOptions } from "./heartbeat.ts";

export interface ForwarderOptions {
  /** BATCH_SIZE. Above 100 Dapr publishes in rounds of 100 to brokers without a bulk call of their
   * own, so that a broker which hangs costs one of its time limits per round. */
  readonly batchSize: number;
  /** SYNC_INTERVAL in milliseconds. */
  readonly syncIntervalMs: number;
  /** MAX_RETRIES: attempts for an event that is refused for its own content. */
  readonly maxRetries: number;
  /** QUARANTINE_MAX. */
  readonly quarantineMax: number;
  /** FORWARD_RATE_MAX in events a second, or null. */
  readonly rateMax: number | null;
  /** null sends no heartbeats. */
  readonly heartbeat: HeartbeatOptions | null;
  readonly limits?: Partial<Limits>;
}

/** Invariant 7: every buffer and every number of requests has a limit. */
export interface Limits {
  /** Bytes of one request's body. Below Dapr's 4 MiB by a margin: a body that is one byte over is
   * not always refused, but cut. */
  readonly bodyBytesMax: number;
  /** Events and bytes that a queue's window holds in memory. */
  readonly windowEvents: number;
  readonly windowBytes: number;
  /** How far reading may run ahead of the oldest event that is not done: what a restart repeats. */
  readonly spanEvents: number;
  readonly readEvents: number;
  readonly requestsPerTopic: number;
  readonly requestsAtOnce: number;
  /** Events in the request that finds out whether a hold is over. Few, because each failed one may
   * have been stored, and more than one, so that a single bad event cannot prolong the hold. */
  readonly probeEvents: number;
}

const defaults: Limits = {
  bodyBytesMax: 4 * 1024 * 1024 - 4096,
  windowEvents: 2000,
  windowBytes: 1536 * 1024,
  spanEvents: 50_000,
  readEvents: 100,
  requestsPerTopic: 2,
  requestsAtOnce: 4,
  probeEvents: 10,
};

export function completeOptions(options: ForwarderOptions): Limits {
  const limits = { ...defaults, ...options.limits };
  // A window that holds less than the batches under way and the next one would starve them, and a
  // read that needs more room than there can be would never happen.
  const windowEvents = Math.max(limits.windowEvents, 4 * options.batchSize);
  return { ...limits, windowEvents, readEvents: Math.min(limits.readEvents, windowEvents) };
}
