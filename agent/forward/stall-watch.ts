/**
 * Finds requests that a network's outage has swallowed. After an outage TCP sends an unanswered
 * segment again only at its next, doubled pause, so a request under way may stay silent for long
 * after the network is back, while a fresh connection works at once.
 *
 * A slow broker looks the same from inside one connection. So the watch acts only when it has seen
 * both: a fresh connection that failed while the request was waiting, and later one that worked.
 */
import type { Clock } from "../kernel/service.ts";
import type { Publisher } from "./dapr-client.ts";

const LOOK_EVERY_MS = 1000;
const SILENT_MS = 4000;

/** Runs until the signal aborts. `oldestStartMs` is when the oldest request under way was sent. */
export async function runStallWatch(
  publisher: Publisher,
  clock: Clock,
  oldestStartMs: () => number | null,
  signal: AbortSignal,
): Promise<void> {
  let sawOutage = false;
  while (!signal.aborted) {
    await clock.sleep(LOOK_EVERY_MS, signal);
    const startMs = oldestStartMs();
    if (startMs === null || clock.monotonicMs() - startMs < SILENT_MS) {
      sawOutage = false;
      continue;
    }
    const isReachable = await publisher.reachable();
    if (signal.aborted) return;
    if (isReachable && sawOutage) {
      sawOutage = false;
      await publisher.resetConnections();
    } else if (!isReachable) sawOutage = true;
  }
}
