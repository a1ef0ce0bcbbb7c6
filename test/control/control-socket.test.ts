import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { askAgent } from "../../agent/control/control-client.ts";
import { ControlServer } from "../../agent/control/control-server.ts";
import { textArgument } from "../../agent/control/protocol.ts";
import { AgentError, exitCodeOf } from "../../agent/kernel/errors.ts";
import { LinesLog } from "../observe/facts.ts";

const directory = mkdtempSync(join(tmpdir(), "mea-control-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let sockets = 0;

function serverOf(path: string, mode = 0o660, log = new LinesLog()): ControlServer {
  return new ControlServer({
    path,
    mode,
    audited: mode === 0o600,
    log,
    commands: {
      echo: async (args) => args,
      named: async (args) => textArgument(args, "name"),
      refuse: async () => {
        throw new AgentError("COMMAND_REFUSED", "not now", { hint: "later" });
      },
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
    assert.deepEqual(await askAgent(path, { command: "status" }), { ready: true });
    await server.close();
    assert.equal(statSync(path, { throwIfNoEntry: false }), undefined);
    await assert.rejects(askAgent(path, { command: "status" }), isNotRunning);
  });

  it("refuses what it does not know, and shows no detail of a failure", async () => {
    const path = newPath();
    const server = serverOf(path);
    await server.open();
    await assert.rejects(askAgent(path, { command: "drop" }), /no command "drop"/);
    await assert.rejects(askAgent(path, { command: "constructor" }), /no command/);
    await assert.rejects(askAgent(path, { command: "broken" }), (error: unknown) => {
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
    assert.deepEqual(await askAgent(path, { command: "status" }), { ready: true });
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
    assert.deepEqual(await askAgent(path, { command: "status" }), { ready: true });
    await server.close();
  });

  it("gives up on an agent that does not answer", async () => {
    const path = newPath();
    const mute = createServer(() => undefined);
    await new Promise<void>((resolve) => mute.listen(path, () => resolve()));
    await assert.rejects(askAgent(path, { command: "status", timeoutMs: 50 }), isNotRunning);
    mute.close();
  });

  it("hands arguments over, and a refusal with its code and its mend", async () => {
    const path = newPath();
    const server = serverOf(path);
    await server.open();
    const args = { id: "a", all: true, list: [1, 2] };
    assert.deepEqual(await askAgent(path, { command: "echo", args }), args);
    assert.deepEqual(await askAgent(path, { command: "echo" }), {});
    assert.equal(await askAgent(path, { command: "named", args: { name: "x" } }), "x");
    await assert.rejects(
      askAgent(path, { command: "named", args: { name: 7 } }),
      withCode("USAGE", /needs a text "name"/),
    );
    await assert.rejects(askAgent(path, { command: "refuse" }), (error: unknown) => {
      withCode("COMMAND_REFUSED", /^not now$/)(error);
      assert.ok(error instanceof AgentError);
      assert.equal(error.hint, "later");
      assert.equal(exitCodeOf(error), 1);
      return true;
    });
    await server.close();
  });
});

describe("the admin socket", () => {
  it("is open to its owner alone from its first moment, and logs each command", async () => {
    const path = newPath();
    const log = new LinesLog();
    const server = serverOf(path, 0o600, log);
    const umask = process.umask(0);
    try {
      // The file is there before `open` goes on to set its mode.
      const opened = server.open();
      while (statSync(path, { throwIfNoEntry: false }) === undefined) await setImmediate();
      assert.equal(statSync(path).mode & 0o777, 0o600);
      await opened;
      assert.equal(process.umask(), 0, "the umask of the process is as it was");
    } finally {
      process.umask(umask);
    }
    await askAgent(path, { command: "echo", args: { secret: "geheim" } });
    assert.ok(log.lines.some(({ level, fields }) => level === "notice" && fields["command"] === "echo"));
    assert.ok(!JSON.stringify(log.lines).includes("geheim"), "arguments are not logged");
    await server.close();
  });
});

/** For `assert.rejects`: the code, and what the message says. */
function withCode(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof AgentError);
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  };
}
