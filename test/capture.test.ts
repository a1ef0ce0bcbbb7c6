import assert from "node:assert/strict";
import { test } from "node:test";
import { Capture } from "../agent/capture.ts";
import type { Checkpoint, OutboundEvent, SourceItem, TransactionPart } from "../agent/change.ts";
import { AgentError } from "../agent/kernel/errors.ts";
import { Metrics } from "../agent/observe/metrics.ts";
import { Observer } from "../agent/observe/observer.ts";
import { factsOf, LinesLog } from "./observe/facts.ts";
import { Changes, makeTransform, partOf } from "./transform/parts.ts";
import { sampleOf } from "./transform/rows.ts";
import { systemClock } from "../agent/kernel/service.ts";
import type {
  AppendBatch,
  CaptureObserver,
  ChangeSource,
  EncodeContext,
  EventEncoder,
} from "../agent/ports.ts";

const silent: CaptureObserver = { batchCaptured: () => undefined, commitSeen: () => undefined };

function checkpointAt(position: number, partial: Checkpoint["partial"] = null): Checkpoint {
  return {
    formatVersion: 2,
    epoch: 7,
    file: "bin.000001",
    position,
    resumePosition: position,
    gtidSet: null,
    serverId: 1,
    serverUuid: null,
    lastTransaction: null,
    partial,
    newestCommitMs: 0,
  };
}

function part(
  position: number,
  options: { firstOrdinal?: number; ordinal?: number; isLast?: boolean } = {},
): TransactionPart {
  const isLast = options.isLast ?? true;
  const start = { file: "bin.000001", position: 4 };
  const end = { file: "bin.000001", position };
  const partial = isLast ? null : { start, end, ordinal: options.ordinal ?? 1, events: 0, rolledBack: [] };
  return {
    kind: "transaction",
    start,
    end,
    gtid: null,
    serverId: 1,
    commitTimeMs: position,
    changes: [{ table: 0, kind: "insert", row: [position], old: null, imageIndex: 0, ordinal: 0 }],
    firstOrdinal: options.firstOrdinal ?? 0,
    isLast,
    checkpoint: checkpointAt(position, partial),
  };
}

function sourceOf(
  batches: readonly (readonly SourceItem[])[],
  onPull?: (index: number) => void,
): ChangeSource {
  return {
    async *batches(_after, signal) {
      for (const [index, batch] of batches.entries()) {
        if (signal.aborted) return;
        onPull?.(index);
        yield batch;
      }
    },
    status: () => ({ state: "streaming", reason: null, server: null, silentMs: 0, reconnects: 0 }),
  };
}

/** Makes one event a row, and remembers the contexts it was called with. */
class OneEventEach implements EventEncoder {
  readonly tables = [];
  readonly contexts: EncodeContext[] = [];

  encode(item: TransactionPart, context: EncodeContext): OutboundEvent[] {
    this.contexts.push(context);
    return item.changes.map(() => ({
      kind: "entity",
      queue: "q",
      lane: "live",
      topic: "q",
      table: "t",
      op: "c",
      id: `${item.end.position}`,
      entityKey: `${item.end.position}`,
      commitTimeMs: item.commitTimeMs,
      capturedAtMs: context.capturedAtMs,
      barrier: false,
      oversize: false,
      payload: Buffer.from('"x"'),
    }));
  }

  takeSuppressed(): number {
    return 0;
  }
}

function captureOf(
  source: ChangeSource,
  append: (batch: AppendBatch) => Promise<void>,
  start: Checkpoint | null = null,
) {
  const encoder = new OneEventEach();
  const spool = { checkpoint: () => start, append };
  return { encoder, capture: new Capture({ source, encoder, spool, observer: silent, clock: systemClock }) };
}

test("hands each batch's events and the checkpoint that covers them to one append (invariant 1)", async () => {
  const appended: AppendBatch[] = [];
  const { capture } = captureOf(sourceOf([[part(10), part(20)], [part(30)]]), async (batch) => {
    appended.push(batch);
  });
  await capture.run();
  assert.deepEqual(
    appended.map((batch) => [batch.events.map((event) => event.id), batch.checkpoint.position]),
    [
      [["10", "20"], 20],
      [["30"], 30],
    ],
  );
});

test("never has more than one append under way, and pulls at most one batch ahead of it (invariant 7)", async () => {
  let underWay = 0;
  let most = 0;
  let pulled = 0;
  let durable = 0;
  const batches = Array.from({ length: 20 }, (_, index) => [part((index + 1) * 10)]);
  const source = sourceOf(batches, (index) => {
    pulled = index + 1;
    assert.ok(pulled - durable <= 3, `pulled ${pulled} with ${durable} durable`);
  });
  const { capture } = captureOf(source, async () => {
    underWay += 1;
    most = Math.max(most, underWay);
    await systemClock.sleep(1);
    underWay -= 1;
    durable += 1;
  });
  await capture.run();
  assert.equal(most, 1);
  assert.equal(durable, 20);
});

test("counts the events of a transaction that comes in parts across batches and restarts", async () => {
  const appended: AppendBatch[] = [];
  const start = checkpointAt(4, {
    start: { file: "bin.000001", position: 4 },
    end: { file: "bin.000001", position: 90 },
    ordinal: 5,
    events: 5,
    rolledBack: [],
  });
  const source = sourceOf([
    [part(90, { firstOrdinal: 5, ordinal: 6, isLast: false })],
    [part(90, { firstOrdinal: 6 }), part(99)],
  ]);
  const { capture, encoder } = captureOf(
    source,
    async (batch) => {
      appended.push(batch);
    },
    start,
  );
  await capture.run();
  assert.deepEqual(
    encoder.contexts.map((context) => context.eventsBefore),
    [5, 6, 0],
  );
  assert.equal(appended[0]?.checkpoint.partial?.events, 6);
  assert.equal(appended[1]?.checkpoint.partial, null);
});

test("counts the events of a transaction anew that was half done and comes again from its start", async () => {
  const place = { file: "bin.000001", position: 4 };
  const start = checkpointAt(4, { start: place, end: place, ordinal: 5, events: 5, rolledBack: [] });
  const { capture, encoder } = captureOf(sourceOf([[part(90)]]), async () => undefined, start);
  await capture.run();
  assert.deepEqual(
    encoder.contexts.map((context) => context.eventsBefore),
    [0],
  );
});

test("ends with the spool's failure instead of reading on", async () => {
  let calls = 0;
  const { capture } = captureOf(sourceOf([[part(10)], [part(20)], [part(30)], [part(40)]]), async () => {
    calls += 1;
    throw new AgentError("SPOOL_IO", "fsync failed");
  });
  await assert.rejects(capture.run(), { code: "SPOOL_IO" });
  assert.equal(calls, 1);
});

test("moves the checkpoint for progress that made no events", async () => {
  const appended: AppendBatch[] = [];
  const progress: SourceItem = { kind: "progress", commitTimeMs: null, checkpoint: checkpointAt(500) };
  const { capture } = captureOf(sourceOf([[progress]]), async (batch) => {
    appended.push(batch);
  });
  await capture.run();
  assert.deepEqual(
    appended.map((batch) => [batch.events.length, batch.checkpoint.position]),
    [[0, 500]],
  );
});

test("stop waits for the append under way", async () => {
  let durable = false;
  const forever: ChangeSource = {
    async *batches(_after, signal) {
      yield [part(10)];
      await systemClock.sleep(60_000, signal);
    },
    status: () => ({ state: "streaming", reason: null, server: null, silentMs: 0, reconnects: 0 }),
  };
  const { capture } = captureOf(forever, async () => {
    await systemClock.sleep(30);
    durable = true;
  });
  const running = capture.run();
  await systemClock.sleep(5);
  await capture.stop();
  await running;
  assert.equal(durable, true);
});

test("counts as suppressed what touched no mapped field, not what was merged or changed its key", async () => {
  const transform = makeTransform();
  const { row } = sampleOf("order");
  const changes = new Changes(transform)
    // One event for three changes, two for one, none for the last.
    .insert("sales_order", row)
    .update("sales_order", row, { ...row, status: "complete" })
    .update("sales_order", { ...row, status: "complete" }, { ...row, status: "closed" })
    .update("sales_order", { ...row, entity_id: 7 }, { ...row, entity_id: 8 })
    .update("sales_order", { ...row, entity_id: 9 }, { ...row, entity_id: 9 });
  const metrics = new Metrics(async () => factsOf());
  const observer = new Observer(metrics, new LinesLog(), systemClock);
  const capture = new Capture({
    source: sourceOf([[partOf(changes.list)], [partOf([])]]),
    encoder: transform,
    spool: { checkpoint: () => null, append: async () => undefined },
    observer,
    clock: systemClock,
  });
  await capture.run();
  const text = await metrics.scrape();
  assert.match(text, /^edge_agent_rows_captured_total 5$/m);
  assert.match(text, /^edge_agent_events_captured_total 3$/m);
  assert.match(text, /^edge_agent_suppressed_total 1$/m);
});
