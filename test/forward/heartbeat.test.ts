/** The heartbeat, and what it may claim. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import type { Checkpoint } from "../../agent/change.ts";
import { Completeness } from "../../agent/forward/completeness.ts";
import { startDaprStandIn } from "../servers/dapr-stand-in.ts";
import { CONTROL, eventOf, seededRandom, startRig, TOPIC, until } from "./fakes.ts";

test("sends heartbeats with what is held, and none while everything is", async (t) => {
  const facts = () => ({
    epoch: 1,
    completeUpToMs: null,
    file: null,
    position: null,
    gtidSet: null,
    backlogEvents: 0,
    backlogBytes: 0,
  });
  const standIn = await startDaprStandIn({ allowedTopics: [CONTROL] });
  const rig = startRig({ endpoint: standIn.endpoint, heartbeat: { intervalMs: 20, facts } });
  t.after(async () => {
    await rig.stop();
    await standIn.stop();
  });
  rig.queues.append(eventOf({ key: "a" }));
  const isHeld = (): boolean => standIn.delivered.some(({ event }) => event.includes(`"held":["${TOPIC}"]`));
  await until(isHeld, "a heartbeat names the held topic");
  standIn.setToken("other");
  await until(() => rig.forwarder.status().allHeld !== null, "everything is held");
  const before = standIn.delivered.length;
  await sleep(150);
  assert.equal(standIn.delivered.length, before);
});

function checkpointAt(position: number, partial: Checkpoint["partial"] = null): Checkpoint {
  return {
    formatVersion: 2,
    epoch: 1,
    file: "bin.000001",
    position,
    resumePosition: position,
    gtidSet: null,
    serverId: 1,
    serverUuid: null,
    lastTransaction: null,
    partial,
    newestCommitMs: position * 1000,
  };
}

test("claims a checkpoint only when every queue is acknowledged up to what it covered", () => {
  for (const seed of [1, 2, 3]) {
    const random = seededRandom(seed);
    const tracker = new Completeness();
    const queues = ["a", "b", "c"].map((queue) => ({ queue, lane: "live" as const, acked: 0, last: 0 }));
    const covered = new Map<number, readonly number[]>();
    for (let position = 1; position < 3000; position++) {
      for (const state of queues) if (random() < 0.4) state.last += Math.floor(random() * 4);
      covered.set(
        position,
        queues.map(({ last }) => last),
      );
      tracker.appended(checkpointAt(position), queues);
      const pace = position % 1000 < 800 ? 1 : 20;
      for (const state of queues)
        state.acked = Math.min(state.last, state.acked + Math.floor(random() * pace));
      const claimed = tracker.upTo(queues).position ?? 0;
      const needs = covered.get(claimed) ?? [];
      assert.ok(
        needs.every((last, index) => (queues[index]?.acked ?? 0) >= last),
        `SEED=${seed} at ${position}`,
      );
    }
    for (const state of queues) state.acked = state.last;
    assert.equal(tracker.upTo(queues).position, 2999, "the newest checkpoint is never lost to thinning");
    assert.equal(tracker.upTo(queues).completeUpToMs, 2_998_999, "others may commit in the same second");
  }
});

test("claims nothing before the first complete checkpoint, and nothing of a part of a transaction", () => {
  const tracker = new Completeness();
  const part = {
    start: { file: "f", position: 1 },
    end: { file: "f", position: 9 },
    ordinal: 1,
    events: 1,
    rolledBack: [],
  };
  const queues = [{ queue: "a", lane: "live", acked: 1, last: 1 } as const];
  tracker.appended(checkpointAt(5, part), queues);
  assert.equal(tracker.upTo(queues).completeUpToMs, null);
});

test("promises commits while rows of a snapshot wait: their lane is not asked", () => {
  const tracker = new Completeness();
  const queues = [
    { queue: "a", lane: "live", acked: 1, last: 1 },
    { queue: "a", lane: "bulk", acked: 0, last: 1_000_000 },
  ] as const;
  tracker.appended(checkpointAt(5), queues);
  assert.equal(tracker.upTo(queues).position, 5);
});
