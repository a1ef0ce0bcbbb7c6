import assert from "node:assert/strict";
import { test } from "node:test";
import { makeMemoryCgroup, MemorySampler } from "./memory.ts";
import { Stack } from "./stack.ts";

const rows = 1_000_000;
const anonymousMaxMib = 150;
const cgroupMaxMib = 256;

test(`${rows} rows in one transaction are captured under ${anonymousMaxMib} MiB anonymous and ${cgroupMaxMib} MiB in all`, async () => {
  const cgroup = makeMemoryCgroup(cgroupMaxMib);
  const stack = await Stack.start({ form: "bundle", brokerless: true, cgroup });
  try {
    await stack.agent.start();
    await stack.untilReading();
    const sampler = new MemorySampler(stack.agent.pid);
    const started = performance.now();
    await stack.database.query(
      `INSERT INTO magento_db.cataloginventory_stock_item (product_id, stock_id, qty, is_in_stock)
       SELECT seq, 1, seq / 7, 1 FROM seq_1_to_${rows}`,
    );
    const committed = performance.now();
    await stack.untilSpooled(rows, 300_000);
    const seconds = (performance.now() - committed) / 1000;
    const anonymous = sampler.stop();
    console.log(
      `written in ${((committed - started) / 1000).toFixed(1)} s, spooled ${seconds.toFixed(1)} s later; ` +
        `anonymous ${anonymous.toFixed(0)} MiB, cgroup ${cgroup.peakMib().toFixed(0)} MiB (${cgroup.description})`,
    );
    assert.equal(cgroup.killed(), false);
    assert.ok(anonymous < anonymousMaxMib, `anonymous memory reached ${anonymous.toFixed(0)} MiB`);
    // Page cache fills a group up to its limit and is given back; what counts is that it sufficed.
    assert.ok(cgroup.peakMib() <= cgroupMaxMib);
    // It starts again on the full spool, in the same group, and has lost nothing.
    await stack.agent.stop();
    await stack.agent.start();
    await stack.untilSpooled(rows, 30_000);
    assert.equal(await stack.agent.metric("edge_agent_spool_events"), rows);
    assert.equal(cgroup.killed(), false);
  } finally {
    await stack.stop();
    cgroup.remove();
  }
});
