/** Holds the stand-in for the Dapr API to the real daprd's answers: status, errorCode and shape. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startDaprStandIn, type DaprStandIn } from "./dapr-stand-in.ts";
import { startDaprd, type DaprdServer } from "./daprd.ts";
import { startRedis, type RedisServer } from "./redis.ts";

const TOKEN = "conformance-token";
const RAW = "metadata.rawPayload=true";
const entry = '{"entryId":"a","contentType":"text/plain","event":"{}"}';
const cloudEvents = { "content-type": "application/cloudevents+json" };

interface Case {
  readonly name: string;
  readonly method?: string;
  readonly path: string;
  readonly body?: string;
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

function bulkOf(bytes: number): string {
  const empty = '[{"entryId":"a","contentType":"text/plain","event":""}]';
  return empty.replace('""', `"${"x".repeat(bytes - empty.length)}"`);
}

const bulk = `/v1.0/publish/bulk/pubsub/allowed?${RAW}`;
const limit = 1024 * 1024;
const cases: readonly Case[] = [
  { name: "bulk", path: bulk, body: `[${entry}]` },
  { name: "bulk, alpha", path: `/v1.0-alpha1/publish/bulk/pubsub/allowed?${RAW}`, body: `[${entry}]` },
  { name: "bulk of nothing", path: bulk, body: "[]" },
  { name: "bulk of nothing, alpha", path: `/v1.0-alpha1/publish/bulk/pubsub/allowed?${RAW}`, body: "[]" },
  { name: "bulk of nothing, forbidden topic", path: `/v1.0/publish/bulk/pubsub/other?${RAW}`, body: "[]" },
  { name: "bulk, unknown component", path: `/v1.0/publish/bulk/nope/allowed?${RAW}`, body: `[${entry}]` },
  { name: "bulk, forbidden topic", path: `/v1.0/publish/bulk/pubsub/other?${RAW}`, body: `[${entry}]` },
  { name: "bulk, forbidden and malformed", path: `/v1.0/publish/bulk/pubsub/other?${RAW}`, body: "xxx" },
  {
    name: "bulk, unknown component and malformed",
    path: `/v1.0/publish/bulk/nope/allowed?${RAW}`,
    body: "xxx",
  },
  { name: "bulk, wrong token", path: bulk, body: `[${entry}]`, token: "wrong" },
  { name: "bulk, no token", path: bulk, body: `[${entry}]`, token: null },
  { name: "bulk, an object", path: bulk, body: entry },
  { name: "bulk, no JSON", path: bulk, body: "xxx" },
  { name: "bulk, no body", path: bulk, body: "" },
  { name: "bulk, no entryId", path: bulk, body: '[{"contentType":"text/plain","event":"{}"}]' },
  { name: "bulk, an entryId twice", path: bulk, body: `[${entry},${entry}]` },
  { name: "bulk, no contentType", path: bulk, body: '[{"entryId":"a","event":"{}"}]' },
  {
    name: "bulk, an object as text",
    path: bulk,
    body: '[{"entryId":"a","contentType":"text/plain","event":{}}]',
  },
  { name: "bulk, bad rawPayload", path: bulk.replace("=true", "=maybe"), body: `[${entry}]` },
  { name: "bulk at the limit", path: bulk, body: bulkOf(limit) },
  { name: "bulk over the limit by one", path: bulk, body: bulkOf(limit + 1) },
  { name: "bulk over the limit by far", path: bulk, body: bulkOf(limit + 5000) },
  { name: "bulk without a topic", path: `/v1.0/publish/bulk/pubsub?${RAW}`, body: "[]" },
  { name: "single", path: "/v1.0/publish/pubsub/allowed", body: '{"id":"1"}', headers: cloudEvents },
  { name: "single, raw", path: `/v1.0/publish/pubsub/allowed?${RAW}`, body: "[1]", headers: cloudEvents },
  { name: "single, no CloudEvent", path: "/v1.0/publish/pubsub/allowed", body: "[1]", headers: cloudEvents },
  { name: "single, forbidden topic", path: "/v1.0/publish/pubsub/other", body: "x" },
  { name: "single, unknown component", path: "/v1.0/publish/nope/allowed", body: "x" },
  { name: "single, no topic", path: "/v1.0/publish/pubsub/", body: "x" },
  { name: "metadata, no token", method: "GET", path: "/v1.0/metadata", token: null },
  { name: "healthz, no token", method: "GET", path: "/v1.0/healthz", token: null },
  { name: "healthz/outbound, no token", method: "GET", path: "/v1.0/healthz/outbound", token: null },
  { name: "unknown path", method: "GET", path: "/v1.0/nonsense" },
  { name: "publish by GET", method: "GET", path: "/v1.0/publish/bulk/pubsub/allowed" },
];

interface Shape {
  readonly status: number;
  readonly type: string;
  readonly errorCode: string | null;
  /** Names and kinds of the body's members; the text itself where it is no JSON. */
  readonly members: string;
}

async function ask(endpoint: string, request: Case): Promise<Shape> {
  const headers = new Headers({ "content-type": "application/json", ...request.headers });
  const token = request.token === undefined ? TOKEN : request.token;
  if (token !== null) headers.set("dapr-api-token", token);
  const method = request.method ?? "POST";
  const body = method === "GET" ? null : (request.body ?? null);
  const answer = await fetch(endpoint + request.path, { method, headers, body });
  const text = await answer.text();
  const type = (answer.headers.get("content-type") ?? "").split(";")[0] ?? "";
  const { status } = answer;
  if (type !== "application/json") return { status, type, errorCode: null, members: text };
  const parsed: unknown = JSON.parse(text);
  assert.ok(typeof parsed === "object" && parsed !== null);
  const errorCode = "errorCode" in parsed ? String(parsed.errorCode) : null;
  const members = Object.entries(parsed).map(
    ([name, value]) => `${name}:${Array.isArray(value) ? "array" : typeof value}`,
  );
  return { status, type, errorCode, members: members.sort().join(" ") };
}

function component(type: string, metadata: Readonly<Record<string, string>>): string {
  const settings = { publishingScopes: "conformance=allowed", ...metadata };
  const rows = Object.entries(settings).map(([name, value]) => `  - { name: ${name}, value: "${value}" }`);
  const head = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: pubsub }";
  return `${head}\nspec:\n  type: ${type}\n  version: v1\n  metadata:\n${rows.join("\n")}\n`;
}

let redis: RedisServer;
let standIn: DaprStandIn;
const directories: string[] = [];
const daprds: DaprdServer[] = [];

async function startReal(type: string, metadata: Readonly<Record<string, string>>): Promise<DaprdServer> {
  const resourcesDir = mkdtempSync(join(tmpdir(), "mea-conformance-"));
  directories.push(resourcesDir);
  writeFileSync(join(resourcesDir, "pubsub.yaml"), component(type, metadata));
  const daprd = await startDaprd({
    resourcesDir,
    token: TOKEN,
    appId: "conformance",
    args: ["--max-body-size=1Mi"],
  });
  daprds.push(daprd);
  return daprd;
}

before(async () => {
  redis = await startRedis();
  standIn = await startDaprStandIn({ token: TOKEN, allowedTopics: ["allowed"], bodyBytesMax: limit });
});

after(async () => {
  await Promise.all(daprds.map((daprd) => daprd.stop()));
  await standIn.stop();
  await redis.stop();
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

const components = {
  "pubsub.in-memory": () => ({}),
  "pubsub.redis": () => ({ redisHost: `127.0.0.1:${redis.port}` }),
};
for (const [type, metadata] of Object.entries(components)) {
  test(`the stand-in answers like daprd with ${type}`, async (t) => {
    const daprd = await startReal(type, metadata());
    for (const request of cases) {
      await t.test(request.name, async () => {
        const real = await ask(daprd.endpoint, request);
        const own = await ask(standIn.endpoint, request);
        if (request.path === "/v1.0/metadata") assert.equal(own.status, real.status);
        else assert.deepEqual(own, real);
      });
    }
  });
}

test("daprd and the stand-in give a raw event back byte for byte", async () => {
  const daprd = daprds.at(-1);
  assert.ok(daprd !== undefined);
  const event = '{"id":"1","n":9007199254740993,"d":1.10,"t":"\u00e4\u2603\\u0000 <&>"}';
  const body = JSON.stringify([{ entryId: "bytes", contentType: "text/plain", event }]);
  for (const endpoint of [daprd.endpoint, standIn.endpoint]) {
    const shape = await ask(endpoint, { name: "bytes", path: bulk, body });
    assert.equal(shape.status, 204);
  }
  const [stored] = await redis.newestEntries("allowed", 1);
  assert.equal(stored?.fields["data"], event);
  assert.equal(standIn.delivered.at(-1)?.event, event);
});
