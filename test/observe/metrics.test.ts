import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Metrics, metricTable } from "../../agent/observe/metrics.ts";
import { Observer } from "../../agent/observe/observer.ts";
import type { AgentFacts } from "../../agent/observe/facts.ts";
import { factsOf, FakeClock, LinesLog, NOW_MS } from "./facts.ts";

function build(facts: () => AgentFacts = () => factsOf()) {
  const clock = new FakeClock();
  const log = new LinesLog();
  const metrics = new Metrics(async () => facts());
  return { clock, log, metrics, observer: new Observer(metrics, log, clock) };
}

const delivery = { table: "sales_order", op: "u", commitTimeMs: NOW_MS - 500 } as const;

describe("metrics", () => {
  it("keep the names that dashboards already use, and put all others under edge_agent_", async () => {
    const { metrics } = build();
    const text = await metrics.scrape();
    const known = [
      "sync_duration_seconds",
      "sync_total",
      "sync_errors_total",
      "sync_lag_seconds",
      "sync_batch_size",
    ];
    for (const [name, row] of Object.entries(metricTable)) {
      assert.ok(known.includes(name) || name.startsWith("edge_agent_"), name);
      assert.ok(text.includes(`# TYPE ${name} ${row.kind}`), name);
    }
  });

  it("count a delivery by table, operation and status", async () => {
    const { metrics, observer } = build();
    observer.published(delivery, 0.02, false);
    observer.published(delivery, 0.02, false);
    observer.published({ ...delivery, op: "d" }, 0.02, false);
    observer.publishFailed({ table: "sales_order", errorType: "publish" });
    observer.batchSent(3);
    const text = await metrics.scrape();
    assert.match(text, /sync_total\{table="sales_order",op="u",status="success"\} 2/);
    assert.match(text, /sync_total\{table="sales_order",op="d",status="success"\} 1/);
    assert.match(text, /sync_duration_seconds_count\{table="sales_order",status="success"\} 3/);
    assert.match(text, /sync_duration_seconds_bucket\{le="0.02",table="sales_order",status="success"\} 3/);
    assert.match(text, /sync_errors_total\{table="sales_order",error_type="publish"\} 1/);
    assert.match(text, /sync_batch_size 3/);
  });

  it("compute lag when they are asked, from what has not been accepted", async () => {
    let lagSeconds = new Map([["sales_order", 5]]);
    const { metrics } = build(() => factsOf({ lagSeconds }));
    assert.match(await metrics.scrape(), /sync_lag_seconds\{table="sales_order"\} 5\n/);
    lagSeconds = new Map([["sales_order", 65]]);
    assert.match(await metrics.scrape(), /sync_lag_seconds\{table="sales_order"\} 65\n/);
  });

  it("do not let snapshot rows and control events count for lag", () => {
    const { observer } = build();
    observer.published({ ...delivery, op: "r" }, 0.02, true);
    observer.published({ ...delivery, table: "", op: "" }, 0.02, false);
    assert.equal(observer.lagSeconds([], NOW_MS).size, 0);
    assert.equal(observer.acceptance.events, 2);
  });

  it("show holds, intake and spool of the moment and forget what is over", async () => {
    let facts = factsOf({
      held: [{ topic: "t1", code: "C", message: "m", sinceMs: 0 }],
      intakeClosed: { code: "SPOOL_FULL", message: "full" },
      heads: [
        {
          queue: "q",
          lane: "live",
          table: "t",
          op: "c",
          commitTimeMs: NOW_MS,
          capturedAtMs: NOW_MS - 7000,
          waiting: 2,
        },
      ],
    });
    const { metrics } = build(() => facts);
    let text = await metrics.scrape();
    assert.match(text, /edge_agent_topic_held\{topic="t1",code="C"\} 1/);
    assert.match(text, /edge_agent_intake_closed\{code="SPOOL_FULL"\} 1/);
    assert.match(text, /edge_agent_spool_oldest_age_seconds 7\n/);
    facts = factsOf();
    text = await metrics.scrape();
    assert.doesNotMatch(text, /topic="t1"/);
    assert.match(text, /edge_agent_intake_closed\{code="SPOOL_FULL"\} 0/);
    assert.match(text, /edge_agent_spool_bytes 2000000\n/);
  });
});

describe("the observer", () => {
  it("logs a hold once, and its end", () => {
    const { observer, log, clock } = build();
    observer.held("t", "ERR", "denied");
    observer.held("t", "ERR", "denied");
    assert.equal(log.lines.length, 1);
    assert.equal(observer.heldTopics.length, 1);
    clock.nowMs += 5000;
    observer.released("t");
    assert.equal(observer.heldTopics.length, 0);
    assert.deepEqual(log.lines[1]?.fields, { topic: "t", after_seconds: 5, failures: 2 });
  });

  it("logs an oddity once for each table and counts the rest", async () => {
    const { observer, log, metrics } = build();
    for (let index = 0; index < 5; index++) observer.oddity("zero_date", "customer_entity");
    assert.equal(log.lines.length, 1);
    assert.match(
      await metrics.scrape(),
      /edge_agent_oddities_total\{what="zero_date",table="customer_entity"\} 5/,
    );
  });
});
