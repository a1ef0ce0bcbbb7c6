/**
 * Whether the two loops come round, for /livez and systemd's watchdog. Everything that a loop does
 * has a time limit of its own: a request, a connect, a pause. A loop that stays in one place longer
 * is stuck, whatever is wrong outside; only a full disk may be waited for without limit.
 */
import type { LoopPulse } from "./observe/liveness.ts";
import type { SpoolStats } from "./ports.ts";

export function capturePulse(
  loop: { readonly lastProgressMs: number },
  spool: { stats(): Pick<SpoolStats, "intake"> },
): LoopPulse {
  return {
    name: "capture",
    lastProgressMs: () => loop.lastProgressMs,
    waitsFor: () => {
      const { intake } = spool.stats();
      return intake === "SPOOL_FULL" || intake === "DISK_FULL" ? intake : null;
    },
  };
}

/** What the forwarder is at (Forwarder.pulse). */
export interface ForwardWork {
  readonly oldestWorkSinceMs: number | null;
  readonly wakesAtMs: number | null;
}

export function forwardPulse(
  work: () => ForwardWork,
  spool: { stats(): Pick<SpoolStats, "events"> },
  nowMs: () => number,
): LoopPulse {
  /** When it was last seen with something to do or to wait for. */
  let busyAtMs = nowMs();
  return {
    name: "forward",
    lastProgressMs: () => {
      const { oldestWorkSinceMs, wakesAtMs } = work();
      const now = nowMs();
      // Events that wait, and nothing that would ever look at them: a wake-up was lost.
      const isLost = oldestWorkSinceMs === null && wakesAtMs === null && spool.stats().events > 0;
      if (!isLost) busyAtMs = now;
      return Math.min(busyAtMs, oldestWorkSinceMs ?? now, wakesAtMs ?? now);
    },
    waitsFor: () => (work().oldestWorkSinceMs === null && spool.stats().events === 0 ? "events" : null),
  };
}
