/** The two clocks as they are shown: hours, health, metrics. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BinlogRunwayFacts } from "../../agent/observe/facts.ts";
import { clocksText, isBinlogShort } from "../../agent/observe/clocks.ts";
import { computeHealth } from "../../agent/observe/health.ts";
import { Metrics } from "../../agent/observe/metrics.ts";
import { RunwayWatch } from "../../agent/runway-watch.ts";
import { createSpoolStats } from "../spool/stats.ts";
import { FakeClock, factsOf, LinesLog, NOW_MS } from "./facts.ts";

const hour = 3_600_000;

function checkOf(binlog: Partial<BinlogRunwayFacts> | null, hours = 0) {
  const whole = { by: "age", expireSeconds: 604_800, replicasNeeded: 0, measuredAtMs: NOW_MS } as const;
  const facts = factsOf({
    runway: {
      binlog: binlog === null ? null : { ...whole, purgeNotBeforeMs: NOW_MS + hours * hour, ...binlog },
      spoolHours: null,
    },
  });
  const { status, message } = computeHealth(facts, { lagUnhealthySeconds: 30 }).checks.binlog_runway;
  return `${status}: ${message}`;
}

describe("the binlog's runway in /health", () => {
  it("says how long what is needed stays, and is unhealthy when half a day is left", () => {
    assert.match(checkOf({}, 168), /^healthy: what is still needed stays at least 7 days \(by age\)$/);
    assert.match(checkOf({}, 13), /^healthy/);
    assert.match(checkOf({}, 11), /^unhealthy: what is still needed stays at least 11\.0 h/);
    assert.match(
      checkOf({ by: "size", expireSeconds: null }, 1),
      /^unhealthy: .* 60 min \(by size, at the pace/,
    );
  });

  it("does not complain of a short retention as long as most of it is left", () => {
    assert.match(checkOf({ expireSeconds: 6 * 3600 }, 6), /^healthy/);
    assert.match(checkOf({ expireSeconds: 6 * 3600 }, 2.9), /^unhealthy/);
  });

  it("names a purge, a server that purges nothing, and one that waits for replicas", () => {
    assert.match(checkOf({ by: "purged" }), /^unhealthy: the server has purged/);
    assert.match(checkOf({ by: "none", purgeNotBeforeMs: Infinity }), /^healthy: the server purges nothing/);
    assert.match(checkOf({ replicasNeeded: 1 }, 100), /fewer than 1 replicas are connected/);
    assert.match(checkOf(null), /^healthy: not measured yet/);
  });
});

describe("the spool's runway", () => {
  it("is the room that is left at the pace of the last minutes, once a minute was seen", async () => {
    let bytes = 0;
    const seen: (number | null)[] = [];
    const ending = new AbortController();
    class SteppedClock extends FakeClock {
      override async sleep(delayMs: number): Promise<void> {
        await super.sleep(delayMs);
        bytes += 1000;
        seen.push(watch.facts().spoolHours);
        if (seen.length === 10) ending.abort();
      }
    }
    const watch = new RunwayWatch({
      readRetention: () => Promise.reject(new Error("nobody answers")),
      spool: {
        checkpoint: () => null,
        stats: () => createSpoolStats({ bytes, directoryBytes: 400_000 }),
      },
      clock: new SteppedClock(),
      log: new LinesLog(),
    });
    await watch.run(ending.signal);
    assert.deepEqual(seen.slice(0, 6), [null, null, null, null, null, null]);
    // 600,000 bytes of room at 100 bytes a second.
    assert.ok(Math.abs((seen[6] ?? 0) - 6000 / 3600) < 1e-9, String(seen[6]));
  });

  it("stands in the metrics, as NaN while it is not known and +Inf while nothing grows", async () => {
    const scrape = (spoolHours: number | null) =>
      new Metrics(async () => factsOf({ runway: { binlog: null, spoolHours } })).scrape();
    assert.match(await scrape(null), /^edge_agent_spool_runway_hours Na[nN]$/m);
    assert.match(await scrape(Infinity), /^edge_agent_spool_runway_hours \+Inf$/m);
    assert.match(await scrape(2.5), /^edge_agent_spool_runway_hours 2\.5$/m);
    assert.match(await scrape(null), /^edge_agent_binlog_runway_hours Na[nN]$/m);
    assert.match(await new Metrics(async () => factsOf()).scrape(), /^edge_agent_binlog_runway_hours 168$/m);
  });

  it("is told in the log while there is time, once an hour, and when it is over", async () => {
    let bytes = 0;
    let looks = 0;
    const log = new LinesLog();
    const ending = new AbortController();
    class SteppedClock extends FakeClock {
      override async sleep(delayMs: number): Promise<void> {
        await super.sleep(delayMs);
        looks += 1;
        // Grows for an hour and a half, then drains.
        bytes += looks < 540 ? 1000 : -1000;
        if (looks === 700) ending.abort();
      }
    }
    const watch = new RunwayWatch({
      readRetention: () => Promise.reject(new Error("nobody answers")),
      spool: { checkpoint: () => null, stats: () => createSpoolStats({ bytes, directoryBytes: 400_000 }) },
      clock: new SteppedClock(),
      log,
    });
    await watch.run(ending.signal);
    const said = log.lines.filter(({ message }) => /soon be full|does not run out/.test(message));
    assert.deepEqual(
      said.map(({ message }) => message),
      ["the spool will soon be full", "the spool will soon be full", "the clock does not run out any more"],
    );
    assert.match(
      String(said[0]?.fields["clocks"]),
      /^binlog not measured yet; spool full in 100 min at this pace$/,
    );
  });
});

describe("both clocks in one line", () => {
  it("say what is left, and what is not known", () => {
    const binlog = { purgeNotBeforeMs: NOW_MS + 30 * hour, by: "age", expireSeconds: 604_800 } as const;
    const measured = { ...binlog, replicasNeeded: 0, measuredAtMs: NOW_MS };
    assert.equal(
      clocksText({ binlog: measured, spoolHours: 5.2 }, NOW_MS),
      "binlog kept at least 30.0 h; spool full in 5.2 h at this pace",
    );
    assert.equal(
      clocksText({ binlog: { ...measured, by: "purged" }, spoolHours: Infinity }, NOW_MS),
      "binlog purged that is still needed; spool does not grow",
    );
    assert.equal(isBinlogShort({ ...measured, purgeNotBeforeMs: NOW_MS + 11 * hour }, NOW_MS), true);
  });
});
