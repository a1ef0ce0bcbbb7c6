/**
 * Finds requests that a network's outage has swallowed. A request may stay silent long after the
 * network is back: TCP sends an unanswered segment again only at its next, doubled pause, and a
 * firewall that forgot the connection never answers at all. A fresh connection works at once.
 *
 * A slow broker looks the same from inside one connection. So the watch asks on a fresh one, and
 * acts only on requests that were under way while such a question stayed without answer.
 */
import type { Clock } from "../kernel/service.ts";
import type { Publisher } from "./dapr-client.ts";

const LOOK_EVERY_MS = 1000;
/** While the API is silent its return is looked for more often: delivery waits for it. */
const LOOK_AGAIN_MS = 300;
const SILENT_MS = 3000;
/** After the API's return: time for the requests that are well to be answered before the others are cut. */
const GRACE_MS = 500;

export interface StallWatchParts {
  readonly publisher: Pick<Publisher, "reachable" | "resetConnections">;
  readonly clock: Clock;
  /** When the oldest request under way was sent, on the monotonic clock; null when none is. */
  readonly oldestStartMs: () => number | null;
  /** Requests wait, and a fresh connection gets no answer either; told at every look. */
  readonly unreachable: () => void;
}

/** Runs until the signal aborts. */
export async function runStallWatch(parts: StallWatchParts, signal: AbortSignal): Promise<void> {
  const { publisher, clock, oldestStartMs } = parts;
  let isLost = false;
  /** Requests that were sent before this are taken for swallowed. */
  let suspectBeforeMs = Number.NEGATIVE_INFINITY;
  while (!signal.aborted) {
    await clock.sleep(isLost ? LOOK_AGAIN_MS : LOOK_EVERY_MS, signal);
    const startMs = oldestStartMs();
    if (startMs === null || signal.aborted) continue;
    const isSuspect = startMs < suspectBeforeMs;
    const patienceMs = isLost ? 0 : isSuspect ? GRACE_MS : SILENT_MS;
    if (clock.monotonicMs() - startMs < patienceMs) continue;
    const isReachable = await publisher.reachable();
    if (signal.aborted) return;
    if (!isReachable) {
      isLost = true;
      // What is sent between this answer that never came and the outage's end is lost as well.
      suspectBeforeMs = clock.monotonicMs() + LOOK_AGAIN_MS;
      parts.unreachable();
      continue;
    }
    isLost = false;
    const oldestMs = oldestStartMs();
    if (oldestMs !== null && oldestMs < suspectBeforeMs && clock.monotonicMs() - oldestMs >= GRACE_MS)
      await publisher.resetConnections();
  }
}
