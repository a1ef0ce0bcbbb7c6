/** A snapshot of rows that are larger than any event may be, in the memory that the agent promises. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { entities } from "../oracle/entities.ts";
import { describeComparison } from "../oracle/compare.ts";
import { deadLetters } from "../oracle/history.ts";
import { serverKinds } from "../servers/matrix.ts";
import { makeMemoryCgroup, MemorySampler } from "./memory.ts";
import { replicaOf, Stack } from "./stack.ts";

const anonymousMaxMib = 150;
const cgroupMaxMib = 256;
const addresses = entities.filter(({ table }) => table === "sales_order_address");
/** One byte a character, two, and three. */
const characters = ["x", "ß", "日"];

describe("rows with values of 16 MiB", () => {
  for (const kind of serverKinds.filter(({ name }) => name === "MariaDB 10.11" || name === "MySQL 9.7"))
    test(`go to the dead letters, and the others reach the consumer, under ${anonymousMaxMib} MiB, on ${kind.name}`, async () => {
      const cgroup = makeMemoryCgroup(cgroupMaxMib);
      const stack = await Stack.start({
        kind,
        form: "bundle",
        cgroup,
        settings: { SNAPSHOT_MODE: "initial" },
      });
      try {
        await stack.database.query(
          "SET SESSION sql_mode = ''; ALTER TABLE sales_order_address MODIFY street longtext",
        );
        for (let id = 1; id <= 12; id += 1) {
          const character = characters[(id >> 1) % characters.length] ?? "";
          const count = Math.floor((16 * 1024 * 1024) / Buffer.byteLength(character));
          const street = id % 2 === 0 ? `REPEAT('${character}', ${count})` : `'${character} ${id}'`;
          await stack.database.query(
            `INSERT INTO sales_order_address (entity_id, city, street) VALUES (${id}, 'c${id}', ${street})`,
          );
        }
        await stack.agent.start();
        const sampler = new MemorySampler(stack.agent.pid, 5);
        await stack.agent.until(
          "all rows were read",
          () => Promise.resolve(stack.agent.log().includes("the snapshot is complete")),
          60_000,
        );
        await stack.untilEmpty();
        const anonymous = sampler.stop();
        console.log(`anonymous ${anonymous.toFixed(0)} MiB, cgroup ${cgroup.peakMib().toFixed(0)} MiB`);
        assert.equal(await deadLetters(stack.broker.redis), 6);
        // The consumer never had the large ones; without them source and consumer are equal.
        await stack.database.query("DELETE FROM sales_order_address WHERE entity_id % 2 = 0");
        const compared = await stack.compare(replicaOf(await stack.history()), addresses);
        assert.ok(compared.equal, describeComparison(compared));
        assert.equal(cgroup.killed(), false);
        assert.ok(anonymous < anonymousMaxMib, `anonymous memory reached ${anonymous.toFixed(0)} MiB`);
      } finally {
        await stack.stop();
        cgroup.remove();
      }
    });
});
