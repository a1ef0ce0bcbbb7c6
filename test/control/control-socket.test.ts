import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { askAgent } from "../../agent/control/control-client.ts";
import { ControlServer } from "../../agent/control/control-server.ts";
import { AgentError, exitCodeOf } from "../../agent/kernel/errors.ts";
import { LinesLog } from "../observe/facts.ts";

const directory = mkdtempSync(join(tmpdir(), "mea-control-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let sockets = 0;

function serverOf(path: string): ControlServer {
  return new ControlServer({
    path,
    mode: 0o660,
    log: new LinesLog(),
    commands: {
      status: async () => ({ ready: true }),
      broken: async () => {
        throw new Error("geheim");
      },
    },
  });
}

function newPath(): string {
  return join(directory, `c${sockets++}.sock`);
}

function isNotRunning(error: unknown): boolean {
  assert.ok(error instanceof AgentError);
  assert.equal(error.code, "AGENT_NOT_RUNNING");
  assert.equal(exitCodeOf(error), 69);
  return true;
}

describe("the control socket", () => {
  it("answers one command in one line, with mode 0660, and goes away with the agent", async () => {
    const path = newPath();
    const server = serverOf(path);
    await server.open();
    assert.equal(statSync(path).mode & 0o777, 0o660);
    assert.deepEqual(await askAgent(path, "status"), { ready: true });
    await server.close();
    assert.equal(statSync(path, { throwIfNoEntry: false }), undefined);
    await assert.rejects(askAgent(path, "status"), isNotRunning);
  });

  it("refuses what it does not know, and shows no detail of a failure", async () => {
    const path = newPath();
    const server = serverOf(path);
    await server.open();
    await assert.rejects(askAgent(path, "drop"), /does not know the command "drop"/);
    await assert.rejects(askAgent(path, "constructor"), /does not know/);
    await assert.rejects(askAgent(path, "broken"), (error: unknown) => {
      assert.ok(error instanceof Error);
      assert.doesNotMatch(error.message, /geheim/);
      return true;
    });
    await server.close();
  });

  it("takes the place of a socket that a killed agent left, never of a living one", async () => {
    const path = newPath();
    writeFileSync(path, "");
    const first = serverOf(path);
    await first.open();
    const second = serverOf(path);
    await assert.rejects(second.open(), (error: unknown) => {
      assert.ok(error instanceof AgentError);
      assert.equal(error.code, "LISTEN_FAILED");
      return true;
    });
    assert.deepEqual(await askAgent(path, "status"), { ready: true });
    await first.close();
  });

  it("survives garbage, an endless line and clients that go away", async () => {
    const path = newPath();
    const server = serverOf(path);
    await server.open();
    for (const bytes of ["\u0000\n", "{}\n", "[1]\n", "x".repeat(100_000), ""]) {
      await new Promise<void>((resolve) => {
        const socket = connect(path, () => (bytes === "" ? socket.destroy() : socket.write(bytes)));
        socket.resume();
        socket.on("error", () => undefined);
        socket.on("close", () => resolve());
      });
    }
    assert.deepEqual(await askAgent(path, "status"), { ready: true });
    await server.close();
  });

  it("gives up on an agent that does not answer", async () => {
    const path = newPath();
    const mute = createServer(() => undefined);
    await new Promise<void>((resolve) => mute.listen(path, () => resolve()));
    await assert.rejects(askAgent(path, "status", 50), isNotRunning);
    mute.close();
  });
});
