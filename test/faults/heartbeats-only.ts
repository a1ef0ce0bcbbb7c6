/**
 * A proxy before a database server that can let a binlog stream go silent while it stays alive: the
 * server's heartbeats go through, its events do not. Other connections are left alone. It reads the
 * protocol, so the connection must not be encrypted.
 */
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

export interface HeartbeatsOnly {
  readonly port: number;
  /** From now on the streams that are open carry heartbeats alone, for ever; later ones are whole. */
  silence(): void;
  stop(): Promise<void>;
}

const HEADER_BYTES = 4;
/** COM_BINLOG_DUMP, and the one by GTID. */
const dumpCommands: ReadonlySet<number | undefined> = new Set([0x12, 0x1e]);
/** Heartbeat events, the older and the newer kind. */
const heartbeats: ReadonlySet<number | undefined> = new Set([27, 41]);

export async function startHeartbeatsOnly(serverPort: number): Promise<HeartbeatsOnly> {
  const streams = new Set<Stream>();
  const server = createServer((client) => {
    const stream = new Stream(client, connect({ port: serverPort, host: "127.0.0.1" }));
    streams.add(stream);
    client.once("close", () => streams.delete(stream));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new Error("the proxy has no port");
  return {
    port: address.port,
    silence: () => {
      for (const stream of streams) stream.isSilent = true;
    },
    stop: async () => {
      for (const stream of streams) stream.close();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

class Stream {
  readonly #client: Socket;
  readonly #server: Socket;
  #isDump = false;
  #sequence = 0;
  #rest: Buffer = Buffer.alloc(0);
  isSilent = false;

  constructor(client: Socket, server: Socket) {
    this.#client = client;
    this.#server = server;
    for (const socket of [client, server]) {
      socket.on("error", () => this.close());
      socket.on("close", () => this.close());
    }
    client.on("data", (chunk: Buffer) => {
      if (dumpCommands.has(chunk[HEADER_BYTES])) this.#isDump = true;
      server.write(chunk);
    });
    server.on("data", (chunk: Buffer) => {
      if (this.#isDump) this.#takeDump(chunk);
      else client.write(chunk);
    });
  }

  close(): void {
    this.#client.destroy();
    this.#server.destroy();
  }

  /** Packets are numbered; what is left out must leave no gap. */
  #takeDump(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + this.#rest.readUIntLE(0, 3);
      if (this.#rest.length < end) return;
      const packet = this.#rest.subarray(0, end);
      this.#rest = this.#rest.subarray(end);
      // One byte "no error", then the event's header: time, type.
      if (this.isSilent && !heartbeats.has(packet[HEADER_BYTES + 1 + 4])) continue;
      this.#sequence = (this.#sequence + 1) % 256;
      packet[3] = this.#sequence;
      this.#client.write(packet);
    }
  }
}
