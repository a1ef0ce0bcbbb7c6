/**
 * A small HTTP listener for /metrics, /health and /livez: GET and HEAD only, on loopback unless a
 * setting says otherwise. It never shows row data, and an error of a route shows no detail.
 */
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { AgentError } from "../kernel/errors.ts";
import type { Log } from "../kernel/service.ts";

export interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

export interface StatusServerOptions {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly routes: Readonly<Record<string, () => Promise<Reply> | Reply>>;
  readonly log: Log;
}

export class StatusServer {
  readonly #options: StatusServerOptions;
  #server: Server | null = null;

  constructor(options: StatusServerOptions) {
    this.#options = options;
  }

  /** Listens; resolves with the port. Rejects with LISTEN_FAILED and the port in words. */
  async open(): Promise<number> {
    const server = createServer({ headersTimeout: 5000, requestTimeout: 10_000 }, (request, response) => {
      // Nobody sends a body here; unread bytes would keep the connection open.
      request.resume();
      void this.#answer(request.method ?? "", request.url ?? "/", response);
    });
    server.maxConnections = 64;
    this.#server = server;
    const { host, port, name } = this.#options;
    return new Promise((resolve, reject) => {
      server.once("error", (cause: NodeJS.ErrnoException) => {
        const message = `cannot listen on ${host}:${port} for ${name} (${cause.code ?? cause.message})`;
        reject(new AgentError("LISTEN_FAILED", message, { cause }));
      });
      server.listen({ host, port }, () => {
        resolve(portOf(server.address()));
      });
    });
  }

  /** Stops listening and ends open connections. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null || !server.listening) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  }

  async #answer(method: string, url: string, response: ServerResponse): Promise<void> {
    const path = url.split("?", 1)[0] ?? "/";
    const route = Object.hasOwn(this.#options.routes, path) ? this.#options.routes[path] : undefined;
    try {
      if (route === undefined) send(response, method, text(404, "not found\n"));
      else if (method !== "GET" && method !== "HEAD") {
        response.setHeader("allow", "GET, HEAD");
        send(response, method, text(405, "only GET and HEAD\n"));
      } else send(response, method, await route());
    } catch (error) {
      this.#options.log.error("a status page failed", {
        path,
        error: error instanceof Error ? error.message : "?",
      });
      if (!response.headersSent) send(response, method, text(500, "internal error\n"));
      else response.destroy();
    }
  }
}

export function text(status: number, body: string): Reply {
  return { status, contentType: "text/plain; charset=utf-8", body };
}

export function json(status: number, value: unknown): Reply {
  return { status, contentType: "application/json; charset=utf-8", body: `${JSON.stringify(value)}\n` };
}

function send(response: ServerResponse, method: string, reply: Reply): void {
  const body = Buffer.from(reply.body);
  response.writeHead(reply.status, {
    "content-type": reply.contentType,
    "content-length": body.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.end(method === "HEAD" ? undefined : body);
}

function portOf(address: AddressInfo | string | null): number {
  return address !== null && typeof address === "object" ? address.port : 0;
}
