/** Another user at the admin socket: the test drops root's rights in a child, so it needs them. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ControlServer } from "../../agent/control/control-server.ts";
import { LinesLog } from "../observe/facts.ts";

const NOBODY = 65534;

test("the admin socket is closed to the service's group, which may read the other one", async (t) => {
  assert.equal(process.getuid?.(), 0, "this test needs root");
  const directory = mkdtempSync(join(tmpdir(), "mea-admin-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  // As systemd makes the runtime directory, but open to all: the sockets' own modes are the matter.
  chmodSync(directory, 0o755);
  const commands = { status: async () => "fine" };
  const log = new LinesLog();
  const make = async (name: string, mode: number): Promise<string> => {
    const path = join(directory, name);
    const server = new ControlServer({ path, mode, audited: false, commands, log });
    await server.open();
    t.after(() => server.close());
    return path;
  };
  const readOnly = await make("control.sock", 0o660);
  const admin = await make("admin.sock", 0o600);

  assert.equal(await connectAs({ uid: NOBODY, gid: 0 }, readOnly), "connected", "the group reads status");
  assert.equal(await connectAs({ uid: NOBODY, gid: 0 }, admin), "EACCES");
  assert.equal(await connectAs({ uid: NOBODY, gid: NOBODY }, readOnly), "EACCES");
  assert.equal(await connectAs({ uid: NOBODY, gid: NOBODY }, admin), "EACCES");
  assert.equal(await connectAs({ uid: 0, gid: 0 }, admin), "connected");
});

/** What a process of that user gets when it connects. */
async function connectAs(
  user: { readonly uid: number; readonly gid: number },
  path: string,
): Promise<string> {
  const script = `
    process.setgroups([]); process.setgid(${user.gid}); process.setuid(${user.uid});
    const socket = require("node:net").connect(${JSON.stringify(path)});
    socket.on("connect", () => { console.log("connected"); socket.destroy(); });
    socket.on("error", (error) => console.log(error.code));
  `;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
  await new Promise((resolve) => child.on("close", resolve));
  return text.trim();
}
