import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { connect, type IncomingHttpHeaders } from "node:http2";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse } from "yaml";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { gatewayConfigFile, writeClusterFiles } from "../servers/cluster-files.ts";
import { startDaprd, type DaprdServer } from "../servers/daprd.ts";
import { startRedis, type RedisServer } from "../servers/redis.ts";
import { entityCloudEvent, rawBulk } from "./events.ts";

const token = "gateway-test-token";
const topic = "migration.order.changed";
const cluster = join(import.meta.dirname, "..", "..", "cluster");
let redis: RedisServer;
let daprd: DaprdServer;
let directory: string;

before(async () => {
  directory = throwAwayDirectory("gateway-test");
  redis = await startRedis();
  daprd = await startDaprd({
    resourcesDir: writeClusterFiles(directory, { redisPort: redis.port, role: "gateway" }),
    configFile: gatewayConfigFile,
    token,
  });
});

after(async () => {
  await daprd.stop();
  await redis.stop();
  removeDirectory(directory);
});

interface Answer {
  readonly status: number;
  readonly text: string;
}

interface Request {
  readonly method?: string;
  readonly body?: string;
  readonly token?: string | null;
  readonly contentType?: string;
}

async function call(path: string, request: Request = {}): Promise<Answer> {
  const sent = request.token === undefined ? token : request.token;
  const answer = await fetch(`${daprd.endpoint}${path}`, {
    method: request.method ?? "POST",
    headers: {
      "content-type": request.contentType ?? "application/json",
      ...(sent === null ? {} : { "dapr-api-token": sent }),
    },
    ...(request.method === "GET" ? {} : { body: request.body ?? "{}" }),
  });
  return { status: answer.status, text: await answer.text() };
}

const event = entityCloudEvent({
  entity: "order",
  op: "c",
  key: 1,
  n: 1,
  fields: { note: "9007199254740993" },
});

test("takes raw bulks on v1.0 and v1.0-alpha1, and single publishes, byte for byte", async () => {
  const bulk = rawBulk(topic, [event]);
  for (const version of ["v1.0", "v1.0-alpha1"]) {
    const path = `/${version}/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`;
    assert.deepEqual(await call(path, { body: bulk }), { status: 204, text: "" });
  }
  const single = await call(`/v1.0/publish/pubsub/${topic}`, {
    body: JSON.stringify({ specversion: "1.0", source: "/s", ...event }),
    contentType: "application/cloudevents+json",
  });
  assert.equal(single.status, 204);
  const entries = await redis.streamEntries(topic);
  const sent: unknown = JSON.parse(bulk);
  assert.ok(Array.isArray(sent));
  assert.equal(entries.length, 3);
  assert.equal(entries[0]?.fields["data"], sent[0].event);
  assert.equal(entries[1]?.fields["data"], sent[0].event);
});

test("refuses a wrong and a missing token with 401", async () => {
  const path = `/v1.0/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`;
  for (const wrong of ["another-token", null]) {
    const answer = await call(path, { body: rawBulk(topic, [event]), token: wrong });
    assert.deepEqual(answer, { status: 401, text: "invalid api token\n" });
  }
});

test("refuses topics that are not the agent's with 403 ERR_PUBSUB_FORBIDDEN", async () => {
  for (const path of [
    "/v1.0/publish/pubsub/orders",
    "/v1.0/publish/bulk/pubsub/orders?metadata.rawPayload=true",
  ]) {
    const answer = await call(path, { body: rawBulk("orders", [event]) });
    assert.equal(answer.status, 403);
    assert.equal(JSON.parse(answer.text).errorCode, "ERR_PUBSUB_FORBIDDEN");
  }
  assert.equal(await redis.streamLength("orders"), 0);
});

test("answers every other HTTP API with 404, as if it were not there", async () => {
  const refused: readonly [string, string][] = [
    ["POST", "/v1.0/invoke/edge-gateway/method/anything"],
    ["GET", "/v1.0/invoke/migration-consumer/method/statistics"],
    ["GET", "/v1.0/state/statestore/key"],
    ["POST", "/v1.0/state/statestore"],
    ["DELETE", "/v1.0/state/statestore/key"],
    ["GET", "/v1.0/secrets/kubernetes/redis"],
    ["GET", "/v1.0/secrets/kubernetes/bulk"],
    ["POST", "/v1.0/bindings/any"],
    ["GET", "/v1.0/configuration/any"],
    ["GET", "/v1.0/metadata"],
    ["PUT", "/v1.0/metadata/key"],
    ["POST", "/v1.0/shutdown"],
    ["POST", "/v1.0-alpha1/lock/any"],
    ["GET", "/v1.0/actors/type/id/state/key"],
  ];
  for (const [method, path] of refused) {
    const answer = await call(path, { method });
    assert.equal(answer.status, 404, `${method} ${path}: ${answer.text}`);
    assert.ok(!answer.text.includes("ERR_PUBSUB"), `${method} ${path} reached another API: ${answer.text}`);
  }
  assert.ok(daprd.running(), "shutdown had an effect");
});

test("health needs no token", async () => {
  const answer = await call("/v1.0/healthz/outbound", { method: "GET", token: null });
  assert.equal(answer.status, 204);
});

test("refuses every other API over gRPC too", async () => {
  // 12 is gRPC's UNIMPLEMENTED: what a method that is not allowed is answered with.
  for (const method of ["GetState", "SaveState", "GetSecret", "InvokeService", "GetMetadata", "Shutdown"]) {
    assert.equal(await grpcStatus(method), "12", method);
  }
  assert.notEqual(await grpcStatus("PublishEvent"), "12");
});

/** grpc-status of a call with an empty message. */
function grpcStatus(method: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://127.0.0.1:${daprd.grpcPort}`);
    session.once("error", reject);
    const stream = session.request({
      ":method": "POST",
      ":path": `/dapr.proto.runtime.v1.Dapr/${method}`,
      "content-type": "application/grpc",
      te: "trailers",
      "dapr-api-token": token,
    });
    const answer = (headers: IncomingHttpHeaders): void => {
      const status = headers["grpc-status"];
      if (status === undefined) return;
      session.close();
      resolve(String(status));
    };
    // An error at once comes as headers alone, a later one as trailers.
    stream.once("response", answer);
    stream.once("trailers", answer);
    stream.once("error", reject);
    stream.resume();
    stream.end(Buffer.alloc(5));
  });
}

test("the files of the cluster name the same topics, routes, namespace and app ids", () => {
  const component = parse(readFileSync(join(cluster, "components", "pubsub-redis.yaml"), "utf8"));
  const item = (name: string): string =>
    String(component.spec.metadata.find((entry: { name: string }) => entry.name === name)?.value);
  const [gateway = "", consumer = ""] = item("publishingScopes").split(";");
  const published = gateway.replace("edge-gateway=", "").split(",");
  const subscribed: string[] = [];
  for (const file of readdirSync(join(cluster, "subscriptions"))) {
    const subscription = parse(readFileSync(join(cluster, "subscriptions", file), "utf8"));
    const entity = file.replace(".yaml", "");
    assert.equal(subscription.apiVersion, "dapr.io/v2alpha1");
    assert.equal(subscription.metadata.name, `migration-${entity}-subscription`);
    assert.equal(subscription.metadata.namespace, "production");
    assert.equal(subscription.spec.pubsubname, component.metadata.name);
    assert.equal(subscription.spec.routes.default, `/migration/${entity}`);
    assert.equal(subscription.spec.deadLetterTopic, entity === "dlq" ? undefined : "migration.dlq");
    assert.deepEqual(subscription.scopes, ["migration-consumer"]);
    subscribed.push(subscription.spec.topic);
  }
  assert.deepEqual(subscribed.sort(), published.sort());
  assert.equal(subscribed.length, 12);
  assert.equal(consumer, "migration-consumer=migration.dlq");
  assert.ok(component.scopes.includes("edge-gateway") && component.scopes.includes("migration-consumer"));
});

test("a delivery is taken for lost only after all its retries", () => {
  const component = parse(readFileSync(join(cluster, "components", "pubsub-redis.yaml"), "utf8"));
  const resiliency = parse(readFileSync(join(cluster, "resiliency", "migration-inbound.yaml"), "utf8"));
  const seconds = (text: unknown): number => Number(/^(\d+)s$/.exec(String(text))?.[1]);
  const { maxInterval, maxRetries } = resiliency.spec.policies.retries.deliveries;
  // Dapr starts at half a second, grows by half, and spreads each pause by up to a half.
  let totalSeconds = 0;
  for (let pause = 0.5, retry = 0; retry < maxRetries; retry += 1, pause *= 1.5) {
    totalSeconds += 1.5 * Math.min(pause, seconds(maxInterval));
  }
  const { value } = component.spec.metadata.find(
    (entry: { name: string }) => entry.name === "processingTimeout",
  );
  assert.ok(seconds(value) > totalSeconds * 1.2, `${value} against ${totalSeconds} s of retries`);
});
