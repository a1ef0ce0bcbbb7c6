/**
 * Whether the two loops come round, for /livez and systemd's watchdog. A loop that waits for the
 * database, the cluster or the disk says so; one that should come round and does not is stuck.
 */
import type { LoopPulse } from "./observe/liveness.ts";
import type { SourceStatus, SpoolStats } from "./ports.ts";

export function capturePulse(
  loop: { readonly lastProgressMs: number; status(): SourceStatus },
  spool: { stats(): SpoolStats },
  nowMs: () => number,
): LoopPulse {
  return {
    name: "capture",
    lastProgressMs: () => {
      // A large transaction is read to its end before its first row is handed on: packets count.
      const { state, silentMs } = loop.status();
      const readAtMs = state === "streaming" && silentMs !== null ? nowMs() - silentMs : 0;
      return Math.max(loop.lastProgressMs, readAtMs);
    },
    waitsFor: () => {
      const { state, reason } = loop.status();
      if (state !== "streaming" && state !== "paused") return reason ?? `the source is ${state}`;
      const { intake, waitingBatches } = spool.stats();
      if (intake === "SPOOL_FULL" || intake === "DISK_FULL") return intake;
      return waitingBatches > 0 ? "room in the spool" : null;
    },
  };
}

/** What the forwarder has done so far; any of it moving is progress. */
export interface ForwardProgress {
  readonly accepted: number;
  readonly attempts: number;
  readonly quarantined: number;
  readonly held: number;
}

export function forwardPulse(
  progress: () => ForwardProgress,
  spool: { stats(): SpoolStats },
  nowMs: () => number,
): LoopPulse {
  let seen = "";
  let seenAtMs = nowMs();
  const waitsFor = (): string | null => {
    if (spool.stats().events === 0) return "events";
    return progress().held > 0 ? "the cluster" : null;
  };
  return {
    name: "forward",
    lastProgressMs: () => {
      const { accepted, attempts, quarantined } = progress();
      const now = `${accepted} ${attempts} ${quarantined}`;
      // While it waits the clock stands still: a backlog that comes after an idle hour is new.
      if (now !== seen || waitsFor() !== null) seenAtMs = nowMs();
      seen = now;
      return seenAtMs;
    },
    waitsFor,
  };
}
