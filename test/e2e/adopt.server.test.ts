import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type DaprStandIn, startDaprStandIn } from "../servers/dapr-stand-in.ts";
import { startMariadb } from "../servers/mariadb.ts";
import { freePorts } from "../servers/ports.ts";

const main = join(import.meta.dirname, "..", "..", "agent", "main.ts");
const flags = ["--disable-warning=ExperimentalWarning", main];

/** Starts the agent on this machine, or, with a machine-id, as if on another one. */
function launch(words: readonly string[], variables: Record<string, string>, machineId: string | null) {
  const here = [process.execPath, ...flags, ...words] as const;
  const there = ["unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/machine-id && exec "$@"`] as const;
  const [command, ...args] = machineId === null ? here : [...there, machineId, ...here];
  const child = spawn(command, args, { env: variables });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const exited = new Promise<number | null>((resolve) => child.once("close", resolve));
  return { child, exited, output: () => output };
}

async function until(what: string, output: () => string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `waiting until ${what}:\n${output()}`);
    await sleep(50);
  }
}

const delivered = (dapr: DaprStandIn, id: number) =>
  dapr.delivered.filter((one) => one.event.includes(`"magento_id":${id},`));

function dataOf(event: string): { sequence: string; instance: string } {
  const { data } = JSON.parse(event);
  return { sequence: String(data.sequence), instance: String(data.origin.instance) };
}

test("a copied state publishes nothing on another machine until it is adopted, running or stopped", async () => {
  const mariadb = await startMariadb();
  const dapr = await startDaprStandIn({ token: "t-0" });
  const directory = mkdtempSync(join(tmpdir(), "mea-adopt-"));
  const [metrics = 0, health = 0] = await freePorts(2);
  const running: { child: ReturnType<typeof spawn>; exited: Promise<unknown> }[] = [];
  try {
    await mariadb.loadMagento();
    const { user, password } = await mariadb.createAgentUser();
    const variables = (state: string): Record<string, string> => ({
      PATH: process.env["PATH"] ?? "",
      MAGENTO_DB_SOCKET: mariadb.socket,
      MAGENTO_DB_USER: user,
      MAGENTO_DB_PASS: password,
      DAPR_HTTP_ENDPOINT: dapr.endpoint,
      DAPR_API_TOKEN: "t-0",
      STATE_DIR: join(directory, state),
      METRICS_PORT: String(metrics),
      HEALTH_PORT: String(health),
      DISK_FREE_MIN: "1M",
      SPOOL_BYTES_MAX: "1G",
    });
    const ask = async (path: string, port = health): Promise<string> =>
      fetch(`http://127.0.0.1:${port}${path}`)
        .then((answer) => answer.text())
        .catch(() => "");
    const write = (id: number) =>
      mariadb.query(
        `INSERT INTO magento_db.customer_entity SET entity_id = ${id}, email = 'c${id}@example.com', website_id = 1`,
      );
    const begin = (state: string, machineId: string | null) => {
      const agent = launch(["run"], variables(state), machineId);
      running.push(agent);
      return agent;
    };
    const end = async (agent: ReturnType<typeof launch>): Promise<void> => {
      agent.child.kill("SIGTERM");
      assert.equal(await agent.exited, 0, agent.output());
    };
    const reads = async (): Promise<boolean> =>
      /^edge_agent_source_connected 1$/m.test(await ask("/metrics", metrics));
    const other = (name: string): string => {
      const file = join(directory, name);
      writeFileSync(file, `${name.padEnd(32, "0")}\n`);
      return file;
    };
    const [clone, third] = [other("c10e"), other("77")];

    const origin = begin("origin", null);
    await until("the origin reads", origin.output, reads);
    await write(1);
    await until("the origin delivers", origin.output, async () => delivered(dapr, 1).length === 1);
    await end(origin);
    cpSync(join(directory, "origin"), join(directory, "copy"), { recursive: true });
    cpSync(join(directory, "origin"), join(directory, "stopped"), { recursive: true });
    await write(2);

    const copy = begin("copy", clone);
    await until("health names it", copy.output, async () => (await ask("/health")).includes("STATE_CLONED"));
    assert.match(await ask("/health"), /another machine: it has another machine-id/);
    assert.equal((await fetch(`http://127.0.0.1:${health}/livez`)).status, 200);
    const status = launch(["status"], variables("copy"), null);
    assert.equal(await status.exited, 2);
    assert.match(status.output(), /STATE_CLONED/);
    assert.match(
      await ask("/metrics", metrics),
      /edge_agent_capture_halted\{code="STATE_CLONED",case=""\} 1/,
    );
    const sentBefore = dapr.delivered.length;
    await sleep(1_500);
    assert.equal(dapr.delivered.length, sentBefore, "nothing is published, not even a heartbeat");
    const dumps = await mariadb.query("SHOW PROCESSLIST");
    assert.ok(!dumps.some((row) => String(row["Command"]).startsWith("Binlog Dump")));
    const adopted = launch(["adopt"], variables("copy"), null);
    assert.equal(await adopted.exited, 0, adopted.output());
    assert.match(adopted.output(), /belongs to this machine now/);
    await until("the adopted delivers", copy.output, async () => delivered(dapr, 2).length === 1);
    assert.match(copy.output(), /nothing is captured or published: the state belongs to another machine/);
    assert.equal(copy.output().match(/nothing is captured or published/g)?.length, 1);
    const again = launch(["adopt"], variables("copy"), null);
    assert.equal(await again.exited, 1);
    await end(copy);
    const [first] = delivered(dapr, 1).map(({ event }) => dataOf(event));
    const [second] = delivered(dapr, 2).map(({ event }) => dataOf(event));
    assert.ok(first && second);
    assert.notEqual(second.instance, first.instance);
    assert.ok(second.sequence.slice(0, 10) > first.sequence.slice(0, 10), "a new epoch");

    // A stopped one in its directory, as root for another user, whose files stay that user's.
    spawnSync("chown", ["-R", "nobody", join(directory, "stopped")]);
    spawnSync("chmod", ["711", directory]);
    const stopped = launch(["adopt"], variables("stopped"), third);
    assert.equal(await stopped.exited, 0, stopped.output());
    const owners = spawnSync("find", [join(directory, "stopped"), "-not", "-user", "nobody"], {
      encoding: "utf8",
    });
    assert.equal(owners.stdout, "");
    const moved = begin("stopped", third);
    await until("it delivers", moved.output, async () => delivered(dapr, 2).length === 2);
    await end(moved);
    const back = begin("stopped", null);
    await until("the first machine is now the other one", back.output, async () =>
      (await ask("/health")).includes("STATE_CLONED"),
    );
    await end(back);
    const nothing = launch(["adopt"], variables("nowhere"), null);
    assert.equal(await nothing.exited, 1);
    assert.match(nothing.output(), /there is no state/);
  } finally {
    for (const { child, exited } of running) {
      if (child.exitCode === null) child.kill("SIGKILL");
      await exited;
    }
    await dapr.stop();
    await mariadb.stop();
    rmSync(directory, { recursive: true, force: true });
  }
});
