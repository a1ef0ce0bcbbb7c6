import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { spoolVerification } from "../../agent/commands/spool-verify.ts";
import { ControlServer } from "../../agent/control/control-server.ts";
import { flipValue, orderKey } from "../spool/damage-cases.ts";
import { COUNT, filled, tuning } from "../spool/damage-model.ts";
import { openSpool, ORDERS, stateDirOf, Witness } from "../spool/fixtures.ts";

const main = join(import.meta.dirname, "..", "..", "agent", "main.ts");

function verify(stateDir: string, ...words: readonly string[]) {
  const args = ["--disable-warning=ExperimentalWarning", main, "spool", "verify", ...words];
  const env = { PATH: process.env["PATH"] ?? "", STATE_DIR: stateDir };
  const ran = spawnSync(process.execPath, args, { env, encoding: "utf8", timeout: 60_000 });
  return { code: ran.status, out: ran.stdout, err: ran.stderr };
}

/** As `verify`, while this process serves. */
async function verifyBeside(
  stateDir: string,
): Promise<{ readonly code: number | null; readonly out: string }> {
  const args = ["--disable-warning=ExperimentalWarning", main, "spool", "verify", "--json"];
  const env = { PATH: process.env["PATH"] ?? "", STATE_DIR: stateDir };
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let out = "";
  for await (const chunk of child.stdout) out += String(chunk);
  const [code] = await exited;
  return { code: typeof code === "number" ? code : null, out };
}

describe("spool verify", () => {
  it("says that a sound spool is sound, with what waits in it, and exits 0", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    const ran = verify(dir, "--json");
    assert.equal(ran.code, 0, ran.err);
    const report = JSON.parse(ran.out);
    assert.deepEqual(report.faults, []);
    const waiting = report.queues.reduce((sum: number, { events }: { events: number }) => sum + events, 0);
    assert.ok(waiting > 0 && waiting < COUNT);
    assert.match(verify(dir).out, /is sound\n$/);
  });

  it("names queue and number of what is damaged, changes nothing, and exits 1", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    await flipValue(await orderKey("middle")(dir), 60)(dir);
    for (let round = 0; round < 2; round += 1) {
      const ran = verify(dir);
      assert.equal(ran.code, 1, ran.err);
      assert.match(ran.out, /DAMAGE migration\.order\.changed \d+: wrong checksum\n1 damage in/);
    }
  });

  it("names a database that cannot be opened, and does not make a new one in its place", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    await rm(join(dir, "spool", "CURRENT"));
    const before = await readdir(join(dir, "spool"));
    const ran = verify(dir);
    assert.equal(ran.code, 1, ran.err);
    assert.match(ran.out, /DAMAGE : the database: CURRENT is missing|DAMAGE.*CURRENT is missing/);
    assert.deepEqual(await readdir(join(dir, "spool")), before);
  });

  it("is done by the running agent, beside its work, and says what that found", async (t) => {
    const dir = await stateDirOf(t);
    await filled(dir);
    await flipValue(await orderKey("middle")(dir), 60)(dir);
    const spool = await openSpool(dir, { tuning });
    const server = new ControlServer({
      path: join(dir, "admin.sock"),
      mode: 0o600,
      audited: false,
      log: new Witness(),
      commands: { "spool verify": spoolVerification(spool) },
    });
    await server.open();
    try {
      const { code, out } = await verifyBeside(dir);
      assert.equal(code, 1);
      const report: { faults: { queue: string; what: string }[]; queues: { events: number }[] } =
        JSON.parse(out);
      assert.deepEqual(
        report.faults.map(({ queue, what }) => [queue, what]),
        [[ORDERS, "wrong checksum"]],
      );
      assert.ok(report.queues.some(({ events }) => events > 0));
      assert.deepEqual(spool.damages.all, [], "nothing is changed");
    } finally {
      await server.close();
      await spool.close();
    }
  });

  it("refuses a spool that another process has open and a directory without state, with the reason", async (t) => {
    const dir = await stateDirOf(t);
    const spool = await openSpool(dir);
    const ran = verify(dir);
    assert.equal(ran.code, 1);
    assert.match(ran.err, /another process has the spool in .* open/);
    await spool.close();
    assert.match(verify(join(dir, "nothing")).err, /there is no state/);
  });
});
