import { createServer } from "node:net";

// Below the range that the kernel hands to outgoing connections, so that no connection of a
// parallel test takes the port between the look and its use.
const firstPort = 15_000;
const lastPort = 32_000;
const handedOut = new Set<number>();

/** Loopback ports that nothing listens on; this process gets each of them once only. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  for (let tries = 0; ports.length < count; tries += 1) {
    if (tries > 1000) throw new Error("no free loopback port was found in 1000 tries");
    const port = firstPort + Math.floor(Math.random() * (lastPort - firstPort));
    if (handedOut.has(port) || !(await canListen(port))) continue;
    handedOut.add(port);
    ports.push(port);
  }
  return ports;
}

/** One such port. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  if (port === undefined) throw new Error("no free loopback port was found");
  return port;
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}
