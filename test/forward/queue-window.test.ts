/** The two windows of one queue against the rules of lanes, barriers and entities, without a network. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Lane, SpooledEvent } from "../../agent/change.ts";
import { QueueWindow, type Slot } from "../../agent/forward/queue-window.ts";
import { eventOf, MemoryQueues, seededRandom, TOPIC } from "./fakes.ts";

const lanes = ["live", "bulk"] as const;
const everything = { events: 1e9, bytes: 1e9 };

interface Pair {
  readonly windows: Readonly<Record<Lane, QueueWindow>>;
  readonly queues: MemoryQueues;
  /** Gives a window what was appended and not read, or some of it. */
  readonly feed: (lane: Lane, most?: number) => void;
}

function pairOf(): Pair {
  const windows = { live: new QueueWindow(0), bulk: new QueueWindow(0) };
  windows.bulk.pairWith(windows.live);
  const queues = new MemoryQueues();
  const feed = (lane: Lane, most = 1e9): void => {
    const from = windows[lane].readThrough;
    windows[lane].add(queues.eventsOf(TOPIC, lane).slice(from, from + most));
  };
  return { windows, queues, feed };
}

/** What it breaks that these go while those are done; "" when nothing. */
function broken(
  event: SpooledEvent,
  done: Readonly<Record<Lane, Set<number>>>,
  queues: MemoryQueues,
): string {
  const other = event.lane === "live" ? "bulk" : "live";
  for (let seq = 1; seq <= event.otherLaneThrough; seq++) {
    if (!done[other].has(seq)) return `${event.lane} ${event.seq} goes before ${other} ${seq}`;
  }
  for (const earlier of queues.eventsOf(TOPIC, event.lane).slice(0, event.seq - 1)) {
    if (done[event.lane].has(earlier.seq)) continue;
    if (earlier.barrier || event.barrier) return `${event.lane} ${event.seq} goes before ${earlier.seq}`;
    if (earlier.entityKey === event.entityKey) return `${event.lane} ${event.seq} overtakes ${earlier.seq}`;
  }
  return "";
}

const seeds = process.env["SEED"] === undefined ? [1, 2, 3, 4, 5, 6, 7, 8] : [Number(process.env["SEED"])];
for (const seed of seeds) {
  test(`two lanes share their entities, keep to barriers and come to an end (invariants 4 and 5; SEED=${seed})`, () => {
    const random = seededRandom(seed);
    const below = (limit: number): number => Math.floor(random() * limit);
    const { windows, queues, feed } = pairOf();
    const done = { live: new Set<number>(), bulk: new Set<number>() };
    const underWay = new Map<string, Slot>();
    const answer = (slot: Slot): void => {
      const { event } = slot;
      if (random() < 0.2) {
        windows[event.lane].giveBack([slot]);
        // It is its entity's turn still: nobody else may go before it was sent again.
        return;
      }
      underWay.delete(`${event.lane} ${event.seq}`);
      done[event.lane].add(event.seq);
      windows[event.lane].done(slot);
    };
    const given = new Map<string, Slot>();
    const step = (lane: Lane): void => {
      for (const slot of windows[lane].take({ events: 1 + below(10), bytes: 1e9 })) {
        const { event } = slot;
        assert.equal(broken(event, done, queues), "");
        for (const other of given.values()) {
          const isSame = other.event.entityKey === event.entityKey && other !== slot;
          assert.ok(
            !isSame || done[other.event.lane].has(other.event.seq),
            "one event of an entity at a time",
          );
        }
        given.set(`${event.lane} ${event.seq}`, slot);
        underWay.set(`${event.lane} ${event.seq}`, slot);
      }
    };
    for (let round = 0; round < 1500; round++) {
      const lane = lanes[below(2)] ?? "live";
      const dice = below(10);
      if (dice < 3 && round < 1000) {
        const events = Array.from({ length: 1 + below(6) }, () =>
          eventOf({ key: `k${below(8)}`, lane: lanes[below(2)] ?? "live", barrier: random() < 0.05 }),
        );
        queues.append(...events);
      } else if (dice < 5) feed(lane, 1 + below(10));
      else if (dice < 7) step(lane);
      else {
        const slots = [...underWay.values()];
        const slot = slots[below(slots.length)];
        if (slot === undefined) continue;
        underWay.delete(`${slot.event.lane} ${slot.event.seq}`);
        answer(slot);
        if (done[slot.event.lane].has(slot.event.seq)) given.delete(`${slot.event.lane} ${slot.event.seq}`);
      }
    }
    for (const lane of lanes) feed(lane);
    for (let left = 1; left > 0;) {
      left = 0;
      for (const lane of lanes) {
        step(lane);
        for (const slot of underWay.values()) {
          left += 1;
          underWay.delete(`${slot.event.lane} ${slot.event.seq}`);
          given.delete(`${slot.event.lane} ${slot.event.seq}`);
          done[slot.event.lane].add(slot.event.seq);
          windows[slot.event.lane].done(slot);
        }
      }
    }
    for (const lane of lanes) {
      assert.equal(
        windows[lane].doneThrough,
        queues.eventsOf(TOPIC, lane).length,
        `${lane} comes to its end`,
      );
      assert.equal(windows[lane].heldEvents, 0);
      assert.equal(windows[lane].heldBytes, 0);
    }
  });
}

test("a hot entity takes turns between the lanes, so that neither waits for ever", () => {
  const { windows, queues, feed } = pairOf();
  const row = eventOf({ key: "hot", lane: "bulk" });
  queues.append(...Array.from({ length: 5 }, () => eventOf({ key: "hot" })), row);
  for (const lane of lanes) feed(lane);
  const order: string[] = [];
  for (let round = 0; round < 6; round++) {
    // Live work is asked first, every time.
    const taken = lanes.map((lane) => windows[lane].take(everything)).find((slots) => slots.length > 0);
    const [slot] = taken ?? [];
    assert.ok(slot !== undefined);
    assert.equal(windows.bulk.peek() === null || slot.event.lane === "bulk", true);
    order.push(slot.event.lane);
    windows[slot.event.lane].done(slot);
  }
  assert.deepEqual(order, ["live", "bulk", "live", "live", "live", "live"]);
});

test("what the bulk lane holds waits for nothing any more when the live lane's numbers were given anew", () => {
  const { windows, queues, feed } = pairOf();
  queues.append(eventOf({ key: "a" }), eventOf({ key: "", lane: "bulk", barrier: true }));
  for (const lane of lanes) feed(lane);
  assert.equal(windows.bulk.peek(), null, "it waits for the live event");
  windows.bulk.unbind(1);
  assert.notEqual(windows.bulk.peek(), null);
});

test("a slot that is done names no other, so that none keeps another in memory", () => {
  const window = new QueueWindow(0);
  const queues = new MemoryQueues();
  queues.append(...["a", "a", "b", "c", "a"].map((key) => eventOf({ key })));
  window.add(queues.eventsOf(TOPIC, "live"));
  const done: Slot[] = [];
  while (window.heldEvents > 0) {
    // The newest first, so that one is taken out of the midst.
    const slot = window.take(everything).reverse();
    for (const each of slot) {
      window.done(each);
      done.push(each);
      assert.deepEqual([each.previous, each.next, each.follower], [null, null, null]);
    }
  }
  assert.equal(done.length, 5);
});

test("tells an event's bytes once that it is done, and not when it is given back", () => {
  const window = new QueueWindow(0);
  let released = 0;
  const payload = Buffer.from('"x"');
  const bytes = {
    of: payload,
    idAt: 0,
    idEnd: 0,
    payloadAt: 0,
    payloadEnd: payload.length,
    detach(): void {},
    release(): void {
      released += 1;
    },
  };
  window.add([{ ...eventOf({ key: "a" }), seq: 1, otherLaneThrough: 0, bytes }]);
  const first = window.take(everything);
  window.giveBack(first);
  assert.equal(released, 0);
  for (const slot of window.take(everything)) window.done(slot);
  assert.equal(released, 1);
});
