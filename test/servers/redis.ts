import { existsSync } from "node:fs";
import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { ensureDebianPackages } from "./packages.ts";
import { freePort } from "./ports.ts";
import { startProcess, waitUntilReady, type ServerProcess } from "./processes.ts";
import { RedisConnection, type RedisReply } from "./redis-connection.ts";

const command = "/usr/bin/redis-server";

/** One entry of a stream: its id and its fields. */
export interface StreamEntry {
  readonly id: string;
  readonly fields: Readonly<Record<string, string>>;
}

/** A real Redis of its own, with the append-only file on; gone without a trace after stop. */
export interface RedisServer {
  readonly port: number;
  pid(): number;
  /** Sends one command; rejects with Redis's own error text. */
  command(...args: readonly string[]): Promise<RedisReply>;
  /** Entries in the stream; 0 when there is none. */
  streamLength(stream: string): Promise<number>;
  /** At most `count` entries (default 1,000), from `from` on (default the oldest). */
  streamEntries(stream: string, range?: { from?: string; count?: number }): Promise<StreamEntry[]>;
  /** The newest entries, newest first. */
  newestEntries(stream: string, count: number): Promise<StreamEntry[]>;
  /** kill -9; the data stays for `restart`. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Stops it and removes every file. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a throw-away Redis; installs it where it is missing. */
export async function startRedis(
  options: { args?: readonly string[]; port?: number } = {},
): Promise<RedisServer> {
  if (!existsSync(command)) await ensureDebianPackages(["redis-server"], "the throw-away broker");
  const directory = throwAwayDirectory("redis");
  const server = new ThrowAwayRedis(directory, options.port ?? (await freePort()), options.args ?? []);
  try {
    await server.start();
  } catch (thrown) {
    await server.stop();
    throw thrown;
  }
  return server;
}

class ThrowAwayRedis implements RedisServer {
  readonly port: number;
  readonly #directory: string;
  readonly #args: readonly string[];
  #process: ServerProcess | null = null;
  #connection: RedisConnection | null = null;

  constructor(directory: string, port: number, args: readonly string[]) {
    this.#directory = directory;
    this.port = port;
    this.#args = args;
  }

  pid(): number {
    if (this.#process === null) throw new Error("Redis does not run");
    return this.#process.pid;
  }

  async start(): Promise<void> {
    this.#process = startProcess({
      command,
      args: [...this.#settings(), ...this.#args],
      logFile: join(this.#directory, "redis.log"),
    });
    await waitUntilReady(this.#process, () => this.#answers(), 20_000);
  }

  #settings(): string[] {
    const place = `--port ${this.port} --bind 127.0.0.1 --dir ${this.#directory}`.split(" ");
    const durability = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""];
    return [...place, ...durability, "--maxmemory-policy", "noeviction"];
  }

  async command(...args: readonly string[]): Promise<RedisReply> {
    this.#connection ??= await RedisConnection.open(this.port, () => {
      this.#connection = null;
    });
    return this.#connection.command(args);
  }

  async streamLength(stream: string): Promise<number> {
    return Number(await this.command("XLEN", stream));
  }

  async streamEntries(stream: string, range: { from?: string; count?: number } = {}): Promise<StreamEntry[]> {
    const count = String(range.count ?? 1000);
    return entriesOf(await this.command("XRANGE", stream, range.from ?? "-", "+", "COUNT", count));
  }

  async newestEntries(stream: string, count: number): Promise<StreamEntry[]> {
    return entriesOf(await this.command("XREVRANGE", stream, "+", "-", "COUNT", String(count)));
  }

  async kill(): Promise<void> {
    this.#drop();
    await this.#process?.kill();
    this.#process = null;
  }

  async restart(): Promise<void> {
    this.#drop();
    await this.#process?.stop();
    await this.start();
  }

  async stop(): Promise<void> {
    this.#drop();
    await this.#process?.stop();
    this.#process = null;
    removeDirectory(this.#directory);
  }

  #drop(): void {
    this.#connection?.close();
    this.#connection = null;
  }

  async #answers(): Promise<boolean> {
    try {
      return (await this.command("PING")) === "PONG";
    } catch {
      this.#drop();
      return false;
    }
  }
}

function entriesOf(reply: RedisReply): StreamEntry[] {
  if (!Array.isArray(reply)) throw new Error("Redis answered something else than a list of entries");
  return reply.map((entry) => {
    if (!Array.isArray(entry) || !Array.isArray(entry[1]))
      throw new Error("a stream entry has another shape");
    const fields: Record<string, string> = {};
    for (let at = 0; at + 1 < entry[1].length; at += 2)
      fields[String(entry[1][at])] = String(entry[1][at + 1]);
    return { id: String(entry[0]), fields };
  });
}
