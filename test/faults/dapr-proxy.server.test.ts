/** The HTTP proxy before a real daprd with a real Redis. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startBroker, type Broker } from "../e2e/broker.ts";
import { startDaprProxy, type DaprProxy } from "./dapr-proxy.ts";

const topic = "migration.product.changed";
let broker: Broker;
let proxy: DaprProxy;

before(async () => {
  broker = await startBroker();
  proxy = await startDaprProxy(broker.gateway.endpoint);
});

after(async () => {
  await proxy.stop();
  await broker.stop();
});

interface Outcome {
  readonly status: number;
  readonly text: string;
}

async function publish(ids: readonly string[], token = broker.token): Promise<Outcome> {
  const entries = ids.map((entryId) => ({
    entryId,
    contentType: "text/plain",
    event: `{"id":"${entryId}"}`,
  }));
  const answer = await fetch(`${proxy.endpoint}/v1.0/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`, {
    method: "POST",
    headers: { "content-type": "application/json", "dapr-api-token": token },
    body: JSON.stringify(entries),
    signal: AbortSignal.timeout(5_000),
  });
  return { status: answer.status, text: await answer.text() };
}

async function stored(id: string): Promise<boolean> {
  const entries = await broker.redis.newestEntries(topic, 1000);
  return entries.some((entry) => entry.fields["data"] === `{"id":"${id}"}`);
}

test("without a script the answers are daprd's own", async () => {
  assert.deepEqual(await publish(["plain"]), { status: 204, text: "" });
  assert.ok(await stored("plain"));
  const refused = await publish(["secret"], "wrong");
  assert.deepEqual([refused.status, refused.text.trim()], [401, "invalid api token"]);
  const direct = await fetch(`${broker.gateway.endpoint}/v1.0/healthz`);
  const proxied = await fetch(`${proxy.endpoint}/v1.0/healthz`);
  assert.equal(proxied.status, direct.status);
});

test("a scripted answer comes with or without the events being stored", async () => {
  proxy.setScript(() => ({ kind: "answer", status: 503, body: "no", headers: { "retry-after": "1" } }));
  assert.deepEqual(await publish(["not"]), { status: 503, text: "no" });
  assert.equal(await stored("not"), false);
  proxy.setScript(() => ({ kind: "answer", status: 500, stores: true }));
  assert.equal((await publish(["yes"])).status, 500);
  assert.ok(await stored("yes"));
  proxy.setScript(null);
});

test("half a bulk fails, and daprd has the other half only", async () => {
  proxy.setScript(({ entries }) => ({
    kind: "partial",
    failedIds: entries.filter((_, index) => index % 2 === 1).map(({ entryId }) => entryId),
  }));
  const { status, text } = await publish(["p0", "p1", "p2"]);
  assert.equal(status, 500);
  assert.deepEqual(
    JSON.parse(text).failedEntries.map(({ entryId }: { entryId: string }) => entryId),
    ["p1"],
  );
  assert.deepEqual([await stored("p0"), await stored("p1"), await stored("p2")], [true, false, true]);
  proxy.setScript(null);
});

test("entries that daprd could not store either are listed beside those left out", async () => {
  await broker.redis.command("CONFIG", "SET", "maxmemory", "1");
  proxy.setScript(({ entries }) => ({
    kind: "partial",
    failedIds: entries.slice(1).map((one) => one.entryId),
  }));
  const { status, text } = await publish(["q0", "q1"]);
  await broker.redis.command("CONFIG", "SET", "maxmemory", "0");
  proxy.setScript(null);
  assert.equal(status, 500);
  const failed: { failedEntries: { entryId: string }[] } = JSON.parse(text);
  assert.deepEqual(failed.failedEntries.map(({ entryId }) => entryId).sort(), ["q0", "q1"]);
});

test("an answer is lost whole or in its middle after daprd took the events", async () => {
  proxy.setScript(() => ({ kind: "reset", stores: true }));
  await assert.rejects(publish(["lost"]));
  assert.ok(await stored("lost"));
  proxy.setScript(() => ({ kind: "half-answer", stores: true, status: 500 }));
  await assert.rejects(publish(["half"]));
  assert.ok(await stored("half"));
  proxy.setScript(null);
});

test("a request that hangs is reset when the script changes", async () => {
  let asked = (): void => undefined;
  const wasAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  proxy.setScript(() => {
    asked();
    return { kind: "hang", stores: false };
  });
  const waiting = publish(["hangs"]);
  const rejected = assert.rejects(waiting);
  await wasAsked;
  proxy.setScript(null);
  await rejected;
  assert.equal(await stored("hangs"), false);
  assert.equal((await publish(["goes"])).status, 204);
});

test("while daprd is gone connections are reset, and then it goes on", async () => {
  await broker.gateway.kill();
  await assert.rejects(publish(["gone"]));
  await broker.gateway.restart();
  assert.equal((await publish(["back"])).status, 204);
});
