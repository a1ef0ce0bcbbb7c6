import assert from "node:assert/strict";
import { test } from "node:test";
import { runStallWatch } from "../../agent/forward/stall-watch.ts";
import type { Clock } from "../../agent/kernel/service.ts";

/** A world on a clock of its own: requests under way, and an API that is out of reach for a while. */
class World {
  nowMs = 0;
  asked = 0;
  told = 0;
  readonly resetsAtMs: number[] = [];
  /** Start times of the requests under way. */
  readonly underWay = new Set<number>();
  /** From, to. */
  outage: readonly [number, number] = [0, 0];
  /** How long an unanswered question takes. */
  readonly questionMs = 2_000;
  /** What happens by itself, once the clock has come so far. */
  readonly #plan: { readonly atMs: number; readonly act: () => void }[] = [];

  at(atMs: number, act: () => void): void {
    this.#plan.push({ atMs, act });
  }

  #advance(toMs: number): void {
    this.#plan.sort((one, other) => one.atMs - other.atMs);
    while (this.#plan[0] !== undefined && this.#plan[0].atMs <= toMs) {
      const next = this.#plan.shift();
      this.nowMs = Math.max(this.nowMs, next?.atMs ?? 0);
      next?.act();
    }
    this.nowMs = toMs;
  }

  async run(untilMs: number): Promise<void> {
    const ending = new AbortController();
    this.at(untilMs, () => ending.abort());
    const clock: Clock = {
      wallMs: () => this.nowMs,
      monotonicMs: () => this.nowMs,
      sleep: async (delayMs) => this.#advance(this.nowMs + delayMs),
    };
    const publisher = {
      reachable: async () => {
        this.asked += 1;
        const [from, to] = this.outage;
        if (this.nowMs < from || this.nowMs >= to) return true;
        this.#advance(this.nowMs + this.questionMs);
        return false;
      },
      resetConnections: async () => {
        this.resetsAtMs.push(this.nowMs);
        this.underWay.clear();
      },
    };
    const oldestStartMs = (): number | null => (this.underWay.size === 0 ? null : Math.min(...this.underWay));
    const unreachable = (): void => {
      this.told += 1;
    };
    await runStallWatch({ publisher, clock, oldestStartMs, unreachable }, ending.signal);
  }
}

test("asks nothing while nothing is under way, or while requests are answered in time", async () => {
  const world = new World();
  world.at(10_000, () => world.underWay.add(10_000));
  world.at(12_000, () => world.underWay.delete(10_000));
  await world.run(30_000);
  assert.deepEqual([world.asked, world.told, world.resetsAtMs], [0, 0, []]);
});

test("a slow broker is waited for: its requests are not cut", async () => {
  const world = new World();
  world.underWay.add(0);
  await world.run(29_000);
  assert.ok(world.asked > 10);
  assert.deepEqual([world.told, world.resetsAtMs], [0, []]);
});

test("an outage is told of within 8 s, and its requests are cut within 3 s of its end", async () => {
  for (let endMs = 8_000; endMs < 16_000; endMs += 170) {
    const world = new World();
    world.outage = [1_000, endMs];
    world.at(1_500, () => world.underWay.add(1_500));
    world.at(8_000, () => assert.ok(world.told > 0));
    await world.run(30_000);
    assert.equal(world.resetsAtMs.length, 1, `end at ${endMs}`);
    assert.ok((world.resetsAtMs[0] ?? 0) <= endMs + 3_000, `end at ${endMs}: ${world.resetsAtMs[0]}`);
  }
});

test("a request that was sent again in the outage's last moments is cut as well", async () => {
  for (let sentMs = 8_000; sentMs < 12_000; sentMs += 70) {
    const world = new World();
    world.outage = [1_000, 12_000];
    world.at(1_500, () => world.underWay.add(1_500));
    // The old request ran out of its time; the new one is lost like it.
    world.at(sentMs, () => {
      world.underWay.clear();
      world.underWay.add(sentMs);
    });
    await world.run(30_000);
    assert.equal(world.resetsAtMs.length, 1, `sent at ${sentMs}`);
    assert.ok((world.resetsAtMs[0] ?? 0) <= 15_500, `sent at ${sentMs}: ${world.resetsAtMs[0]}`);
  }
});

test("a request that was sent after the outage is left alone", async () => {
  const world = new World();
  world.outage = [1_000, 9_000];
  world.at(1_500, () => world.underWay.add(1_500));
  // What was held back by the network is answered after all.
  world.at(9_000, () => world.underWay.clear());
  world.at(12_000, () => world.underWay.add(12_000));
  await world.run(30_000);
  assert.ok(world.told > 0);
  assert.deepEqual(world.resetsAtMs, []);
});
