/** One call, one outcome: versions, token, time limits, wire form, classification. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { classify, parseRetryAfter } from "../../agent/forward/classify.ts";
import { bulkVersionOf, DaprClient } from "../../agent/forward/dapr-client.ts";
import { BODY_OVERHEAD, entryBytes, joinBulk } from "../../agent/forward/wire.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import { startDaprStandIn, type StandInOptions } from "../servers/dapr-stand-in.ts";
import { eventOf, TOPIC } from "./fakes.ts";

const limits = { connectMs: 500, headersMs: 200, bodyMs: 200 };

test("joins entries without touching the payload, in exactly the bytes it promised", () => {
  const events = [eventOf({ key: "a" }), eventOf({ key: "\u00e4" })];
  const body = joinBulk(events);
  assert.equal(
    body.length,
    events.reduce((sum, event) => sum + entryBytes(event), BODY_OVERHEAD),
  );
  const expected = events.map((event) => {
    const text: unknown = JSON.parse(event.payload.toString());
    return { entryId: event.id, contentType: "text/plain", event: text };
  });
  assert.deepEqual(JSON.parse(body.toString()), expected);
  assert.equal(joinBulk([]).toString(), "[]");
});

test("does not send an event whose bytes were given back", () => {
  const bytes = {
    of: Buffer.alloc(0),
    idAt: 10,
    idEnd: 20,
    payloadAt: 20,
    payloadEnd: 30,
    detach(): void {},
    release(): void {},
  };
  assert.throws(() => joinBulk([{ ...eventOf({ key: "a" }), bytes }]), /done is not sent/);
});

const answers: [status: number, body: string, kind: string, detail: string | boolean][] = [
  [204, "", "accepted", ""],
  [200, "", "unavailable", "all"],
  [301, "", "unavailable", "all"],
  [400, '{"errorCode":"ERR_PUBSUB_EVENTS_SER"}', "refused", false],
  [400, '{"errorCode":"ERR_PUBSUB_NOT_FOUND"}', "unavailable", "all"],
  [400, '{"errorCode":"ERR_PUBSUB_REQUEST_METADATA"}', "unavailable", "topic"],
  [401, "invalid api token", "unavailable", "all"],
  [403, '{"errorCode":"ERR_PUBSUB_FORBIDDEN"}', "unavailable", "topic"],
  [403, "forbidden by a proxy", "unavailable", "all"],
  [404, "404 page not found", "unavailable", "all"],
  [413, "", "refused", true],
  [431, "", "unavailable", "topic"],
  [500, '{"errorCode":"ERR_PUBSUB_CLOUD_EVENTS_SER"}', "refused", true],
  [500, '{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE","message":"stream too large"}', "unavailable", "topic"],
  [500, '{"failedEntries":[],"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}', "unavailable", "topic"],
  [500, '{"errorCode":"ERR_OF_TOMORROW"}', "unavailable", "topic"],
  [503, "<html>", "unavailable", "all"],
];
for (const [status, body, kind, detail] of answers) {
  test(`reads ${status} ${body.slice(0, 60)} as ${kind} ${detail}`, () => {
    const outcome = classify({ status, body, retryAfter: null }, 0);
    assert.equal(outcome.kind, kind);
    if (outcome.kind === "unavailable") assert.equal(outcome.scope, detail);
    if (outcome.kind === "refused") assert.equal(outcome.permanent, detail);
  });
}

test("reads failed entries one by one", () => {
  const body = '{"failedEntries":[{"entryId":"b","error":"x"}],"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}';
  const outcome = classify({ status: 500, body, retryAfter: null }, 0);
  assert.ok(outcome.kind === "partial" && !outcome.refused);
  assert.deepEqual([...outcome.failedIds], ["b"]);
});

test("reads Retry-After in seconds and as a date, bounded, nonsense as none", () => {
  const date = new Date(10_000).toUTCString();
  const read = ["2", date, "-1", "soon", "", "86400"].map((value) => parseRetryAfter(value, 4000));
  assert.deepEqual(read, [2000, 6000, 0, 0, 0, 300_000]);
});

const versions: [name: string, options: StandInOptions][] = [
  ["1.18", {}],
  ["1.16", { runtimeVersion: "1.16.9" }],
  ["1.18 that denies metadata", { metadataAllowed: false }],
  ["1.14 that denies metadata", { metadataAllowed: false, runtimeVersion: "1.14.0" }],
  ["an edge build", { runtimeVersion: "edge" }],
];
for (const [name, options] of versions) {
  test(`publishes in bulk to Dapr ${name}`, async (t) => {
    const standIn = await startDaprStandIn(options);
    const client = new DaprClient(
      { endpoint: standIn.endpoint, pubsub: "pubsub", token: () => null, limits },
      systemClock,
    );
    t.after(async () => {
      await client.close();
      await standIn.stop();
    });
    assert.equal((await client.publishBulk(TOPIC, [eventOf({ key: "a" })])).kind, "accepted");
    assert.equal(standIn.delivered.length, 1);
  });
}

test("knows which Dapr has bulk publish out of alpha", () => {
  const read = ["1.16.4", "1.17.0", "v1.18.3", "2.0.0", "edge"].map(bulkVersionOf);
  assert.deepEqual(read, ["v1.0-alpha1", "v1.0", "v1.0", "v1.0", null]);
});

test("reads the token again after a 401", async (t) => {
  const standIn = await startDaprStandIn({ token: "new" });
  let token = "old";
  const client = new DaprClient(
    { endpoint: standIn.endpoint, pubsub: "pubsub", token: () => token, limits },
    systemClock,
  );
  t.after(async () => {
    await client.close();
    await standIn.stop();
  });
  const refused = await client.publishBulk(TOPIC, [eventOf({ key: "a" })]);
  assert.ok(refused.kind === "unavailable" && refused.code === "HTTP_401" && refused.scope === "all");
  token = "new";
  assert.equal((await client.publishBulk(TOPIC, [eventOf({ key: "a" })])).kind, "accepted");
});

test("a request that hangs ends at its time limit and holds its topic only", async (t) => {
  const standIn = await startDaprStandIn();
  standIn.setScript(() => ({ kind: "hang", stores: true }));
  // The client counts in half seconds: the limit over all must lie well behind the one for the headers.
  const apart = { ...limits, bodyMs: 10_000 };
  const client = new DaprClient(
    { endpoint: standIn.endpoint, pubsub: "pubsub", token: () => null, limits: apart },
    systemClock,
  );
  t.after(async () => {
    await client.close();
    await standIn.stop();
  });
  const outcome = await client.publishBulk(TOPIC, [eventOf({ key: "a" })]);
  assert.ok(outcome.kind === "unavailable" && outcome.scope === "topic");
  assert.equal(outcome.code, "UND_ERR_HEADERS_TIMEOUT");
});

test("an answer that comes byte by byte and never ends is given up", async (t) => {
  const server = createServer((_request, response) => {
    response.writeHead(500, { "content-type": "application/json" });
    const drip = setInterval(() => response.write(" "), 20);
    response.on("close", () => clearInterval(drip));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  const endpoint = `http://127.0.0.1:${address.port}`;
  const client = new DaprClient({ endpoint, pubsub: "pubsub", token: () => null, limits }, systemClock);
  t.after(async () => {
    await client.close();
    server.close();
  });
  const outcome = await client.publishBulk(TOPIC, [eventOf({ key: "a" })]);
  assert.ok(
    outcome.kind === "unavailable" && outcome.code === "FORWARD_UNAVAILABLE",
    JSON.stringify(outcome),
  );
});

test("takes a failure whose header is over undici's default", async (t) => {
  const standIn = await startDaprStandIn();
  const long = "x".repeat(60_000);
  standIn.setScript(() => ({
    kind: "answer",
    status: 500,
    headers: { "x-failure": long },
    body: '{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}',
  }));
  const client = new DaprClient(
    { endpoint: standIn.endpoint, pubsub: "pubsub", token: () => null, limits },
    systemClock,
  );
  t.after(async () => {
    await client.close();
    await standIn.stop();
  });
  const outcome = await client.publishBulk(TOPIC, [eventOf({ key: "a" })]);
  assert.ok(outcome.kind === "unavailable" && outcome.code === "ERR_PUBSUB_PUBLISH_MESSAGE");
});
