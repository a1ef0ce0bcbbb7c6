/**
 * `run --sink=stdout`: events as JSON lines. For a first look, without Dapr and without state: it
 * starts at the current end of the binlog or at START_POSITION, and remembers nothing.
 */
import { randomUUID } from "node:crypto";
import { makeTransform, sourceSettings } from "../room-settings.ts";
import { Capture } from "../capture.ts";
import type { Checkpoint, OutboundEvent } from "../change.ts";
import { databaseAddress, describeAddress } from "../config/derived.ts";
import type { Settings } from "../config/settings-table.ts";
import { type Log, systemClock } from "../kernel/service.ts";
import type { AgentFacts } from "../observe/facts.ts";
import { Metrics } from "../observe/metrics.ts";
import { Observer } from "../observe/observer.ts";
import type { AppendBatch, SpoolWriter } from "../ports.ts";
import { createBinlogSource } from "../source/binlog-source.ts";
import { loadMapping } from "./load-settings.ts";
import { catchSignals } from "./signals.ts";

/** Takes the place of the spool: an event counts as durable once the reader took it. */
class StdoutSink implements SpoolWriter {
  #checkpoint: Checkpoint | null = null;

  checkpoint(): Checkpoint | null {
    return this.#checkpoint;
  }

  async append(batch: AppendBatch): Promise<void> {
    if (batch.events.length > 0) {
      const lines = batch.events.map((event) => `${cloudEventText(event)}\n`).join("");
      await new Promise<void>((resolve) => process.stdout.write(lines, () => resolve()));
    }
    this.#checkpoint = batch.checkpoint;
  }
}

/** The event as a consumer sees it, on one line. */
export function cloudEventText(event: Pick<OutboundEvent, "payload">): string {
  const text: unknown = JSON.parse(event.payload.toString("utf8"));
  return typeof text === "string" ? text : JSON.stringify(text);
}

export async function runToStdout(settings: Settings, log: Log): Promise<number> {
  const signals = catchSignals(log);
  const transform = makeTransform(settings, loadMapping(settings), {
    instance: randomUUID(),
    schemaVersions: {},
  });
  const nobodyAsks = async (): Promise<AgentFacts> => {
    throw new Error("nobody scrapes a run that prints its events");
  };
  const observer = new Observer(new Metrics(nobodyAsks), log, systemClock);
  const source = createBinlogSource({
    settings: sourceSettings(settings),
    tables: transform.tables,
    observer,
    log,
    clock: systemClock,
  });
  const capture = new Capture({
    source,
    encoder: transform,
    spool: new StdoutSink(),
    observer,
    clock: systemClock,
  });
  try {
    await source.firstConnect();
    log.notice("printing events; nothing is kept", {
      shop: settings.shopName,
      database: settings.dbName,
      address: describeAddress(databaseAddress(settings)),
    });
    signals.stop.addEventListener("abort", () => void capture.stop(), { once: true });
    if (!signals.stop.aborted) await capture.run();
    return 0;
  } finally {
    await capture.stop();
    signals.release();
  }
}
