/**
 * One dump connection: the only place that knows the binlog library. The library connects,
 * authenticates and requests the dump; its packets come here undecoded. A connection that had any
 * error is never used again.
 */
import type { ConnectionOptions } from "mysql2/promise";
import ZongJi from "@vlasky/zongji";
import { AgentError, asError } from "../kernel/errors.ts";
import { assert } from "../kernel/assert.ts";
import { translateError } from "./source-errors.ts";

export type DumpStart =
  | { readonly kind: "position"; readonly file: string; readonly position: number }
  | { readonly kind: "gtid"; readonly gtidSet: string };

export interface DumpOptions {
  readonly connection: ConnectionOptions;
  readonly serverId: number;
  readonly start: DumpStart;
  readonly heartbeatMs: number;
}

export interface DumpListener {
  /** One event, from its header to its checksum; the buffer's memory is not the listener's. */
  event(buffer: Buffer, start: number, end: number): void;
  /** Once, and nothing after it. */
  failed(error: AgentError): void;
}

/** The name that SHOW REPLICA HOSTS shows. */
const REPORT_HOST = "magento-edge-agent";
const REGISTER_REPLICA = 0x15;

/** What is used of the library's and the client's insides. */
interface Packet {
  readonly buffer: Buffer;
  readonly offset: number;
  readonly end: number;
  isEOF(): boolean;
  isError(): boolean;
  asError(encoding: string): Error;
}

interface WritablePacket {
  readonly buffer: Buffer;
  length(): number;
  writeHeader(sequenceId: number): void;
}

interface RawConnection {
  readonly clientEncoding: string;
  addCommand(command: RawCommand): void;
  query(sql: string, done: (error: Error | null) => void): void;
  writePacket(packet: WritablePacket): void;
  pause(): void;
  resume(): void;
  _resetSequenceId(): void;
  readonly stream: { destroy(): void };
}

interface RawCommand {
  /** Gets each packet of the answer, null at first; true when the command is over. */
  execute(packet: Packet | null | undefined, connection: RawConnection): boolean;
  onResult(error: Error): void;
}

interface Insides {
  connection: RawConnection | null;
  ctrlConnection: {
    removeAllListeners(event: string): void;
    on(event: string, listener: () => void): void;
    destroy(): void;
    readonly stream: { destroy(): void };
  } | null;
  BinlogClass: {
    prototype: {
      binlogData: (this: unknown, packet: Packet, connection: RawConnection) => unknown;
      onResult?: (error: Error) => void;
    };
  };
}

export class DumpConnection {
  readonly #options: DumpOptions;
  readonly #listener: DumpListener;
  #zongji: ZongJi | null = null;
  #raw: RawConnection | null = null;
  #isPaused = false;
  #ended = false;

  constructor(options: DumpOptions, listener: DumpListener) {
    this.#options = options;
    this.#listener = listener;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  open(): void {
    assert(this.#zongji === null, "a dump connection is opened once");
    const zongji = new ZongJi({ ...this.#options.connection });
    this.#zongji = zongji;
    zongji.on("error", (error: unknown) => this.#fail(error));
    zongji.on("ready", () => {
      try {
        this.#takeOver(zongji);
      } catch (error) {
        this.#fail(error);
      }
    });
    const { start, serverId } = this.#options;
    zongji.start(
      start.kind === "position"
        ? { serverId, filename: start.file, position: start.position }
        : { serverId, gtidSet: start.gtidSet },
    );
  }

  /** No event comes from here on until `resume`; the server waits at its end of the line. */
  pause(): void {
    if (this.#ended || this.#isPaused) return;
    this.#isPaused = true;
    this.#raw?.pause();
  }

  resume(): void {
    if (this.#ended || !this.#isPaused) return;
    this.#isPaused = false;
    this.#raw?.resume();
  }

  /** Ends it at once, without a word to the listener. Idempotent. */
  close(): void {
    this.#ended = true;
    const zongji = this.#zongji;
    this.#zongji = null;
    this.#raw = null;
    if (zongji === null) return;
    // The library only says that it sends no more: the server would go on streaming to nobody.
    const sockets = hasConnections(zongji) ? [zongji.connection?.stream, zongji.ctrlConnection?.stream] : [];
    zongji.removeAllListeners("error");
    zongji.on("error", () => undefined);
    zongji.stop();
    for (const socket of sockets) socket?.destroy();
  }

  #fail(thrown: unknown): void {
    if (this.#ended) return;
    this.close();
    this.#listener.failed(translateError(thrown));
  }

  /** Runs in the library's `ready`, before it requests the dump. */
  #takeOver(zongji: object): void {
    assert(hasInsides(zongji), "the binlog library has the insides that this version of it has");
    const raw = zongji.connection;
    if (raw === null) return;
    this.#raw = raw;
    // An idle connection would only be cut by the server's wait_timeout.
    const control = zongji.ctrlConnection;
    zongji.ctrlConnection = null;
    control?.removeAllListeners("error");
    control?.on("error", () => undefined);
    control?.destroy();
    control?.stream.destroy();
    this.#prepare(raw);
    const { prototype } = zongji.BinlogClass;
    const listener = this.#listener;
    const take = (packet: Packet, connection: RawConnection): unknown => {
      if (this.#ended) return take;
      if (packet.isEOF()) {
        this.#fail(new AgentError("SOURCE_UNREACHABLE", "the server ended the dump"));
        return null;
      }
      if (packet.isError()) {
        this.#fail(packet.asError(connection.clientEncoding));
        return null;
      }
      try {
        // The first byte says "no error".
        listener.event(packet.buffer, packet.offset + 1, packet.end);
      } catch (error) {
        this.#fail(asOwnError(error));
        return null;
      }
      return take;
    };
    prototype.binlogData = take;
    prototype.onResult = (error) => this.#fail(error);
  }

  #prepare(raw: RawConnection): void {
    const done = (error: Error | null): void => {
      if (error !== null) this.#fail(error);
    };
    const { heartbeatMs, serverId } = this.#options;
    const period = heartbeatMs * 1_000_000;
    raw.query(`SET @master_heartbeat_period=${period}, @source_heartbeat_period=${period}`, done);
    raw.addCommand({
      execute(packet, connection) {
        if (packet === null || packet === undefined) {
          connection._resetSequenceId();
          connection.writePacket(new Registration(serverId));
          return false;
        }
        if (packet.isError()) done(packet.asError(connection.clientEncoding));
        return true;
      },
      onResult: done,
    });
  }
}

/** COM_REGISTER_SLAVE: lets the server list the agent among its replicas, by a clear name. */
class Registration implements WritablePacket {
  readonly buffer: Buffer;

  constructor(serverId: number) {
    const host = Buffer.from(REPORT_HOST);
    // Command, id, host, empty user and password, port 0, rank 0, source's id 0.
    this.buffer = Buffer.alloc(4 + 5 + 1 + host.length + 1 + 1 + 2 + 4 + 4);
    this.buffer[4] = REGISTER_REPLICA;
    this.buffer.writeUInt32LE(serverId, 5);
    this.buffer[9] = host.length;
    host.copy(this.buffer, 10);
  }

  length(): number {
    return this.buffer.length;
  }

  writeHeader(sequenceId: number): void {
    this.buffer.writeUIntLE(this.buffer.length - 4, 0, 3);
    this.buffer[3] = sequenceId;
  }
}

/** The library is pinned to one version; its types leave these out. */
function hasInsides(zongji: object): zongji is Insides {
  return hasConnections(zongji) && "BinlogClass" in zongji;
}

/** These are there from the first moment on, also while they still shake hands. */
function hasConnections(zongji: object): zongji is Pick<Insides, "connection" | "ctrlConnection"> {
  return "connection" in zongji && "ctrlConnection" in zongji;
}

/** What the listener throws by itself is either the agent's error or a mistake in it. */
function asOwnError(thrown: unknown): AgentError {
  if (thrown instanceof AgentError) return thrown;
  return new AgentError("BUG", `reading an event failed: ${asError(thrown).message}`, { cause: thrown });
}
