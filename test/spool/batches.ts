/** Batches that are functions of their number. */
import type { OutboundEvent } from "../../agent/change.ts";
import type { AppendBatch } from "../../agent/ports.ts";
import { checkpoint, event, randomOf } from "./fixtures.ts";

export const QUEUES = ["a", "b", "c"] as const;

export function batchOf(number: number): AppendBatch {
  const random = randomOf(number);
  const events = Array.from({ length: Math.floor(random() * 12) }, (_, at): OutboundEvent => {
    const queue = QUEUES[Math.floor(random() * QUEUES.length)] ?? "a";
    const lane = random() < 0.3 ? "bulk" : "live";
    const bytes = Math.floor(random() * 3000);
    return event(number, { id: `${number}-${at}`, queue, lane, payload: Buffer.alloc(bytes, number & 0xff) });
  });
  return { events, checkpoint: checkpoint(number) };
}
