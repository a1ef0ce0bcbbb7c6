/**
 * The agent's end of a control socket. This one is read-only: who may connect may see the status,
 * never row data, and change nothing. What changes state gets a socket of its own for root alone
 * (another instance with mode 0600), when the first such command comes.
 */
import { chmod, mkdir, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { AgentError } from "../kernel/errors.ts";
import type { Log } from "../kernel/service.ts";
import { type ControlAnswer, parseRequest, REQUEST_BYTES_MAX } from "./protocol.ts";

export interface ControlServerOptions {
  readonly path: string;
  /** 0660: owner and the service's group. */
  readonly mode: number;
  readonly commands: Readonly<Record<string, () => Promise<unknown>>>;
  readonly log: Log;
}

const SILENT_MS = 10_000;

export class ControlServer {
  readonly #options: ControlServerOptions;
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;

  constructor(options: ControlServerOptions) {
    this.#options = options;
  }

  /** Listens, in place of a socket that a killed agent left. Rejects with LISTEN_FAILED. */
  async open(): Promise<void> {
    const { path, mode } = this.#options;
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o750 });
      if (await answers(path)) throw new AgentError("LISTEN_FAILED", `another agent answers on ${path}`);
      await unlink(path).catch(() => undefined);
      await this.#listen(path);
      await chmod(path, mode);
    } catch (cause) {
      if (cause instanceof AgentError) throw cause;
      throw new AgentError("LISTEN_FAILED", `cannot open the control socket ${path} (${codeOf(cause)})`, {
        cause,
      });
    }
  }

  /** Ends connections and removes the socket. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #listen(path: string): Promise<void> {
    const server = createServer((socket) => this.#serve(socket));
    server.maxConnections = 16;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ path }, () => {
        server.off("error", reject);
        server.on("error", (error) =>
          this.#options.log.warn("the control socket failed", { code: codeOf(error) }),
        );
        resolve();
      });
    });
    this.#server = server;
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    let line = "";
    socket.setEncoding("utf8");
    socket.setTimeout(SILENT_MS, () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
    // A client that goes away is no event of ours.
    socket.on("error", () => socket.destroy());
    const onData = (chunk: string): void => {
      line += chunk;
      const end = line.indexOf("\n");
      if (end < 0 && line.length <= REQUEST_BYTES_MAX) return;
      socket.off("data", onData);
      void this.#answer(end < 0 ? "" : line.slice(0, end)).then((answer) =>
        socket.end(`${JSON.stringify(answer)}\n`),
      );
    };
    socket.on("data", onData);
  }

  async #answer(line: string): Promise<ControlAnswer> {
    const { commands, log } = this.#options;
    const request = parseRequest(line);
    if (request === null) return { ok: false, message: "the request is not one line of JSON with a command" };
    const command = Object.hasOwn(commands, request.command) ? commands[request.command] : undefined;
    if (command === undefined) {
      return {
        ok: false,
        message: `this agent does not know the command ${JSON.stringify(request.command)}`,
      };
    }
    try {
      return { ok: true, result: await command() };
    } catch (error) {
      log.error("a control command failed", { command: request.command, error: codeOf(error) });
      return { ok: false, message: "the command failed; the agent's log says why" };
    }
  }
}

/** Whether somebody listens there: a file alone is what a killed process leaves. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (alive: boolean): void => {
      socket.destroy();
      resolve(alive);
    };
    socket.once("connect", () => done(true));
    socket.once("error", () => done(false));
  });
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown error";
  return "code" in error ? String(error.code) : error.message;
}
