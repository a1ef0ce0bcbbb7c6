import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startTcpProxy, type TcpProxy } from "./tcp-proxy.ts";

/** Long enough for loopback many times over, short enough to wait for in vain. */
const nothingForMs = 150;
const ends: (() => void | Promise<void>)[] = [];

after(async () => {
  for (const end of ends.reverse()) await end();
});

interface EchoServer {
  readonly port: number;
  readonly taken: () => string;
  readonly sockets: Set<Socket>;
}

/** Answers every chunk by `name:` and the chunk. */
async function echo(name: string): Promise<EchoServer> {
  const sockets = new Set<Socket>();
  let taken = "";
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (chunk: Buffer) => {
      taken += chunk.toString();
      socket.write(Buffer.concat([Buffer.from(`${name}:`), chunk]));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  ends.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return { port: address.port, taken: () => taken, sockets };
}

/** A client that remembers what came and how the connection ended. */
class Client {
  readonly socket: Socket;
  text = "";
  ended = "";

  constructor(port: number) {
    this.socket = connect({ port, host: "127.0.0.1" });
    this.socket.on("data", (chunk: Buffer) => {
      this.text += chunk.toString();
    });
    this.socket.on("end", () => {
      this.ended = "end";
    });
    this.socket.on("error", (error: NodeJS.ErrnoException) => {
      this.ended = error.code ?? "error";
    });
    ends.push(() => void this.socket.destroy());
  }

  send(text: string): void {
    this.socket.write(text);
  }

  async until(isTrue: () => boolean, timeoutMs = 10_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!isTrue()) {
      if (performance.now() > deadline)
        throw new Error(`still waiting; it has ${JSON.stringify(this.text)} and ended by "${this.ended}"`);
      await sleep(5);
    }
  }
}

async function proxied(): Promise<{ proxy: TcpProxy; server: EchoServer; client: Client }> {
  const server = await echo("a");
  const proxy = await startTcpProxy(server);
  ends.push(() => proxy.stop());
  const client = new Client(proxy.port);
  client.send("1");
  await client.until(() => client.text === "a:1");
  return { proxy, server, client };
}

test("without a fault bytes, ends and resets go through", async () => {
  const { proxy, server, client } = await proxied();
  assert.deepEqual({ ...proxy.passed }, { toServer: 1, toClient: 3 });
  const other = new Client(proxy.port);
  other.send("2");
  await other.until(() => other.text === "a:2");
  assert.equal(proxy.open, 2);
  client.socket.end();
  await client.until(() => client.ended === "end" && proxy.open === 1 && server.sockets.size === 1);
  for (const socket of server.sockets) socket.resetAndDestroy();
  await other.until(() => other.ended === "ECONNRESET" && proxy.open === 0);
});

test("a delay comes before every byte in both directions, and keeps their order", async () => {
  const { proxy, client } = await proxied();
  await proxy.become({ kind: "delay", delayMs: 100 });
  const startMs = performance.now();
  client.send("2");
  await sleep(20);
  client.send("3");
  await client.until(() => client.text === "a:1a:2a:3");
  assert.ok(performance.now() - startMs >= 200);
});

test("a throttled connection carries its bytes a second and loses none", async () => {
  const { proxy, client } = await proxied();
  await proxy.become({ kind: "throttle", bytesPerSecond: 20_000 });
  const startMs = performance.now();
  client.send("x".repeat(10_000));
  await client.until(() => client.text.replaceAll("a:", "").length === 10_001);
  assert.ok(performance.now() - startMs >= 400);
});

test("a refusing port resets what is open and refuses what comes, until it passes again", async () => {
  const { proxy, client } = await proxied();
  await proxy.become({ kind: "refuse" });
  await client.until(() => client.ended === "ECONNRESET");
  const refused = new Client(proxy.port);
  await refused.until(() => refused.ended === "ECONNREFUSED");
  await proxy.become({ kind: "pass" });
  const later = new Client(proxy.port);
  later.send("2");
  await later.until(() => later.text === "a:2");
});

test("a hang accepts and never answers, swallows requests, and its end resets the connections", async () => {
  const { proxy, server, client } = await proxied();
  await proxy.become({ kind: "hang" });
  const fresh = new Client(proxy.port);
  await once(fresh.socket, "connect");
  client.send("2");
  fresh.send("3");
  await sleep(nothingForMs);
  assert.deepEqual([client.text, fresh.text, server.taken()], ["a:1", "", "1"]);
  assert.deepEqual([client.ended, fresh.ended], ["", ""]);
  await proxy.become({ kind: "pass" });
  await client.until(() => client.ended === "ECONNRESET" && fresh.ended === "ECONNRESET");
  assert.equal(server.taken(), "1");
});

test("a black hole is silent about bytes, ends and resets, and lets them flow when it is over", async () => {
  const { proxy, server, client } = await proxied();
  const leaving = new Client(proxy.port);
  leaving.send("2");
  await leaving.until(() => leaving.text === "a:2");
  await proxy.become({ kind: "black-hole" });
  const fresh = new Client(proxy.port);
  await once(fresh.socket, "connect");
  client.send("3");
  fresh.send("4");
  leaving.socket.destroy();
  await sleep(nothingForMs);
  assert.deepEqual([client.text, fresh.text, server.taken()], ["a:1", "", "12"]);
  assert.equal(server.sockets.size, 3);
  await proxy.become({ kind: "pass" });
  await client.until(() => client.text === "a:1a:3" && fresh.text === "a:4");
  await client.until(() => server.sockets.size === 2 && proxy.open === 2);
});

test("a half-open connection stays silent for ever, while new ones work", async () => {
  const { proxy, server, client } = await proxied();
  await proxy.become({ kind: "half-open" });
  const fresh = new Client(proxy.port);
  fresh.send("2");
  await fresh.until(() => fresh.text === "a:2");
  await proxy.become({ kind: "pass" });
  client.send("3");
  await sleep(nothingForMs);
  assert.deepEqual([client.text, client.ended, server.taken()], ["a:1", "", "12"]);
  fresh.send("4");
  await fresh.until(() => fresh.text === "a:2a:4");
});

test("a vanished server leaves connecting without an answer, and works again after it", async () => {
  const { proxy, server, client } = await proxied();
  await proxy.become({ kind: "vanish" });
  client.send("2");
  const lost = new Client(proxy.port);
  let isConnected = false;
  lost.socket.on("connect", () => {
    isConnected = true;
  });
  await sleep(nothingForMs);
  assert.deepEqual(
    [isConnected, lost.ended, client.text, client.ended, server.taken()],
    [false, "", "a:1", "", "1"],
  );
  await proxy.become({ kind: "pass" });
  const fresh = new Client(proxy.port);
  fresh.send("3");
  await fresh.until(() => fresh.text === "a:3");
  // The kernel tries again by itself.
  lost.send("4");
  await lost.until(() => lost.text === "a:4");
  assert.equal(client.text, "a:1");
});

test("an answer is reset after the server took the request whole", async () => {
  const { proxy, server, client } = await proxied();
  await proxy.become({ kind: "reset-answers" });
  client.send("23");
  await client.until(() => client.ended === "ECONNRESET");
  assert.deepEqual([client.text, server.taken()], ["a:1", "123"]);
  await proxy.become({ kind: "reset-answers", afterBytes: 3 });
  const half = new Client(proxy.port);
  half.send("456");
  await half.until(() => half.ended === "ECONNRESET");
  assert.deepEqual([half.text, server.taken()], ["a:4", "123456"]);
});

test("another target takes new connections; a cut ends those of the old one", async () => {
  const { proxy, server, client } = await proxied();
  const promoted = await echo("b");
  proxy.setTarget(promoted);
  client.send("2");
  await client.until(() => client.text === "a:1a:2");
  const fresh = new Client(proxy.port);
  fresh.send("3");
  await fresh.until(() => fresh.text === "b:3");
  proxy.cut();
  await client.until(() => client.ended === "ECONNRESET" && fresh.ended === "ECONNRESET");
  await client.until(() => server.sockets.size === 0 && promoted.sockets.size === 0 && proxy.open === 0);
});

test("a target that is not there resets the client's connection", async () => {
  const proxy = await startTcpProxy({ port: 9 });
  ends.push(() => proxy.stop());
  const client = new Client(proxy.port);
  await client.until(() => client.ended === "ECONNRESET");
});
