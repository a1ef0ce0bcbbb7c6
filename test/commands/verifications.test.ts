import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Checkpoint, SnapshotJob, SnapshotScope } from "../../agent/change.ts";
import { ReportClient } from "../../agent/forward/report-client.ts";
import type { DriftCounts, VerificationFacts } from "../../agent/observe/facts.ts";
import type { EventEncoder, QueueState } from "../../agent/ports.ts";
import { packRows } from "../../agent/packed-rows.ts";
import { addJobs } from "../../agent/snapshots.ts";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { Verifications } from "../../agent/verifications.ts";
import { FakeClock, LinesLog } from "../observe/facts.ts";
import { checkpoint as checkpointAt } from "../spool/fixtures.ts";

const instance = "1b671a64-40d5-491e-99b0-da01ff1f3341";
const topic = "migration.order.changed";
const all: SnapshotScope = { kind: "all" };

interface Scripted {
  readonly status: number;
  readonly body: unknown;
}

/** What the consumer's side answers, by generation; a text is sent as it is. */
let answers: Map<number, Scripted>;
let asked: { readonly path: string; readonly token: unknown }[];
let server: Server;
let url = "";

before(async () => {
  server = createServer((request, response) => {
    const path = request.url ?? "";
    asked.push({ path, token: request.headers["dapr-api-token"] });
    const answer = answers.get(Number(path.split("/").at(-1))) ?? { status: 404, body: {} };
    const { body } = answer;
    response.writeHead(answer.status).end(typeof body === "string" ? body : JSON.stringify(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address: AddressInfo | string | null = server.address();
  url =
    typeof address === "object" && address !== null ? `http://127.0.0.1:${address.port}/verifications` : "";
});
after(() => server.close());
beforeEach(() => {
  answers = new Map();
  asked = [];
});

const none: DriftCounts = {
  compared: 10,
  newer: 2,
  undeliverable: 0,
  missing: 0,
  changed: 0,
  extra: 0,
  ahead: 0,
};

function reportOf(generation: number, changed: Readonly<Record<string, unknown>> = {}): Scripted {
  const body = {
    instance,
    verification: generation,
    entity: "order",
    complete: true,
    ...none,
    drifts: [],
    ...changed,
  };
  return { status: 200, body };
}

function drifted(generation: number, keys: readonly (string | number)[], counted = keys.length): Scripted {
  const drifts = keys.map((key) => ({ id: null, magento_id: key, kind: "missing" }));
  return reportOf(generation, { missing: counted, drifts });
}

/** State, reading and delivery as the rooms would have them; the test moves them. */
class Agent {
  now: Checkpoint = checkpointAt(1);
  readonly values = new Map<string, unknown>();
  lane: QueueState = { queue: topic, lane: "bulk", acked: 0, last: 0, readable: 0, unboundThrough: 0 };
  readonly clock = new FakeClock();
  readonly log = new LinesLog();
  readonly counted: DriftCounts[] = [];
  #ending = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #encoder: EventEncoder | null = null;
  #verifications: Verifications | null = null;

  async start(withReports = true): Promise<this> {
    const token = (): string => "geheim";
    const verifications = await Verifications.open({
      spool: {
        meta: {
          get: async (name) => JSON.parse(JSON.stringify(this.values.get(name) ?? null)),
          put: async (name, value) => void this.values.set(name, value),
        },
        checkpoint: () => this.now,
        queues: () => [this.lane],
      },
      instance,
      entities: () => [{ entity: "order", table: "sales_order", topic }],
      addJobs: (requests) =>
        addJobs(
          { checkpoint: () => this.now, append: async (batch) => void (this.now = batch.checkpoint) },
          defaultMapping,
          requests,
        ),
      reports: withReports ? new ReportClient(url, { token }, this.clock) : null,
      reported: (_table, counts) => this.counted.push(counts),
      clock: this.clock,
      log: this.log,
    });
    this.#verifications = verifications;
    this.#encoder = verifications.over({ tables: [], takeSuppressed: () => 0, encode: () => [] });
    this.#ending = new AbortController();
    this.#running = verifications.run(this.#ending.signal);
    return this;
  }

  get verifications(): Verifications {
    assert.ok(this.#verifications !== null);
    return this.#verifications;
  }

  get jobs(): readonly SnapshotJob[] {
    return this.now.snapshot?.jobs ?? [];
  }

  fact(generation: number): VerificationFacts {
    const fact = this.verifications.facts().find((one) => one.generation === generation);
    assert.ok(fact !== undefined);
    return fact;
  }

  /** All that waits is read, and lies in the spool; `delivered`: the broker has it. */
  read(delivered = true): void {
    const { snapshot } = this.now;
    assert.ok(snapshot !== undefined);
    for (const job of snapshot.jobs) {
      const begun = { epoch: 1, position: { file: "b.1", position: 4 }, atMs: 0, rowsEstimated: 0 };
      const context = { epoch: 1, capturedAtMs: 0, eventsBefore: 0 };
      const common = {
        position: begun.position,
        serverId: 1,
        readAtMs: 0,
        commitTimeMs: null,
        checkpoint: this.now,
      };
      this.#encoder?.encode(
        {
          kind: "chunk",
          table: 0,
          job: { ...job, begun },
          isFirst: true,
          isReshaped: false,
          isLast: true,
          rows: packRows(1, []),
          overtaken: new Map(),
          ...common,
        },
        context,
      );
    }
    const last = this.lane.last + 10;
    this.lane = { ...this.lane, last, ...(delivered ? { acked: last } : {}) };
    this.now = { ...this.now, snapshot: { ...snapshot, jobs: [] } };
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!holds()) {
      assert.ok(performance.now() < deadline, `not in time: ${what}`);
      await sleep(2);
    }
  }

  async done(generation: number): Promise<VerificationFacts> {
    await this.until(`${generation} is done`, () => this.fact(generation).state === "done");
    return this.fact(generation);
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
    await this.verifications.close();
  }
}

async function withAgent(act: (agent: Agent) => Promise<void>, withReports = true): Promise<void> {
  const agent = await new Agent().start(withReports);
  try {
    await act(agent);
  } finally {
    await agent.stop();
  }
}

describe("a verification", () => {
  it("waits for the broker, asks through refusals and absence until the report is complete, and says what it says", () =>
    withAgent(async (agent) => {
      answers.set(1, reportOf(1));
      assert.deepEqual(await agent.verifications.start({ entity: "order", scope: all }), {
        entity: "order",
        generation: 1,
        ahead: 0,
        instance,
        asks: true,
      });
      assert.deepEqual(
        agent.jobs.map(({ purpose, reason }) => [purpose, reason]),
        [["digests", "verify"]],
      );
      await agent.until("it is read", () => agent.fact(1).state === "reading");
      agent.read(false);
      await agent.until("it is on its way", () => agent.fact(1).state === "delivering");
      await sleep(20);
      assert.equal(asked.length, 0, "nobody is asked before the broker has it");
      answers.set(1, { status: 503, body: {} });
      agent.lane = { ...agent.lane, acked: agent.lane.last };
      await agent.until("it was asked in vain", () => asked.length > 2);
      answers.delete(1);
      await agent.until("it was asked again", () => asked.length > 5);
      answers.set(1, reportOf(1, { complete: false }));
      await agent.until("it was asked again", () => asked.length > 8);
      answers.set(1, reportOf(1));
      const { outcome, counts } = await agent.done(1);
      assert.deepEqual([outcome, counts], ["equal", none]);
      assert.deepEqual(agent.counted, [none]);
      assert.deepEqual(asked[0], { path: `/verifications/${instance}/1`, token: "geheim" });
      assert.equal(agent.log.lines.filter(({ level }) => level === "warn").length, 1, "told of once");
    }));

  it("has drifted rows read again by their keys in groups, and compared once more", () =>
    withAgent(async (agent) => {
      const keys = Array.from({ length: 700 }, (_, index) => index + 1);
      answers.set(1, drifted(1, keys));
      await agent.verifications.start({ entity: "order", scope: all });
      agent.read();
      await agent.until("it is healed", () => agent.fact(1).state === "healing");
      assert.deepEqual(
        agent.jobs.map(({ generation, purpose, reason, scope }) => [
          generation,
          purpose ?? "rows",
          reason,
          scope.kind === "keys" ? scope.keys.length : scope.kind,
        ]),
        [
          [2, "rows", "resync", 500],
          [3, "digests", "verify", 500],
          [4, "rows", "resync", 200],
          [5, "digests", "verify", 200],
        ],
      );
      for (const generation of [3, 5]) answers.set(generation, reportOf(generation));
      agent.read();
      const { outcome, counts, resyncs } = await agent.done(1);
      assert.deepEqual([outcome, counts?.missing, resyncs], ["healed", 700, [2, 4]]);
      assert.equal(agent.counted.length, 3);
    }));

  it("ends with an error where rows still differ after they were read again, and reads them no third time", () =>
    withAgent(async (agent) => {
      answers.set(1, drifted(1, [5]));
      answers.set(3, drifted(3, [5]));
      await agent.verifications.start({ entity: "order", scope: all });
      agent.read();
      await agent.until("it is healed", () => agent.fact(1).state === "healing");
      agent.read();
      const { outcome, reason } = await agent.done(1);
      assert.deepEqual([outcome, reason], ["drift", "rows still differ after they were read again"]);
      assert.deepEqual(agent.jobs, []);
      assert.ok(agent.log.lines.some(({ level }) => level === "error"));
    }));

  it("reads a range or the whole again where there are too many keys, or not all are listed", async () => {
    const many = Array.from({ length: 2_001 }, (_, index) => index + 7);
    const cases = [
      [many, many.length, all, [{ kind: "range", from: "7", to: "2007" }]],
      [many.map((key) => `k${key}`), many.length, all, [all]],
      [[1, 2], 5_000, { kind: "range", from: "1", to: "9000" }, [{ kind: "range", from: "1", to: "9000" }]],
    ] as const;
    for (const [keys, counted, scope, expected] of cases) {
      await withAgent(async (agent) => {
        answers.set(1, drifted(1, keys, counted));
        await agent.verifications.start({ entity: "order", scope });
        agent.read();
        await agent.until("it is healed", () => agent.fact(1).state === "healing");
        const read = agent.jobs.filter(({ purpose }) => purpose === undefined).map((job) => job.scope);
        assert.deepEqual(read, expected);
      });
    }
  });

  it("does not call rows equal that are too large to be delivered, and does not read them again", () =>
    withAgent(async (agent) => {
      answers.set(1, reportOf(1, { undeliverable: 3 }));
      await agent.verifications.start({ entity: "order", scope: all });
      agent.read();
      assert.equal((await agent.done(1)).outcome, "incomplete");
      assert.deepEqual(agent.jobs, []);
    }));

  it("starts nothing by what is no report of it, and ends after a day without one", () =>
    withAgent(async (agent) => {
      const wrong: Scripted[] = [
        { status: 200, body: "<html>please log in</html>" },
        { status: 200, body: [] },
        { status: 401, body: {} },
        reportOf(2),
        reportOf(1, { instance: "another" }),
        reportOf(1, { entity: "customer" }),
        reportOf(1, { compared: -1 }),
        reportOf(1, { drifts: [{ magento_id: 5 }] }),
        reportOf(1, { missing: 1, drifts: [{ magento_id: null }] }),
        reportOf(1, { missing: 1, drifts: [{ magento_id: "x".repeat(5_000) }] }),
        { status: 200, body: " ".repeat(5_000_000) },
      ];
      await agent.verifications.start({ entity: "order", scope: all });
      agent.read();
      for (const answer of wrong) {
        const soFar = asked.length;
        answers.set(1, answer);
        await agent.until("it was asked", () => asked.length > soFar + 1);
        assert.equal(agent.fact(1).state, "asking");
      }
      agent.clock.nowMs += 25 * 3_600_000;
      assert.equal((await agent.done(1)).outcome, "unreported");
      assert.deepEqual([agent.jobs, agent.counted], [[], []]);
    }));

  it("goes on after a restart, also where its record never reached the disk", () =>
    withAgent(async (agent) => {
      await agent.verifications.start({ entity: "order", scope: all });
      await agent.until("it is read", () => agent.fact(1).state === "reading");
      await agent.stop();
      agent.values.clear();
      await agent.start();
      await agent.until("it is known", () => agent.verifications.facts().length === 1);
      agent.read();
      await agent.until("it is asked for", () => asked.length > 0);
      await agent.stop();
      answers.set(1, drifted(1, [8]));
      await agent.start();
      await agent.until("it is healed", () => agent.fact(1).state === "healing");
      await agent.stop();
      answers.set(3, reportOf(3));
      await agent.start();
      agent.read();
      assert.equal((await agent.done(1)).outcome, "healed");
    }));

  it("says so where its rows were left out", () =>
    withAgent(async (agent) => {
      await agent.verifications.start({ entity: "order", scope: all });
      assert.ok(agent.now.snapshot !== undefined);
      agent.now = { ...agent.now, snapshot: { ...agent.now.snapshot, jobs: [] } };
      assert.equal((await agent.done(1)).outcome, "unread");
      assert.equal(asked.length, 0);
    }));

  it("names the command that heals where nobody said where consumers report", () =>
    withAgent(async (agent) => {
      assert.equal((await agent.verifications.start({ entity: "order", scope: all })).asks, false);
      agent.read();
      assert.equal((await agent.done(1)).outcome, "sent");
      const hints = agent.log.lines.map(({ fields }) => fields["hint"]);
      assert.ok(hints.includes("magento-edge-agent resync order --keys=ID,... heals it"));
    }, false));

  it("keeps a bounded number of those that are done", () =>
    withAgent(async (agent) => {
      for (let generation = 1; generation <= 40; generation += 1) {
        await agent.verifications.start({ entity: "order", scope: all });
        agent.read();
        await agent.until("it is done", () =>
          agent.verifications.facts().every(({ state }) => state === "done"),
        );
      }
      const generations = agent.verifications.facts().map(({ generation }) => generation);
      assert.deepEqual(
        generations,
        Array.from({ length: 30 }, (_, index) => index + 11),
      );
    }, false));
});
