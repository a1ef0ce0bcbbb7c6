/**
 * Tells systemd how the service is, over the datagram socket of NOTIFY_SOCKET. The process sends by
 * itself, so NotifyAccess=main holds. Without NOTIFY_SOCKET it does nothing; a socket that cannot be
 * used is logged once, and the agent goes on.
 */
import { DgramSocket } from "node-unix-socket";
import type { Clock, Log } from "../kernel/service.ts";

export interface SystemdNotifyOptions {
  readonly socketPath: string | null;
  readonly watchdogUsec: number | null;
  /** WATCHDOG_PID: another process's watchdog is none of ours. */
  readonly watchdogPid: number | null;
  readonly clock: Clock;
  readonly log: Log;
}

const STATUS_EVERY_MS = 10_000;

export class SystemdNotify {
  readonly #options: SystemdNotifyOptions;
  readonly #ending = new AbortController();
  #socket: DgramSocket | null = null;
  #failed = false;
  #statusAtMs = -Infinity;
  #watchdog: Promise<void> | null = null;
  #isLive: () => boolean = () => true;

  constructor(options: SystemdNotifyOptions) {
    this.#options = options;
  }

  ready(): void {
    this.#send("READY=1");
  }

  /** One line of text; at most every ten seconds, what comes between is left out. */
  status(line: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#statusAtMs < STATUS_EVERY_MS) return;
    this.#statusAtMs = nowMs;
    this.#send(`STATUS=${line.replaceAll("\n", " ")}`);
  }

  reloading(): void {
    const usec = process.hrtime.bigint() / 1000n;
    this.#send(`RELOADING=1\nMONOTONIC_USEC=${usec}`);
  }

  stopping(): void {
    this.#send("STOPPING=1");
  }

  /** Asks for more time to start or stop, counted from now. */
  extendTimeout(ms: number): void {
    this.#send(`EXTEND_TIMEOUT_USEC=${Math.round(ms * 1000)}`);
  }

  /**
   * Sends WATCHDOG=1 three times in a period while `isLive` says so; ends with `close`. A second
   * call gives it another judge.
   */
  startWatchdog(isLive: () => boolean): void {
    this.#isLive = isLive;
    const { watchdogUsec, watchdogPid } = this.#options;
    if (watchdogUsec === null || watchdogUsec === 0 || this.#watchdog !== null) return;
    if (watchdogPid !== null && watchdogPid !== process.pid) return;
    this.#watchdog = this.#beat(watchdogUsec / 3000);
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await this.#watchdog;
    this.#socket?.close();
    this.#socket = null;
    this.#failed = true;
  }

  async #beat(everyMs: number): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      if (this.#isLive()) this.#send("WATCHDOG=1");
      await this.#options.clock.sleep(everyMs, signal);
    }
  }

  #send(message: string): void {
    const { socketPath } = this.#options;
    if (socketPath === null || this.#failed) return;
    // The addon takes paths only; the kernel's abstract names begin with "@" here.
    if (socketPath.startsWith("@")) return this.#giveUp("abstract addresses are not supported");
    try {
      this.#socket ??= this.#open();
      const bytes = Buffer.from(message);
      this.#socket.sendTo(bytes, 0, bytes.length, socketPath, (error) => {
        if (error !== undefined) this.#giveUp(error.message);
      });
    } catch (error) {
      this.#giveUp(error instanceof Error ? error.message : String(error));
    }
  }

  #open(): DgramSocket {
    const socket = new DgramSocket();
    socket.on("error", (error: Error) => this.#giveUp(error.message));
    return socket;
  }

  #giveUp(reason: string): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#options.log.warn("systemd cannot be notified; the agent goes on without it", { reason });
  }
}
