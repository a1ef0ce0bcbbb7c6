/**
 * Finds a stream that has gone silent although its connection lives: a proxy or a stuck dump thread
 * that sends heartbeats and no events. Only the server itself can tell that from a quiet shop, so it
 * is asked where its binlog ends, on a connection of its own, and only while nothing comes.
 */
import type { Position } from "../change.ts";
import type { Clock } from "../kernel/service.ts";
import { comparePositions } from "./stream-position.ts";

export interface SilenceParts {
  readonly clock: Clock;
  readonly lookEveryMs: number;
  /** Where the stream reads; null while it is not connected, or paused on purpose. */
  readonly readsAt: () => Position | null;
  /** Where the server's binlog ends now; null when it cannot be asked. */
  readonly serverEnd: () => Promise<Position | null>;
  /** The server's binlog went on to this place, and for a whole look later nothing of it has come. */
  readonly silent: (serverEnd: Position) => void;
}

/** Runs until the signal aborts. */
export async function watchSilence(parts: SilenceParts, signal: AbortSignal): Promise<void> {
  const { clock, readsAt, serverEnd } = parts;
  let last: Position | null = null;
  /** What the server had at an earlier look, while the stream stood where it stands now. */
  let due: Position | null = null;
  while (!signal.aborted) {
    await clock.sleep(parts.lookEveryMs, signal);
    const place = readsAt();
    if (signal.aborted) return;
    const hasMoved = place === null || last === null || comparePositions(place, last) !== 0;
    last = place;
    if (hasMoved) due = null;
    else if (due === null) {
      const end = await serverEnd();
      if (end !== null && comparePositions(place, end) < 0) due = end;
    } else {
      parts.silent(due);
      due = null;
    }
  }
}
