import { createServer, type Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Runs `work` while no other process on this machine runs work under the same name: parallel test
 * files must not install or build the same thing twice. The lock is a name in Linux's abstract
 * socket namespace, which the kernel gives free when its holder ends, however it ends.
 */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  let lock = await tryTake(name);
  while (lock === null) {
    await sleep(100);
    lock = await tryTake(name);
  }
  try {
    return await work();
  } finally {
    const held = lock;
    await new Promise((resolve) => held.close(resolve));
  }
}

function tryTake(name: string): Promise<Server | null> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(null);
      else reject(error);
    });
    server.listen(`\0magento-edge-agent-${name}`, () => resolve(server));
  });
}
