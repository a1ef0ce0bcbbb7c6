import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { DgramSocket } from "node-unix-socket";
import { systemClock } from "../../agent/kernel/service.ts";
import { SystemdNotify, type SystemdNotifyOptions } from "../../agent/observe/systemd-notify.ts";
import { FakeClock, LinesLog } from "./facts.ts";

const directory = mkdtempSync(join(tmpdir(), "mea-notify-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let sockets = 0;

/** A stand-in for systemd's end of the socket. */
class Receiver {
  readonly path = join(directory, `notify-${sockets++}.sock`);
  readonly messages: string[] = [];
  readonly #socket = new DgramSocket();

  constructor() {
    this.#socket.on("data", (bytes: Buffer) => this.messages.push(bytes.toString()));
    this.#socket.bind(this.path);
  }

  async until(count: number): Promise<void> {
    const deadline = Date.now() + 5000;
    while (this.messages.length < count) {
      assert.ok(Date.now() < deadline, `got ${JSON.stringify(this.messages)}, waited for ${count}`);
      await systemClock.sleep(5);
    }
  }

  close(): void {
    this.#socket.close();
  }
}

function notifyOf(changed: Partial<SystemdNotifyOptions>): SystemdNotify {
  const base = {
    socketPath: null,
    watchdogUsec: null,
    watchdogPid: null,
    clock: systemClock,
    log: new LinesLog(),
  };
  return new SystemdNotify({ ...base, ...changed });
}

describe("notifying systemd", () => {
  it("sends READY, STATUS, EXTEND_TIMEOUT, RELOADING and STOPPING as datagrams of their own", async () => {
    const receiver = new Receiver();
    const notify = notifyOf({ socketPath: receiver.path });
    notify.extendTimeout(1500);
    notify.ready();
    notify.status("one\nline");
    notify.reloading();
    notify.stopping();
    await receiver.until(5);
    const [extend, ready, status, reloading, stopping] = receiver.messages;
    assert.equal(extend, "EXTEND_TIMEOUT_USEC=1500000");
    assert.equal(ready, "READY=1");
    assert.equal(status, "STATUS=one line");
    assert.match(reloading ?? "", /^RELOADING=1\nMONOTONIC_USEC=[0-9]+$/);
    assert.equal(stopping, "STOPPING=1");
    await notify.close();
    receiver.close();
  });

  it("sends a status at most every ten seconds", async () => {
    const receiver = new Receiver();
    const clock = new FakeClock();
    const notify = notifyOf({ socketPath: receiver.path, clock });
    notify.status("first");
    clock.nowMs += 9000;
    notify.status("left out");
    clock.nowMs += 1000;
    notify.status("second");
    await receiver.until(2);
    assert.deepEqual(receiver.messages, ["STATUS=first", "STATUS=second"]);
    await notify.close();
    receiver.close();
  });

  it("feeds the watchdog three times in a period, and only while the loops make progress", async () => {
    const receiver = new Receiver();
    let live = true;
    const notify = notifyOf({ socketPath: receiver.path, watchdogUsec: 60_000, watchdogPid: process.pid });
    notify.startWatchdog(() => live);
    await receiver.until(4);
    live = false;
    await systemClock.sleep(50);
    const before = receiver.messages.length;
    await systemClock.sleep(120);
    assert.equal(receiver.messages.length, before);
    assert.ok(receiver.messages.every((message) => message === "WATCHDOG=1"));
    await notify.close();
    receiver.close();
  });

  it("leaves another process's watchdog alone", async () => {
    const receiver = new Receiver();
    const notify = notifyOf({
      socketPath: receiver.path,
      watchdogUsec: 30_000,
      watchdogPid: process.pid + 1,
    });
    notify.startWatchdog(() => true);
    await systemClock.sleep(60);
    assert.deepEqual(receiver.messages, []);
    await notify.close();
    receiver.close();
  });

  it("does nothing without a socket", async () => {
    const log = new LinesLog();
    const notify = notifyOf({ log });
    notify.ready();
    notify.startWatchdog(() => true);
    await notify.close();
    assert.equal(log.lines.length, 0);
  });

  it("says once that the socket cannot be used, and goes on", async () => {
    for (const socketPath of [join(directory, "nobody.sock"), "@abstract"]) {
      const log = new LinesLog();
      const notify = notifyOf({ socketPath, log });
      notify.ready();
      await systemClock.sleep(30);
      notify.stopping();
      await systemClock.sleep(30);
      assert.equal(log.lines.length, 1, socketPath);
      await notify.close();
    }
  });
});
