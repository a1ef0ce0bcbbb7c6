/**
 * A TCP proxy that does to connections what bad networks and dying servers do to them. Put it
 * between any client and any server on loopback, hand the client the proxy's port, and let faults
 * begin and end while both run:
 *
 *     const proxy = await startTcpProxy({ port: redis.port });
 *     await proxy.become({ kind: "black-hole" });
 *     ...
 *     await proxy.become({ kind: "pass" });
 *     ...
 *     await proxy.stop();
 *
 * One proxy has one fault at a time; for two at once put one proxy before another.
 */
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { Relay } from "./relay.ts";
import { startSilentPort, type SilentPort } from "./silent-port.ts";

export type Fault =
  /** No fault. Bytes flow both ways, ends and resets are passed on. */
  | { readonly kind: "pass" }
  /** Every byte comes so much later, in both directions; the rate is not limited. */
  | { readonly kind: "delay"; readonly delayMs: number }
  /** Each direction of each connection carries so many bytes a second. */
  | { readonly kind: "throttle"; readonly bytesPerSecond: number }
  /** Nothing listens on the port, and the open connections were reset: the server's process is gone. */
  | { readonly kind: "refuse" }
  /**
   * Connections are accepted and requests taken, and nothing is ever answered: the server's process
   * hangs. What it took is lost; when the fault ends these connections are reset.
   */
  | { readonly kind: "hang" }
  /**
   * Nothing gets through on any connection, old or new, no byte, no end and no reset: the network
   * between them lost its way. When the fault ends everything held back flows on, as TCP sends again.
   */
  | { readonly kind: "black-hole" }
  /**
   * The connections that are open now go silent and stay so for ever, also after the fault, while
   * new ones work: a firewall forgot them, or the peer was replaced without a word.
   */
  | { readonly kind: "half-open" }
  /**
   * The network is gone: open connections are silent for ever, and connecting gets no answer either,
   * neither yes nor no. After the fault new connections work.
   */
  | { readonly kind: "vanish" }
  /**
   * Requests reach the server whole; when its answer comes the client's connection is reset after
   * `afterBytes` bytes of it (default 0: it sees nothing of it). The work was done, and the client
   * cannot know.
   */
  | { readonly kind: "reset-answers"; readonly afterBytes?: number };

export interface Target {
  readonly port: number;
  /** Default 127.0.0.1. */
  readonly host?: string;
}

export interface TcpProxy {
  /** The loopback port for the client; it stays the same through all faults. */
  readonly port: number;
  /** Connections of clients that are open now, silent ones included. */
  readonly open: number;
  /** Connections accepted since the start. */
  readonly accepted: number;
  /** Bytes passed on to the server and to the client since the start. */
  readonly passed: { readonly toServer: number; readonly toClient: number };
  readonly fault: Fault;
  /** Ends the fault that is in force and begins this one; resolves when it is in force. */
  become(fault: Fault): Promise<void>;
  /** Where connections from now on go; open ones stay with their server until `cut`. */
  setTarget(target: Target): void;
  /** Resets (RST) every open connection, towards both sides; the fault in force stays. */
  cut(): void;
  /** Closes the port and every connection. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts a proxy without fault. The target need not be there: a connection that cannot be made
 * resets the client's. `options.port` asks for a certain port.
 */
export async function startTcpProxy(target: Target, options: { port?: number } = {}): Promise<TcpProxy> {
  const proxy = new LoopbackProxy(target);
  await proxy.listen(options.port ?? 0);
  return proxy;
}

class LoopbackProxy implements TcpProxy {
  readonly #relays = new Set<Relay>();
  readonly #passed = { toServer: 0, toClient: 0 };
  #target: Target;
  #server: Server | null = null;
  #silentPort: SilentPort | null = null;
  #port = 0;
  #accepted = 0;
  #fault: Fault = { kind: "pass" };

  constructor(target: Target) {
    this.#target = target;
  }

  get port(): number {
    return this.#port;
  }

  get open(): number {
    return this.#relays.size;
  }

  get accepted(): number {
    return this.#accepted;
  }

  get passed(): { readonly toServer: number; readonly toClient: number } {
    return this.#passed;
  }

  get fault(): Fault {
    return this.#fault;
  }

  async become(fault: Fault): Promise<void> {
    const before = this.#fault;
    this.#fault = fault;
    // What a hanging process took is lost with it: its connections cannot go on.
    if (before.kind === "hang" && fault.kind !== "hang") this.cut();
    await this.#silentPort?.stop();
    this.#silentPort = null;
    if (fault.kind === "refuse") {
      await this.#close();
      return;
    }
    for (const relay of this.#relays) relay.obey(fault);
    if (fault.kind === "vanish") {
      // Not awaited: it is closed for good only when its connections are, and the port is free at once.
      this.#server?.close();
      this.#server = null;
      this.#silentPort = await startSilentPort(this.#port);
    } else if (this.#server === null) await this.listen(this.#port);
  }

  setTarget(target: Target): void {
    this.#target = target;
  }

  cut(): void {
    for (const relay of this.#relays) relay.reset();
  }

  async stop(): Promise<void> {
    await this.#silentPort?.stop();
    this.#silentPort = null;
    await this.#close();
  }

  async listen(port: number): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    const address: AddressInfo | string | null = server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy has no port");
    this.#port = address.port;
  }

  #accept(client: Socket): void {
    this.#accepted += 1;
    const relay = new Relay(client, this.#target, this.#passed);
    this.#relays.add(relay);
    relay.closed = () => this.#relays.delete(relay);
    // Half-open is about the connections that were open when it began.
    relay.obey(this.#fault.kind === "half-open" ? { kind: "pass" } : this.#fault);
  }

  async #close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    const closed =
      server === null ? Promise.resolve() : new Promise<void>((resolve) => server.close(() => resolve()));
    this.cut();
    await closed;
  }
}
