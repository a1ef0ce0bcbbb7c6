/** The road to Dapr over TLS: authority, client certificate, proxy, and files that change while it runs. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type Server } from "node:http";
import { createServer } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { TLSSocket } from "node:tls";
import { loadSettings } from "../../agent/config/load.ts";
import { DaprClient, type DaprSettings } from "../../agent/forward/dapr-client.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import { makeTlsFiles, type TlsFiles } from "../servers/mariadb-tls.ts";
import { eventOf, TOPIC } from "./fakes.ts";

const limits = { connectMs: 2000, headersMs: 2000, bodyMs: 2000 };
let directory: string;
let own: TlsFiles;
let first: TlsFiles;
let second: TlsFiles;
let api: Server;
let proxy: Server;
let endpoint: string;
let proxyUrl: string;
/** Fingerprints of the client certificates of the requests, and what the proxy was asked for. */
let clients: string[] = [];
let tokens: unknown[] = [];
let connects: string[] = [];
let skippedMs = 0;
const open: DaprClient[] = [];

/** What the settings name: copies that the tests replace. */
const given = (name: "cert.pem" | "key.pem"): string => join(directory, `client-${name}`);

function portOf(server: Server): number {
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  return address.port;
}

function fingerprint(files: TlsFiles): string {
  return new X509Certificate(readFileSync(files.cert)).fingerprint256;
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "mea-tls-"));
  own = makeTlsFiles(join(directory, "server"));
  first = makeTlsFiles(join(directory, "first"));
  second = makeTlsFiles(join(directory, "second"));
  api = createServer(
    {
      cert: readFileSync(own.cert),
      key: readFileSync(own.key),
      ca: [readFileSync(first.ca), readFileSync(second.ca)],
      requestCert: true,
      rejectUnauthorized: true,
    },
    (request, response) => {
      request.resume();
      assert.ok(request.socket instanceof TLSSocket);
      tokens.push(request.headers["dapr-api-token"]);
      if (request.url === "/v1.0/metadata") {
        response.end('{"runtimeVersion":"1.18.3","components":[]}');
        return;
      }
      clients.push(request.socket.getPeerCertificate().fingerprint256);
      response.writeHead(request.headers["dapr-api-token"] === "old" ? 401 : 204).end();
    },
  );
  await once(api.listen(0, "127.0.0.1"), "listening");
  proxy = createHttpServer((_request, response) => response.writeHead(405).end());
  proxy.on("connect", (request, socket) => {
    connects.push(request.url ?? "");
    const onward = connect(portOf(api), "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      onward.pipe(socket).pipe(onward);
    });
    for (const end of [onward, socket]) end.on("error", () => undefined);
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  endpoint = `https://localhost:${portOf(api)}`;
  proxyUrl = `http://127.0.0.1:${portOf(proxy)}`;
});
afterEach(async () => {
  for (const client of open.splice(0)) await client.close();
  [clients, tokens, connects, skippedMs] = [[], [], [], 0];
});
after(() => {
  api.close();
  proxy.close();
  rmSync(directory, { recursive: true, force: true });
});

function useClientFiles(files: TlsFiles): void {
  copyFileSync(files.cert, given("cert.pem"));
  copyFileSync(files.key, given("key.pem"));
}

function clientOf(changes: Partial<DaprSettings> = {}): DaprClient {
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skippedMs };
  const tls = { ca: own.ca, cert: given("cert.pem"), key: given("key.pem") };
  const client = new DaprClient(
    { endpoint, pubsub: "pubsub", token: () => null, tls, limits, ...changes },
    clock,
  );
  open.push(client);
  return client;
}

async function publish(client: DaprClient): Promise<string> {
  return (await client.publishBulk(TOPIC, [eventOf({ key: "a" })])).kind;
}

test("shows its certificate, trusts only its authority, and gets nowhere without either", async () => {
  useClientFiles(first);
  assert.equal(await publish(clientOf()), "accepted");
  assert.deepEqual(clients, [fingerprint(first)]);
  const nameless = clientOf({ tls: { ca: own.ca, cert: null, key: null } });
  assert.equal(await publish(nameless), "unavailable");
  const trusting = clientOf({ tls: { ca: first.ca, cert: given("cert.pem"), key: given("key.pem") } });
  assert.equal(await publish(trusting), "unavailable");
  assert.equal(clients.length, 1);
});

test("takes up a replaced certificate by itself, also when its two files change one after the other", async () => {
  useClientFiles(first);
  const client = clientOf();
  assert.equal(await publish(client), "accepted");
  copyFileSync(second.cert, given("cert.pem"));
  skippedMs = 60_000;
  // Half of the pair: a failure is fine, an end is not.
  await publish(client);
  copyFileSync(second.key, given("key.pem"));
  skippedMs = 120_000;
  assert.equal(await publish(client), "accepted");
  assert.equal(clients.at(-1), fingerprint(second));
});

test("files that are missing for a moment leave the connections that there are", async () => {
  useClientFiles(first);
  const client = clientOf();
  assert.equal(await publish(client), "accepted");
  rmSync(given("cert.pem"));
  skippedMs = 60_000;
  assert.equal(await publish(client), "accepted");
  useClientFiles(second);
  skippedMs = 120_000;
  assert.equal(await publish(client), "accepted");
  assert.equal(clients.at(-1), fingerprint(second));
});

test("goes through HTTPS_PROXY with its own certificate, and past it where NO_PROXY says so", async () => {
  useClientFiles(first);
  assert.equal(await publish(clientOf({ httpsProxy: proxyUrl })), "accepted");
  assert.ok(connects.length >= 1 && connects.every((target) => target === `localhost:${portOf(api)}`));
  assert.deepEqual(clients, [fingerprint(first)]);
  connects = [];
  assert.equal(
    await publish(clientOf({ httpsProxy: proxyUrl, noProxy: "example.com,localhost" })),
    "accepted",
  );
  assert.deepEqual(connects, []);
});

test("reads a token's file again when the token is refused", async () => {
  useClientFiles(first);
  const file = join(directory, "token");
  writeFileSync(file, "old\n", { mode: 0o600 });
  const { settings, faults } = loadSettings(
    { DAPR_API_TOKEN_FILE: file, DAPR_HTTP_ENDPOINT: endpoint },
    null,
  );
  assert.ok(settings !== null, JSON.stringify(faults));
  const client = clientOf({ token: () => settings.daprApiToken.read() });
  assert.equal(await publish(client), "unavailable");
  writeFileSync(file, "new\n", { mode: 0o600 });
  // The file is looked at once a second at most; the forwarder tries again for ever, and so does this.
  const deadline = performance.now() + 20_000;
  while ((await publish(client)) !== "accepted") {
    assert.ok(performance.now() < deadline, "the new token is not taken up");
    await systemClock.sleep(50);
  }
  assert.equal(tokens.at(-1), "new");
});
