/**
 * The agent's end of a control socket. There are two (spec.md section 10): a read-only one for the
 * service's group, whose commands show no row data and change nothing, and the admin socket for
 * root alone with everything else. The file's mode decides who may connect, and the socket is never
 * wider than its mode, not for a moment.
 */
import { chmod, mkdir, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { AgentError } from "../kernel/errors.ts";
import type { Log } from "../kernel/service.ts";
import {
  type ControlAnswer,
  type ControlArguments,
  parseRequest,
  refusalOf,
  REQUEST_BYTES_MAX,
} from "./protocol.ts";

/**
 * One command. Resolves with what JSON can carry. An AgentError that it throws is answered with
 * its code, message and hint; anything else only as a failure whose cause the log holds.
 */
export type ControlCommand = (args: ControlArguments) => Promise<unknown>;

/** The dispatch table of a socket, by the command's name. */
export type ControlCommands = Readonly<Record<string, ControlCommand>>;

export interface ControlServerOptions {
  readonly path: string;
  /** 0660: owner and the service's group. 0600: the service itself, and so root. */
  readonly mode: number;
  readonly commands: ControlCommands;
  /** Whether each command that is asked leaves a line in the log. */
  readonly audited: boolean;
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
      // The file is made inside this call; a mode that is set only afterwards would leave a moment
      // in which others may connect.
      const umask = process.umask(0o777 & ~this.#options.mode);
      try {
        server.listen({ path }, () => {
          server.off("error", reject);
          server.on("error", (error) =>
            this.#options.log.warn("the control socket failed", { code: codeOf(error) }),
          );
          resolve();
        });
      } finally {
        process.umask(umask);
      }
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
      // From here on it is the command that takes its time, not the client.
      socket.setTimeout(0);
      void this.#answer(end < 0 ? "" : line.slice(0, end)).then((answer) =>
        socket.end(`${JSON.stringify(answer)}\n`),
      );
    };
    socket.on("data", onData);
  }

  async #answer(line: string): Promise<ControlAnswer> {
    const { commands, log, audited } = this.#options;
    const request = parseRequest(line);
    if (request === null) return refused("the request is not one line of JSON with a command");
    const { command: name, args } = request;
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (command === undefined) return refused(`this socket has no command ${JSON.stringify(name)}`);
    if (audited) log.notice("an operator's command", { command: name });
    try {
      return { ok: true, result: await command(args) };
    } catch (error) {
      if (error instanceof AgentError) return refusalOf(error);
      log.error("a control command failed", { command: name, error: codeOf(error) });
      return refusalOf(new AgentError("BUG", "the command failed; the agent's log says why"));
    }
  }
}

function refused(message: string): ControlAnswer {
  const hint = "Is the running agent of another version?";
  return refusalOf(new AgentError("COMMAND_REFUSED", message, { hint }));
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
