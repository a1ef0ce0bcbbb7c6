/**
 * A part of the process with a life of its own. Constructors do no I/O. Ending has three verbs:
 * stop (take no new work), drain (finish what is in flight, under a deadline), close (release
 * handles).
 */
export interface Service {
  readonly name: string;
  /** Resolves when stopped, rejects when it cannot go on. */
  run(): Promise<void>;
  /** Asks `run` to end; resolves when it has. Idempotent. */
  stop(): Promise<void>;
  /** Finishes what is in flight, at most until the deadline. */
  drain?(deadlineMs: number): Promise<void>;
}

/** Time, injected so that tests own it. */
export interface Clock {
  /** Milliseconds since 1970. */
  wallMs(): number;
  /** Monotonic milliseconds. */
  monotonicMs(): number;
  /** Resolves after the delay, or at once when the signal aborts; never rejects. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (delayMs, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, delayMs);
      signal?.addEventListener("abort", done, { once: true });
    }),
};

/** Log lines as rooms write them: a message and fields; never row values, tokens or passwords. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  notice(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Exponential delay with full jitter in its upper half; `attempt` counts from 1. */
export function backoffDelayMs(
  attempt: number,
  bounds: { readonly firstMs: number; readonly maxMs: number },
  random: () => number = Math.random,
): number {
  const ceiling = Math.min(bounds.maxMs, bounds.firstMs * 2 ** Math.min(attempt - 1, 30));
  return ceiling / 2 + (random() * ceiling) / 2;
}
