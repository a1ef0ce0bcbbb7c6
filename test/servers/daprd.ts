import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { ensureDaprd } from "./daprd-binary.ts";
import { freePorts } from "./ports.ts";
import { startProcess, waitUntilReady, type ServerProcess } from "./processes.ts";

export interface DaprdOptions {
  /** Directory of Component, Subscription and Resiliency files. */
  readonly resourcesDir: string;
  /** File of the Configuration. */
  readonly configFile?: string;
  /** Switches the API token on (dapr-api-token header). */
  readonly token?: string;
  /** Default edge-gateway. No dots. */
  readonly appId?: string;
  /** The subscriber's port on loopback; daprd waits for it before it subscribes. */
  readonly appPort?: number;
  /** Namespace that Subscriptions are matched with; default production, as in cluster/. */
  readonly namespace?: string;
  /** More command line options, such as "--max-body-size=1Mi". */
  readonly args?: readonly string[];
  /** A fixed API port, so that what talks to it survives a restart; default a free one. */
  readonly httpPort?: number;
  readonly logLevel?: "debug" | "info" | "warn" | "error";
}

/** A real daprd of its own on loopback ports; gone without a trace after stop. */
export interface DaprdServer {
  readonly httpPort: number;
  readonly grpcPort: number;
  /** What DAPR_HTTP_ENDPOINT takes. */
  readonly endpoint: string;
  pid(): number;
  running(): boolean;
  log(): string;
  /** kill -9. */
  kill(): Promise<void>;
  /** Starts it again on the same ports, after a stop in order if it runs; with another token if one is given. */
  restart(token?: string): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts the real daprd and waits until its API takes requests and its components are there. It
 * ends by itself when a broker it needs is down at its start. Throws DaprdUnavailableError when
 * there is no daprd to start.
 */
export async function startDaprd(options: DaprdOptions): Promise<DaprdServer> {
  const binary = await ensureDaprd();
  const [httpPort = 0, grpcPort = 0, internalPort = 0] = await freePorts(3);
  const ports = { http: options.httpPort ?? httpPort, grpc: grpcPort, internal: internalPort };
  const server = new Daprd(binary, options, ports);
  try {
    await server.start();
  } catch (thrown) {
    await server.stop();
    throw thrown;
  }
  return server;
}

interface Ports {
  readonly http: number;
  readonly grpc: number;
  readonly internal: number;
}

class Daprd implements DaprdServer {
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly endpoint: string;
  readonly #binary: string;
  readonly #options: DaprdOptions;
  readonly #ports: Ports;
  readonly #directory = throwAwayDirectory("daprd");
  #token: string | undefined;
  #process: ServerProcess | null = null;

  constructor(binary: string, options: DaprdOptions, ports: Ports) {
    this.#binary = binary;
    this.#options = options;
    this.#token = options.token;
    this.#ports = ports;
    this.httpPort = ports.http;
    this.grpcPort = ports.grpc;
    this.endpoint = `http://127.0.0.1:${ports.http}`;
  }

  pid(): number {
    if (this.#process === null) throw new Error("daprd does not run");
    return this.#process.pid;
  }

  running(): boolean {
    return this.#process?.running() ?? false;
  }

  log(): string {
    return this.#process?.log() ?? "";
  }

  async start(): Promise<void> {
    const server = startProcess({
      command: this.#binary,
      args: this.#args(),
      logFile: join(this.#directory, "daprd.log"),
      env: {
        DAPR_API_TOKEN: this.#token,
        NAMESPACE: this.#options.namespace ?? "production",
      },
    });
    this.#process = server;
    await waitUntilReady(server, () => this.#takesRequests(), 30_000);
  }

  async kill(): Promise<void> {
    await this.#process?.kill();
  }

  async restart(token?: string): Promise<void> {
    await this.#process?.stop();
    if (token !== undefined) this.#token = token;
    await this.start();
  }

  async stop(): Promise<void> {
    await this.#process?.stop();
    this.#process = null;
    removeDirectory(this.#directory);
  }

  #args(): string[] {
    const options = this.#options;
    return [
      "--app-id",
      options.appId ?? "edge-gateway",
      "--mode=standalone",
      "--dapr-listen-addresses=127.0.0.1",
      `--dapr-http-port=${this.#ports.http}`,
      `--dapr-grpc-port=${this.#ports.grpc}`,
      `--dapr-internal-grpc-port=${this.#ports.internal}`,
      "--dapr-internal-grpc-listen-address=127.0.0.1",
      `--resources-path=${options.resourcesDir}`,
      ...(options.configFile === undefined ? [] : [`--config=${options.configFile}`]),
      ...(options.appPort === undefined ? [] : [`--app-port=${options.appPort}`, "--app-protocol=http"]),
      "--enable-metrics=false",
      `--log-level=${options.logLevel ?? "warn"}`,
      // The agent's listeners are closed for new work at once; nothing here wants a slow end.
      "--dapr-graceful-shutdown-seconds=1",
      ...(options.args ?? []),
    ];
  }

  /** The outbound check answers before the app is there; an app that subscribes asks for both. */
  async #takesRequests(): Promise<boolean> {
    const path = this.#options.appPort === undefined ? "healthz/outbound" : "healthz";
    try {
      const answer = await fetch(`${this.endpoint}/v1.0/${path}`, { signal: AbortSignal.timeout(2_000) });
      await answer.arrayBuffer();
      return answer.status === 204;
    } catch {
      return false;
    }
  }
}
