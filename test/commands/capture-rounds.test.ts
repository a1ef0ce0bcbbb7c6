import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CaptureRounds } from "../../agent/capture-rounds.ts";
import { Capture } from "../../agent/capture.ts";
import type { SourceItem } from "../../agent/change.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import type { ChangeSource, SourceStatus, SpoolStats } from "../../agent/ports.ts";
import { capturePulse, forwardPulse, type ForwardWork } from "../../agent/pulses.ts";
import { LinesLog } from "../observe/facts.ts";
import { checkpoint, eventually } from "../spool/fixtures.ts";

const stopped: SourceStatus = { state: "stopped", reason: null, server: null, silentMs: null, reconnects: 0 };

/** Rounds over a source that throws, or, where there is nothing to throw, waits for the end. */
function roundsOver(failures: Error[], tryAgainMs = 20, isMended = false) {
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
  let mends = 0;
  const rounds = new CaptureRounds({
    newCapture: () => {
      made++;
      return new Capture({
        source,
        encoder: { tables: [], encode: () => [], takeSuppressed: () => 0 },
        spool: { checkpoint: () => checkpoint(1), append: async () => undefined },
        observer: { batchCaptured: () => undefined, commitSeen: () => undefined },
        clock: systemClock,
      });
    },
    sourceStatus: () => source.status(),
    sourceStepMs: () => 0,
    isBetweenTransactions: () => true,
    mend: () => {
      mends += 1;
      return Promise.resolve(isMended);
    },
    clock: systemClock,
    log,
    tryAgainMs,
  });
  return { rounds, log, made: () => made, mends: () => mends };
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

  it("mend what they can, and not at once again where that did not help", async () => {
    const loss = (): AgentError => new AgentError("POSITION_LOST", "binlog.000001 is purged");
    const { rounds, made, mends } = roundsOver([loss(), loss(), loss()], 60_000, true);
    const ending = new AbortController();
    const ended = rounds.run(ending.signal);
    await eventually(() => made() === 2, "goes on at once");
    await systemClock.sleep(50);
    assert.deepEqual([made(), mends()], [2, 1], "the second loss waits");
    ending.abort();
    await ended;
  });

  it("let a change of what capture needs end the pause of a halt", async () => {
    const { rounds, made } = roundsOver([new AgentError("SCHEMA_UNKNOWN", "no such table")], 60_000);
    const ending = new AbortController();
    const ended = rounds.run(ending.signal);
    await eventually(() => /SCHEMA_UNKNOWN/.test(rounds.status().reason ?? ""), "halted");
    let changed = 0;
    await rounds.atRest(async () => {
      changed = made();
    });
    assert.equal(changed, 1, "between the loop that halted and the next one");
    await eventually(() => made() === 2, "a new loop");
    await assert.rejects(
      rounds.atRest(() => Promise.reject(new TypeError("a change that fails"))),
      TypeError,
    );
    await eventually(() => made() === 3, "capture goes on all the same");
    ending.abort();
    await ended;
  });

  it("end with what the process cannot survive", async () => {
    for (const failure of [new AgentError("SPOOL_IO", "fsync failed"), new TypeError("a bug")]) {
      const { rounds } = roundsOver([failure]);
      await assert.rejects(rounds.run(new AbortController().signal), failure);
    }
  });
});

describe("pulses", () => {
  const room = (intake: SpoolStats["intake"]) => ({ stats: () => ({ intake }) });

  it("of capture excuse a full spool or disk, and nothing else", () => {
    const loop = { lastProgressMs: 5 };
    assert.equal(capturePulse(loop, room("SPOOL_FULL")).waitsFor(), "SPOOL_FULL");
    assert.equal(capturePulse(loop, room("DISK_FULL")).waitsFor(), "DISK_FULL");
    const open = capturePulse(loop, room("open"));
    assert.equal(open.waitsFor(), null);
    assert.equal(open.lastProgressMs(), 5);
  });

  it("of capture count what the source does by itself, but not while an append hangs", async () => {
    const item: SourceItem = { kind: "progress", commitTimeMs: null, checkpoint: checkpoint(1) };
    let pulls = 0;
    const source: ChangeSource = {
      status: () => stopped,
      async *batches() {
        for (;;) {
          pulls += 1;
          yield await Promise.resolve([item]);
        }
      },
    };
    const rounds = new CaptureRounds({
      newCapture: () =>
        new Capture({
          source,
          encoder: { tables: [], encode: () => [], takeSuppressed: () => 0 },
          spool: { checkpoint: () => null, append: () => new Promise(() => undefined) },
          observer: { batchCaptured: () => undefined, commitSeen: () => undefined },
          clock: systemClock,
        }),
      sourceStatus: () => stopped,
      sourceStepMs: () => Number.MAX_SAFE_INTEGER,
      isBetweenTransactions: () => true,
      mend: () => Promise.resolve(false),
      clock: systemClock,
      log: new LinesLog(),
    });
    void rounds.run(new AbortController().signal);
    assert.equal(rounds.lastProgressMs, Number.MAX_SAFE_INTEGER);
    await eventually(() => pulls === 2, "the second batch waits for the first one's append");
    assert.ok(rounds.lastProgressMs < Number.MAX_SAFE_INTEGER);
  });

  it("of forward stand still when work has no end, a pause is over, or a wake-up was lost", () => {
    let nowMs = 0;
    let events = 0;
    let work: ForwardWork = { oldestWorkSinceMs: null, wakesAtMs: null };
    const pulse = forwardPulse(
      () => work,
      { stats: () => ({ events }) },
      () => nowMs,
    );
    nowMs = 1000;
    assert.equal(pulse.lastProgressMs(), 1000, "nothing to do");
    assert.equal(pulse.waitsFor(), "events");
    events = 1;
    nowMs = 2000;
    assert.equal(pulse.lastProgressMs(), 1000, "events wait, and nothing looks at them");
    assert.equal(pulse.waitsFor(), null);
    work = { oldestWorkSinceMs: 1500, wakesAtMs: null };
    assert.equal(pulse.lastProgressMs(), 1500, "since when the work is under way");
    work = { oldestWorkSinceMs: null, wakesAtMs: 60_000 };
    assert.equal(pulse.lastProgressMs(), 2000, "a hold has its end before it");
    nowMs = 70_000;
    assert.equal(pulse.lastProgressMs(), 60_000, "the alarm did not ring");
    work = { oldestWorkSinceMs: 100, wakesAtMs: null };
    events = 0;
    assert.equal(pulse.waitsFor(), null, "work without an end is no wait for events");
  });
});
