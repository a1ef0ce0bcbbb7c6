import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CaptureRounds } from "../../agent/capture-rounds.ts";
import { Capture } from "../../agent/capture.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { ChangeSource, SourceStatus } from "../../agent/ports.ts";
import { capturePulse, forwardPulse } from "../../agent/pulses.ts";
import { LinesLog } from "../observe/facts.ts";

const stopped: SourceStatus = { state: "stopped", reason: null, server: null, silentMs: null, reconnects: 0 };

/** Rounds over a source that throws, or, where there is nothing to throw, waits for the end. */
function roundsOver(failures: Error[]) {
  const log = new LinesLog();
  const source: ChangeSource = {
    status: () => stopped,
    async *batches(_after, signal) {
      yield [];
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      await systemClock.sleep(60_000, signal);
    },
  };
  let made = 0;
  const rounds = new CaptureRounds({
    newCapture: () => {
      made++;
      return new Capture({
        source,
        encoder: { tables: [], encode: () => [] },
        spool: { checkpoint: () => null, append: async () => undefined },
        observer: { batchCaptured: () => undefined, commitSeen: () => undefined },
        clock: systemClock,
      });
    },
    sourceStatus: () => source.status(),
    clock: systemClock,
    log,
    tryAgainMs: 20,
  });
  return { rounds, log, made: () => made };
}

describe("capture rounds", () => {
  it("survive what only an operator can mend, say why, and try again", async () => {
    const { rounds, log, made } = roundsOver([
      new AgentError("POSITION_LOST", "binlog.000001 is purged"),
      new AgentError("SOURCE_UNREADABLE", "an event at 4"),
    ]);
    const stop = new AbortController();
    const ended = rounds.run(stop.signal);
    await systemClock.sleep(10);
    assert.equal(rounds.status().state, "waiting");
    assert.match(rounds.status().reason ?? "", /POSITION_LOST: binlog\.000001 is purged/);
    while (made() < 3) await systemClock.sleep(5);
    stop.abort();
    await ended;
    assert.deepEqual(
      log.lines.map((line) => line.fields["code"]),
      ["POSITION_LOST", "SOURCE_UNREADABLE"],
    );
  });

  it("end with what the process cannot survive", async () => {
    for (const failure of [new AgentError("SPOOL_IO", "fsync failed"), new TypeError("a bug")]) {
      const { rounds } = roundsOver([failure]);
      await assert.rejects(rounds.run(new AbortController().signal), failure);
    }
  });
});

describe("pulses", () => {
  const stats = {
    intake: "open",
    queues: [],
    events: 5,
    bytes: 0,
    directoryBytes: 0,
    bytesMax: 1,
    freeBytes: 1,
    diskFreeMin: 0,
    fsync: { count: 0, lastSeconds: 0, p99Seconds: 0 },
    waitingBatches: 0,
    quarantined: 0,
    lossesAtOpen: 0,
  } as const;

  it("of capture counts packets as progress, and a full spool or an absent database as a wait", () => {
    const streaming: SourceStatus = { ...stopped, state: "streaming", silentMs: 10 };
    const pulse = capturePulse(
      { lastProgressMs: 5, status: () => streaming },
      { stats: () => stats },
      () => 1000,
    );
    assert.equal(pulse.lastProgressMs(), 990);
    assert.equal(pulse.waitsFor(), null);
    const full = { stats: () => ({ ...stats, intake: "SPOOL_FULL" as const }) };
    const paused: SourceStatus = { ...streaming, state: "paused" };
    const waiting = capturePulse({ lastProgressMs: 5, status: () => paused }, full, () => 1000);
    assert.equal(waiting.waitsFor(), "SPOOL_FULL");
    const stuck = capturePulse(
      { lastProgressMs: 5, status: () => paused },
      { stats: () => stats },
      () => 1000,
    );
    assert.equal(stuck.waitsFor(), null);
    assert.equal(stuck.lastProgressMs(), 5);
    const away = capturePulse(
      { lastProgressMs: 5, status: () => stopped },
      { stats: () => stats },
      () => 1000,
    );
    assert.match(away.waitsFor() ?? "", /stopped/);
  });

  it("of forward stands still only while events wait and nothing at all moves", () => {
    let nowMs = 0;
    let events = 5;
    let accepted = 0;
    let held = 0;
    const progress = () => ({ accepted, attempts: 0, quarantined: 0, held });
    const pulse = forwardPulse(progress, { stats: () => ({ ...stats, events }) }, () => nowMs);
    pulse.lastProgressMs();
    nowMs = 100;
    assert.equal(pulse.lastProgressMs(), 0);
    accepted = 1;
    assert.equal(pulse.lastProgressMs(), 100);
    nowMs = 200;
    events = 0;
    assert.equal(pulse.lastProgressMs(), 200);
    assert.equal(pulse.waitsFor(), "events");
    events = 1;
    held = 1;
    assert.equal(pulse.waitsFor(), "the cluster");
  });
});
