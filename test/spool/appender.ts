/**
 * Child of the crash test: appends numbered batches, says on stdout which are acknowledged, and
 * acknowledges half of what it reads, so that trims and compactions are under way when it is killed.
 */
import { batchOf } from "./batches.ts";
import { openSpool } from "./fixtures.ts";

async function main(stateDir: string): Promise<void> {
  const spool = await openSpool(stateDir, {
    tuning: { compactStepBytes: 200_000, compactIdleMs: 50, segmentBytes: 100_000 },
  });
  let position = spool.checkpoint()?.position ?? 0;
  process.stdout.write(`start ${position}\n`);
  const drain = async (): Promise<void> => {
    for (;;) {
      for (const { queue, lane, acked, last } of spool.queues()) {
        if (last - acked < 200) continue;
        const events = await spool.read(queue, acked, { maxEvents: 100, maxBytes: 1e6 }, lane);
        spool.ack(queue, acked + events.length, lane);
      }
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
  };
  const append = async (): Promise<void> => {
    for (;;) {
      position += 1;
      const number = position;
      const batch = batchOf(number);
      await spool.append(batch);
      // A checkpoint alone is not promised to be on disk at once.
      if (batch.events.length > 0) process.stdout.write(`acked ${number}\n`);
    }
  };
  // Three at a time: groups of several batches, in flight and waiting, when the end comes.
  await Promise.all([drain(), append(), append(), append()]);
}

await main(process.argv[2] ?? "");
