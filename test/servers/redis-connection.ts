import { connect, type Socket } from "node:net";

export type RedisReply = string | number | null | RedisReply[];

interface Waiting {
  readonly resolve: (reply: RedisReply) => void;
  readonly reject: (error: Error) => void;
}

/** A minimal client of Redis's protocol (RESP2): commands are pipelined, replies come in order. */
export class RedisConnection {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #received: Buffer = Buffer.alloc(0);
  #closed = false;

  static open(port: number, onClose: () => void): Promise<RedisConnection> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("error", reject);
      socket.once("connect", () => resolve(new RedisConnection(socket, onClose)));
    });
  }

  constructor(socket: Socket, onClose: () => void) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => this.#receive(chunk));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#closed = true;
      for (const one of this.#waiting.splice(0)) one.reject(new Error("the connection to Redis was closed"));
      onClose();
    });
  }

  command(args: readonly string[]): Promise<RedisReply> {
    if (this.#closed) return Promise.reject(new Error("the connection to Redis was closed"));
    const parts = [`*${args.length}\r\n`];
    for (const arg of args) parts.push(`$${Buffer.byteLength(arg)}\r\n${arg}\r\n`);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(parts.join(""));
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    for (let parsed = parse(this.#received, 0); parsed !== null; parsed = parse(this.#received, 0)) {
      this.#received = this.#received.subarray(parsed.end);
      const one = this.#waiting.shift();
      if (parsed.reply instanceof Error) one?.reject(parsed.reply);
      else one?.resolve(parsed.reply);
    }
  }
}

interface Parsed {
  readonly reply: RedisReply | Error;
  readonly end: number;
}

/** The reply that starts at `at`, or null while it is not complete. */
function parse(bytes: Buffer, at: number): Parsed | null {
  const lineEnd = bytes.indexOf("\r\n", at);
  if (lineEnd < 0) return null;
  const text = bytes.toString("utf8", at + 1, lineEnd);
  const next = lineEnd + 2;
  switch (String.fromCharCode(bytes[at] ?? 0)) {
    case "+":
      return { reply: text, end: next };
    case "-":
      return { reply: new Error(text), end: next };
    case ":":
      return { reply: Number(text), end: next };
    case "$":
      return parseText(bytes, next, Number(text));
    case "*":
      return parseList(bytes, next, Number(text));
    default:
      throw new Error("Redis sent a reply of an unknown kind");
  }
}

function parseText(bytes: Buffer, at: number, length: number): Parsed | null {
  if (length < 0) return { reply: null, end: at };
  if (bytes.length < at + length + 2) return null;
  return { reply: bytes.toString("utf8", at, at + length), end: at + length + 2 };
}

function parseList(bytes: Buffer, at: number, length: number): Parsed | null {
  if (length < 0) return { reply: null, end: at };
  const replies: RedisReply[] = [];
  let end = at;
  for (let index = 0; index < length; index += 1) {
    const parsed = parse(bytes, end);
    if (parsed === null) return null;
    if (parsed.reply instanceof Error) return parsed;
    replies.push(parsed.reply);
    end = parsed.end;
  }
  return { reply: replies, end };
}
