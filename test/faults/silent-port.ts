/**
 * A loopback port that answers nothing, not even the first packet of a connection, as an address
 * behind a network that is gone: connecting neither succeeds nor fails. It listens in a thread that
 * is asleep, with its queue of waiting connections full; the kernel then drops what comes.
 */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";

const listener = `
  const { createServer } = require("node:net");
  const { parentPort, workerData } = require("node:worker_threads");
  createServer().listen({ port: workerData, host: "127.0.0.1", backlog: 1 }, () => {
    parentPort.postMessage("listening");
    setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
  });`;

/** More waiting connections than this mean that the kernel does not keep to the queue's length. */
const queueMax = 64;
const connectsWithinMs = 200;

export interface SilentPort {
  /** Frees the port. */
  stop(): Promise<void>;
}

/** Resolves when the port, which must be free, is silent. */
export async function startSilentPort(port: number): Promise<SilentPort> {
  const worker = new Worker(listener, { eval: true, workerData: port });
  await once(worker, "message");
  const fillers: Socket[] = [];
  const stop = async (): Promise<void> => {
    for (const filler of fillers) filler.destroy();
    await worker.terminate();
  };
  for (let isFull = false; !isFull;) {
    if (fillers.length > queueMax) {
      await stop();
      throw new Error(`port ${port} still takes connections`);
    }
    const filler = connect({ port, host: "127.0.0.1" });
    filler.on("error", () => undefined);
    fillers.push(filler);
    const connected = once(filler, "connect").then(() => true);
    isFull = !(await Promise.race([connected, sleep(connectsWithinMs, false)]));
  }
  return { stop };
}
