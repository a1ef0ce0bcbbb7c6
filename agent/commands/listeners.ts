/** What the running agent shows to others: /metrics, /health, /livez and the two control sockets. */
import type { Agent } from "../assemble.ts";
import type { ControlSockets } from "../config/derived.ts";
import type { Settings } from "../config/settings-table.ts";
import { ControlServer } from "../control/control-server.ts";
import { type Log, systemClock } from "../kernel/service.ts";
import { computeHealth, statusLine } from "../observe/health.ts";
import { computeLiveness, type Liveness, type LoopPulse } from "../observe/liveness.ts";
import { json, StatusServer } from "../observe/status-server.ts";
import { capturePulse, forwardPulse } from "../pulses.ts";
import { adminCommands, readOnlyCommands } from "./admin-commands.ts";
import { statusReport } from "./status-report.ts";

export interface ListenerOptions {
  readonly settings: Settings;
  readonly log: Log;
  readonly sockets: ControlSockets;
}

export class Listeners {
  readonly #agent: Agent;
  readonly #options: ListenerOptions;
  readonly #pulses: readonly LoopPulse[];
  readonly #metrics: StatusServer;
  readonly #health: StatusServer;
  readonly #control: ControlServer;
  #wasLive = true;
  readonly #admin: ControlServer;

  constructor(agent: Agent, options: ListenerOptions) {
    const { settings, log } = options;
    this.#agent = agent;
    this.#options = options;
    const nowMs = (): number => systemClock.monotonicMs();
    // A state that waits to be adopted has no loops.
    this.#pulses =
      agent.adoption !== null
        ? []
        : [
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
      path: options.sockets.readOnly,
      mode: 0o660,
      log,
      audited: false,
      commands: readOnlyCommands(agent, () => this.#statusReport()),
    });
    this.#admin = new ControlServer({
      path: options.sockets.admin,
      mode: 0o600,
      log,
      audited: true,
      commands: adminCommands(agent),
    });
  }

  /** Rejects with LISTEN_FAILED. */
  async open(): Promise<void> {
    const { settings, log, sockets } = this.#options;
    const metricsPort = await this.#metrics.open();
    const healthPort = await this.#health.open();
    await this.#control.open();
    await this.#admin.open();
    log.info("listening", {
      metrics: `${settings.metricsListen}:${metricsPort}`,
      health: `${settings.healthListen}:${healthPort}`,
      control: sockets.readOnly,
      admin: sockets.admin,
    });
  }

  async close(): Promise<void> {
    const listening = [this.#metrics, this.#health, this.#control, this.#admin];
    await Promise.all(listening.map((listener) => listener.close()));
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
