/** SIGTERM and SIGINT stop in order; the second one ends at once. SIGHUP has the mapping read again. */
import type { Log } from "../kernel/service.ts";

export interface Signals {
  /** Aborts with the first signal that asks to stop. */
  readonly stop: AbortSignal;
  /** What SIGHUP does from now on. Until then it does nothing: the mapping is read at the start. */
  onHangup(listener: () => void): void;
  /** Takes the listeners away again. */
  release(): void;
}

/** Exit code of a process that was told twice: what is durable stays, what was under way is sent again. */
const ENDED_AT_ONCE = 75;

export function catchSignals(log: Log): Signals {
  const stopping = new AbortController();
  const onStop = (signal: NodeJS.Signals): void => {
    if (stopping.signal.aborted) {
      log.warn("the second signal ends the agent at once", { signal });
      process.exit(ENDED_AT_ONCE);
    }
    log.notice("stopping: what is under way is finished", { signal });
    stopping.abort();
  };
  let reload: (() => void) | null = null;
  const onHangup = (): void => {
    if (stopping.signal.aborted) return;
    if (reload === null) log.notice("SIGHUP: the mapping is read again only by a service that is ready");
    else reload();
  };
  process.on("SIGTERM", onStop);
  process.on("SIGINT", onStop);
  process.on("SIGHUP", onHangup);
  return {
    stop: stopping.signal,
    onHangup: (listener) => {
      reload = listener;
    },
    release: () => {
      process.off("SIGTERM", onStop);
      process.off("SIGINT", onStop);
      process.off("SIGHUP", onHangup);
    },
  };
}
