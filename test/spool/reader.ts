/**
 * Child of the rot test: opens the spool and says so; once it is told to, it reads all that waits.
 * Ends with 0 when it could, with 3 when it met damage.
 */
import { once } from "node:events";
import { openSpool, readAll } from "./fixtures.ts";

async function main(stateDir: string): Promise<void> {
  const spool = await openSpool(stateDir);
  process.stdout.write("open\n");
  await once(process.stdin, "data");
  for (const { queue, lane } of spool.queues()) await readAll(spool, queue, lane);
  process.exit(spool.damages.all.length === 0 ? 0 : 3);
}

await main(process.argv[2] ?? "");
