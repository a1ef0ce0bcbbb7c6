/** One connection through the TCP proxy: a client, its server, and the fault between them. */
import { connect, type Socket } from "node:net";
import type { Fault, Target } from "./tcp-proxy.ts";

/** What one direction may hold back before the sender is no longer read. */
const HELD_BYTES_MAX = 1024 * 1024;

/** Counts what went through all relays of a proxy. */
export interface PassedBytes {
  toServer: number;
  toClient: number;
}

export class Relay {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #toServer: Direction;
  readonly #toClient: Direction;
  #fault: Fault = { kind: "pass" };
  /** Bytes of answers that were let through before the reset. */
  #answered = 0;
  #isDead = false;
  #isClosed = false;
  /** Called once when both sides are gone. */
  closed: () => void = () => undefined;

  constructor(client: Socket, target: Target, passed: PassedBytes) {
    this.#client = client;
    this.#server = connect({
      host: target.host ?? "127.0.0.1",
      port: target.port,
      allowHalfOpen: true,
      noDelay: true,
    });
    this.#toServer = new Direction(client, this.#server, (bytes) => {
      passed.toServer += bytes;
    });
    this.#toClient = new Direction(this.#server, client, (bytes) => {
      passed.toClient += bytes;
    });
    this.#toClient.beforePassing = (chunk) => this.#answering(chunk);
    for (const socket of [client, this.#server]) {
      // A reset of one side resets the other, unless the network between them is gone.
      socket.on("error", () => undefined);
      socket.on("close", (hadError) => this.#sideClosed(hadError));
    }
  }

  obey(fault: Fault): void {
    if (this.#isDead) return;
    this.#fault = fault;
    this.#answered = 0;
    if (fault.kind === "half-open" || fault.kind === "vanish") this.#isDead = true;
    const isSilent = this.#isDead || fault.kind === "black-hole";
    this.#toServer.swallows = fault.kind === "hang";
    this.#toClient.swallows = fault.kind === "hang";
    for (const direction of [this.#toServer, this.#toClient]) {
      direction.delayMs = fault.kind === "delay" ? fault.delayMs : 0;
      direction.bytesPerSecond = fault.kind === "throttle" ? fault.bytesPerSecond : Number.POSITIVE_INFINITY;
      direction.setSilent(isSilent);
    }
    if (!isSilent && (this.#client.destroyed || this.#server.destroyed)) this.reset();
  }

  reset(): void {
    for (const socket of [this.#client, this.#server]) {
      // A socket that still connects would keep its reset until it is connected.
      if (socket.connecting) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  /** How much of the server's chunk reaches the client. */
  #answering(chunk: Buffer): Buffer {
    if (this.#fault.kind !== "reset-answers") return chunk;
    const part = chunk.subarray(0, (this.#fault.afterBytes ?? 0) - this.#answered);
    this.#answered += part.length;
    // After the part was written out: a reset throws away what still waits to be sent.
    if (this.#answered < (this.#fault.afterBytes ?? 0)) return part;
    if (part.length === 0) this.reset();
    else this.#client.write(part, () => this.reset());
    return Buffer.alloc(0);
  }

  #sideClosed(hadError: boolean): void {
    if (this.#client.destroyed && this.#server.destroyed) {
      if (this.#isClosed) return;
      this.#isClosed = true;
      this.#toServer.close();
      this.#toClient.close();
      this.closed();
      return;
    }
    const isSilent = this.#isDead || this.#fault.kind === "black-hole";
    if (hadError && !isSilent) this.reset();
  }
}

interface Held {
  readonly chunk: Buffer;
  readonly dueAtMs: number;
}

/** Carries bytes from one socket to another, and the end after them. */
class Direction {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #count: (bytes: number) => void;
  readonly #held: Held[] = [];
  #heldBytes = 0;
  #isSilent = false;
  #hasEnded = false;
  /** When throttled: the next byte may go. */
  #freeAtMs = 0;
  #timer: NodeJS.Timeout | null = null;
  delayMs = 0;
  bytesPerSecond = Number.POSITIVE_INFINITY;
  swallows = false;
  /** May shorten a chunk, or do away with the connection. */
  beforePassing: (chunk: Buffer) => Buffer = (chunk) => chunk;

  constructor(from: Socket, to: Socket, count: (bytes: number) => void) {
    this.#from = from;
    this.#to = to;
    this.#count = count;
    from.on("data", (chunk: Buffer) => this.#take(chunk));
    from.on("end", () => {
      // A process that hangs answers an end no more than a request.
      if (this.swallows) return;
      this.#hasEnded = true;
      this.#flow();
    });
    to.on("drain", () => this.#flow());
  }

  setSilent(isSilent: boolean): void {
    this.#isSilent = isSilent;
    // Unread, a socket tells neither of bytes nor of an end or a reset.
    if (isSilent) this.#from.pause();
    this.#flow();
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#held.length = 0;
  }

  #take(chunk: Buffer): void {
    if (this.swallows) return;
    this.#held.push({ chunk, dueAtMs: performance.now() + this.delayMs });
    this.#heldBytes += chunk.length;
    this.#flow();
  }

  #flow(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#isSilent) return;
    for (let next = this.#held[0]; next !== undefined; next = this.#held[0]) {
      if (this.#to.writableNeedDrain) break;
      const waitMs = Math.max(next.dueAtMs, this.#freeAtMs) - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.#flow(), waitMs);
        break;
      }
      this.#pass(this.#piece(next));
    }
    if (this.#heldBytes < HELD_BYTES_MAX) this.#from.resume();
    else this.#from.pause();
    if (this.#hasEnded && this.#held.length === 0) this.#to.end();
  }

  /** Takes the next bytes out: all of the chunk, or as much as the rate allows in a short time. */
  #piece(next: Held): Buffer {
    const bytesMax = Math.max(1, this.bytesPerSecond / 50);
    this.#held.shift();
    const piece = next.chunk.subarray(0, bytesMax);
    if (piece.length < next.chunk.length)
      this.#held.unshift({ chunk: next.chunk.subarray(piece.length), dueAtMs: next.dueAtMs });
    this.#heldBytes -= piece.length;
    return piece;
  }

  #pass(chunk: Buffer): void {
    const bytes = this.beforePassing(chunk);
    if (bytes.length === 0 || this.#to.destroyed) return;
    this.#freeAtMs = performance.now() + (bytes.length / this.bytesPerSecond) * 1000;
    this.#count(bytes.length);
    this.#to.write(bytes);
  }
}
