/**
 * Whether the loops make progress. Waiting for something outside (a cluster that is cut off, a full
 * disk, a database that restarts) is no reason to be killed; coming round no more without such a
 * reason is.
 */
export interface LoopPulse {
  readonly name: string;
  /** Monotonic time at which the loop last came round. */
  lastProgressMs(): number;
  /** What it waits for outside the process, in words; null when it should come round. */
  waitsFor(): string | null;
}

export interface Liveness {
  readonly live: boolean;
  readonly loops: ReadonlyArray<{
    readonly name: string;
    readonly live: boolean;
    readonly silentMs: number;
    readonly waitsFor: string | null;
  }>;
}

/** A loop comes round at least with each heartbeat of its server, so this is many rounds. */
export const LOOP_SILENT_MAX_MS = 90_000;

export function computeLiveness(
  pulses: readonly LoopPulse[],
  nowMs: number,
  silentMaxMs = LOOP_SILENT_MAX_MS,
): Liveness {
  const loops = pulses.map((pulse) => {
    const silentMs = Math.max(0, Math.round(nowMs - pulse.lastProgressMs()));
    const waitsFor = pulse.waitsFor();
    return { name: pulse.name, live: waitsFor !== null || silentMs <= silentMaxMs, silentMs, waitsFor };
  });
  return { live: loops.every((loop) => loop.live), loops };
}
