import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { Applier } from "../../cluster/consumer/applier.ts";
import { deliveredEvent } from "../../cluster/consumer/event.ts";
import { reportLine, startReports, verificationAnswer } from "../../cluster/consumer/reports.ts";
import { sequenceAt } from "./events.ts";

const instance = "0f0e0d0c-1111-4222-8333-444455556666";
const main = join(import.meta.dirname, "..", "..", "cluster", "consumer", "main.ts");

/** One verification of an entity that is empty on both sides. */
function applierWithOne(): Applier {
  const applier = new Applier(":memory:", {});
  const common = { instance, generation: 4, entity: "order", sequence: sequenceAt(5) };
  const event = { time: "2026-01-01T00:00:00.000Z", sequence: sequenceAt(5) };
  applier.receive(
    deliveredEvent({ ...event, id: "d", type: "magento.digest", data: { ...common, offset: 0, rows: [] } }),
  );
  const end = { ...common, rows: 0, from: null, to: null, keys: null, from_sequence: sequenceAt(1) };
  applier.receive(deliveredEvent({ ...event, id: "v", type: "magento.verified", data: end }));
  applier.lookAgain();
  return applier;
}

test("reports are given to whom has the token, for reading and nothing else", async () => {
  const applier = applierWithOne();
  const server = await startReports({ host: "127.0.0.1", port: 0, token: "geheim", applier });
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const ask = async (path: string, token: string | null, method = "GET"): Promise<[number, unknown]> => {
    const headers = token === null ? {} : { "dapr-api-token": token };
    const answer = await fetch(`http://127.0.0.1:${address.port}${path}`, { headers, method });
    return [answer.status, JSON.parse(await answer.text())];
  };
  try {
    const path = `/verifications/${instance}/4`;
    for (const token of [null, "", "geheim1", "GEHEIM"]) assert.equal((await ask(path, token))[0], 401);
    const [status, report] = await ask(path, "geheim");
    assert.deepEqual([status, report], [200, applier.verification(instance, 4)]);
    assert.deepEqual(await ask("/verifications", "geheim"), [200, applier.verifications()]);
    for (const other of [
      "/",
      "/statistics",
      `/verifications/${instance}/5`,
      `/verifications/../4`,
      `${path}/x`,
    ])
      assert.equal((await ask(other, "geheim"))[0], 404, other);
    for (const method of ["POST", "DELETE"]) assert.equal((await ask(path, "geheim", method))[0], 404);
  } finally {
    server.close();
    await once(server, "close");
    applier.close();
  }
});

test("a report is one line for the operator", () => {
  const applier = applierWithOne();
  const report = applier.verification(instance, 4);
  assert.ok(report !== null && verificationAnswer(applier, `/verifications/${instance}/4`) !== null);
  assert.equal(reportLine(report), "verification 4 of order: 0 rows compared, 0 newer here: no drift");
  assert.equal(
    reportLine({ ...report, compared: 9, undeliverable: 1, missing: 2, extra: 1 }),
    "verification 4 of order: 9 rows compared, 0 newer here, 1 too large to be delivered: 3 drifted (2 missing, 0 changed, 1 extra, 0 ahead)",
  );
  applier.close();
});

test("the consumer does not start with reports that every machine could read, or a grace that is none", () => {
  for (const wrong of ["--reports-listen=0.0.0.0:7000", "--reports-listen=7000", "--verify-grace=soon"]) {
    const ports = ["--app-port=6001", "--dapr-http-port=3501", "--db=:memory:"];
    const { status, stderr } = spawnSync(process.execPath, [main, ...ports, wrong], { encoding: "utf8" });
    assert.equal(status, 64, wrong);
    assert.match(stderr, /usage: node cluster\/consumer\/main\.ts/);
  }
});
