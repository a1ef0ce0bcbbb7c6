import assert from "node:assert/strict";
import { it } from "node:test";
import { Healing } from "../../agent/healing.ts";
import { AgentError } from "../../agent/kernel/errors.ts";
import { systemClock } from "../../agent/kernel/service.ts";
import { flipValue, orderKey } from "./damage-cases.ts";
import { capture, COUNT, filled, tuning } from "./damage-model.ts";
import { event, eventually, openSpool, ORDERS, stateDirOf, Witness } from "./fixtures.ts";

for (const hasBinlog of [true, false]) {
  it(`waits for the database, and then ${hasBinlog ? "reads the lost part again" : "puts a gap event in its place"}`, async (t) => {
    const dir = await stateDirOf(t);
    const consumer = await filled(dir);
    await flipValue(await orderKey("middle")(dir), 60)(dir);
    const spool = await openSpool(dir, { tuning });
    const log = new Witness();
    const healed: string[] = [];
    let asked = 0;
    const stopping = new AbortController();
    const healing = new Healing({
      damages: spool.damages,
      canResume: () => {
        asked += 1;
        if (asked < 3) return Promise.reject(new AgentError("SOURCE_UNREACHABLE", "it is away"));
        return Promise.resolve(hasBinlog);
      },
      atRest: (change) => change(),
      resync: async (queue) => void healed.push(`resync of ${queue}`),
      gapEvent: ({ queue, first, last, resync }) =>
        event(9999, {
          queue,
          kind: "control",
          barrier: true,
          topic: "migration.control",
          id: `id-gap ${first} ${last} ${resync ? "is read again" : ""}`,
        }),
      epoch: () => 1,
      beforeRewind: () => Promise.resolve(),
      rewound: () => healed.push("completeness is void"),
      healed: (how) => healed.push(how),
      clock: { ...systemClock, sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 5), signal) },
      log,
    });
    const running = healing.run(stopping.signal);
    await consumer.deliver(spool);
    await eventually(() => healed.length > 0, "it is healed");
    assert.ok(asked >= 3);
    if (hasBinlog) {
      assert.deepEqual(healed, ["completeness is void", "rewound"]);
      await capture(spool);
      await consumer.deliver(spool);
      consumer.check();
    } else {
      await eventually(() => healed.length > 1, "its rows are read again");
      assert.deepEqual(healed, ["gap", `resync of ${ORDERS}`]);
      const { acked } = spool.queues().find(({ queue }) => queue === ORDERS) ?? assert.fail();
      const [gap] = await spool.read(ORDERS, acked, { maxEvents: 1, maxBytes: 1 });
      assert.match(gap?.id ?? "", /^id-gap \d+ \d+ is read again$/);
      assert.equal(spool.checkpoint()?.position, COUNT, "the checkpoint stays");
    }
    stopping.abort();
    await running;
    await spool.close();
  });
}
