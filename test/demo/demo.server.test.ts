/** The demo as CI can play it: short, and with the stand-in that takes daprd's place where none can be had. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const program = join(import.meta.dirname, "demo.ts");

async function play(...words: readonly string[]): Promise<{ code: number | null; out: string }> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", program, ...words]);
  let out = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (out += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, out };
}

test("the demo with the stand-in says so loudly, survives its outage and ends equal", async () => {
  const { code, out } = await play("--stand-in", "--brief");
  assert.equal(code, 0, out);
  assert.match(out, /!!! a STAND-IN for Dapr's publish API takes the place of daprd and Redis/);
  assert.match(out, /the cluster is CUT OFF; orders go on/);
  const waiting = Number(/([\d,]+) events wait on the agent's disk/.exec(out)?.[1]?.replaceAll(",", ""));
  assert.ok(waiting > 20, out);
  assert.match(out, /EQUAL: the replica is the shop, field by field/);
  assert.doesNotMatch(out, /while cleaning up/);
});

test("the demo explains itself, and refuses words that it does not know", async () => {
  const help = await play("--help");
  assert.deepEqual([help.code, /--stand-in/.test(help.out)], [0, true]);
  assert.equal((await play("--standin")).code, 64);
});
