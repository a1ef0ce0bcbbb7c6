/** What the running agent shows to others: /metrics, /health, /livez and the control socket. */
import type { Agent } from "../assemble.ts";
import type { Settings } from "../config/settings-table.ts";
import { ControlServer } from "../control/control-server.ts";
import { type Log, systemClock } from "../kernel/service.ts";
import { computeHealth, statusLine } from "../observe/health.ts";
import { computeLiveness, type Liveness, type LoopPulse } from "../observe/liveness.ts";
import { json, StatusServer } from "../observe/status-server.ts";
import { capturePulse, forwardPulse } from "../pulses.ts";
import { statusReport } from "./status-report.ts";

export interface ListenerOptions {
  readonly settings: Settings;
  readonly log: Log;
  readonly controlPath: string;
}

export class Listeners {
  readonly #agent: Agent;
  readonly #options: ListenerOptions;
  readonly #pulses: readonly LoopPulse[];
  readonly #metrics: StatusServer;
  readonly #health: StatusServer;
  readonly #control: ControlServer;
  #wasLive = true;

  constructor(agent: Agent, options: ListenerOptions) {
    const { settings, log } = options;
    this.#agent = agent;
    this.#options = options;
    const nowMs = (): number => systemClock.monotonicMs();
    this.#pulses = [
      capturePulse(agent.capture, agent.spool),
      forwardPulse(() => agent.forwarder.pulse(), agent.spool, nowMs),
    ];
    this.#metrics = new StatusServer({
      name: "METRICS_PORT",
      host: settings.metricsListen,
      port: settings.metricsPort,
      log,
      routes: { "/metrics": async () => this.#metricsReply() },
    });
    this.#health = new StatusServer({
      name: "HEALTH_PORT",
      host: settings.healthListen,
      port: settings.healthPort,
      log,
      routes: { "/health": async () => this.#healthReply(), "/livez": () => this.#livezReply() },
    });
    this.#control = new ControlServer({
      path: options.controlPath,
      mode: 0o660,
      log,
      commands: { status: async () => this.#statusReport() },
    });
  }

  /** Rejects with LISTEN_FAILED. */
  async open(): Promise<void> {
    const { settings, log, controlPath } = this.#options;
    const metricsPort = await this.#metrics.open();
    const healthPort = await this.#health.open();
    await this.#control.open();
    log.info("listening", {
      metrics: `${settings.metricsListen}:${metricsPort}`,
      health: `${settings.healthListen}:${healthPort}`,
      control: controlPath,
    });
  }

  async close(): Promise<void> {
    await Promise.all([this.#metrics.close(), this.#health.close(), this.#control.close()]);
  }

  liveness(): Liveness {
    return computeLiveness(this.#pulses, systemClock.monotonicMs());
  }

  /** For the watchdog: says once in the log which loop is stuck, so that the restart has a reason. */
  isLive(): boolean {
    const { live, loops } = this.liveness();
    if (!live && this.#wasLive) {
      for (const loop of loops.filter((one) => !one.live)) {
        const { name, silentMs } = loop;
        this.#options.log.error("a loop does not come round any more; the watchdog will end the agent", {
          loop: name,
          silentMs,
        });
      }
    }
    this.#wasLive = live;
    return live;
  }

  async statusLine(): Promise<string> {
    return statusLine(await this.#agent.facts.gather());
  }

  async #metricsReply() {
    const { metrics } = this.#agent;
    return { status: 200, contentType: metrics.contentType, body: await metrics.scrape() };
  }

  async #healthReply() {
    const report = computeHealth(await this.#agent.facts.gather(), this.#options.settings);
    return json(report.status === "healthy" ? 200 : 503, report);
  }

  #livezReply() {
    const liveness = this.liveness();
    return json(liveness.live ? 200 : 503, liveness);
  }

  async #statusReport() {
    return statusReport(await this.#agent.facts.gather(), this.liveness(), this.#options.settings);
  }
}
