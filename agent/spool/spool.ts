/**
 * The spool: durable, ordered queues of events with the checkpoint that covers them, on local disk.
 *
 * Guarantees: an append that resolved was fsync'd, its events and its checkpoint in one atomic
 * batch (invariant 1). Records of a queue are numbered 1, 2, 3, ... without gaps; a record is
 * delivered only when version, checksum, key and number are right (invariant 8). Queues, and the two
 * lanes of one, do not affect one another (invariant 4). Everything is bounded (invariant 7). A write that fails ends
 * the spool: every later call rejects with that error, and the state has to be opened again.
 *
 * The caller owes: one process per state directory, `close` at the end, and reads that begin at or
 * after what was acknowledged.
 */
import { STATE_FORMAT_VERSION } from "../change.ts";
import type { Checkpoint, Lane, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import type {
  AppendBatch,
  QuarantineVerdict,
  QueueReader,
  QueueState,
  ReadLimits,
  SpoolStats,
  SpoolWriter,
} from "../ports.ts";
import { levelDatabase } from "./database.ts";
import type { Database } from "./database.ts";
import { type Evidence, evidenceOf } from "./evidence.ts";
import { FsyncTimes } from "./fsync-times.ts";
import { GroupCommit } from "./group-commit.ts";
import type { Group } from "./group-commit.ts";
import { IndexRoom } from "./index-room.ts";
import { abortError, Intake } from "./intake.ts";
import { Damages } from "./damages.ts";
import { LiveVerify } from "./live-verify.ts";
import { IntakeGate } from "./limits.ts";
import { Marks } from "./marks.ts";
import { MarkerKeeper } from "./marker.ts";
import { MetaRoom } from "./meta-room.ts";
import { databasePath, noteClosed, noteRepair, openState } from "./opening.ts";
import type { OpenedState } from "./opening.ts";
import { Quarantine } from "./quarantine.ts";
import { Queues } from "./queue.ts";
import { QueueRecords, refreshOldest } from "./reading.ts";
import { RecordEncoder } from "./record.ts";
import type { SpoolOptions } from "./spool-options.ts";
import { Segments } from "./segments.ts";
import { queueState, spoolStats } from "./stats.ts";
import { StateWriter } from "./state-writer.ts";
import { DELETES_PER_WRITE, Trim } from "./trim.ts";
import { UsageWatch } from "./usage-watch.ts";

/** Acknowledgements, trims and measurements happen this often. */
const TICK_MS = 200;
const PROGRESS_SYNC_MS = 1_000;
const OLDEST_MS = 1_000;
const EXPIRE_MS = 60 * 60 * 1000;

export class Spool implements SpoolWriter, QueueReader {
  readonly meta: MetaRoom;
  readonly index: IndexRoom;
  readonly quarantined: Quarantine;
  /** Queues that cannot be read on, and how they are healed. */
  readonly damages: Damages;
  readonly #options: SpoolOptions;
  readonly #database: Database;
  readonly #encoder = new RecordEncoder();
  readonly #queues = new Queues();
  readonly #segments: Segments;
  readonly #evidence: Evidence;
  readonly #gate: IntakeGate;
  readonly #commit: GroupCommit;
  readonly #intake: Intake;
  readonly #records: QueueRecords;
  readonly #marks: Marks;
  readonly #state: StateWriter;
  readonly #usage: UsageWatch;
  readonly #marker: MarkerKeeper;
  readonly #fsyncs = new FsyncTimes();
  readonly #listeners = new Set<(queues: readonly string[]) => void>();
  readonly #ending = new AbortController();
  readonly #failure = Promise.withResolvers<AgentError>();
  #trim: Trim | null = null;
  #ticking: Promise<void> | null = null;
  #failed: AgentError | null = null;
  #checkpoint: Checkpoint | null = null;
  #checkpointNumber = 0;
  #stateId = 0;
  #lossesAtOpen: readonly string[] = [];
  #healedAtOpen: OpenedState["healed"] = null;
  #nextOldestMs = 0;
  #nextExpireMs = 0;

  /**
   * Opens the state directory and verifies it. Sets the umask of the process to 077: LevelDB makes
   * its files whenever it likes, and they hold personal data.
   *
   * Throws SPOOL_LOCKED, SPOOL_FORMAT, SPOOL_CORRUPT or SPOOL_IO.
   */
  static async open(options: SpoolOptions): Promise<Spool> {
    process.umask(0o077);
    const spool = new Spool(options);
    try {
      const own = { database: spool.#database, queues: spool.#queues, segments: spool.#segments };
      const hasFiles = options.database === undefined;
      await spool.#start(await openState({ ...options, ...own, evidence: spool.#evidence, hasFiles }));
      return spool;
    } catch (error) {
      // Releases the lock, so that another command can look at the directory.
      await spool.#database.close().catch(() => undefined);
      throw error;
    }
  }

  private constructor(options: SpoolOptions) {
    this.#options = options;
    this.#database =
      options.database ?? levelDatabase(databasePath(options.stateDir), { createIfMissing: true });
    this.#segments = new Segments(() => this.#queues.pendingBytes(), options.tuning ?? {});
    this.#evidence = evidenceOf(options);
    this.#records = new QueueRecords(this.#database, this.#evidence);
    this.#gate = new IntakeGate(options.limits, options.observer);
    this.#commit = new GroupCommit(this.#database, options, {
      beforeWrite: (group) => this.#state.addTo(group),
      afterWrite: (group, seconds) => this.#afterWrite(group, seconds),
      failed: (error) => this.#fail(error),
    });
    const parts = {
      database: this.#database,
      commit: this.#commit,
      queues: this.#queues,
      segments: this.#segments,
      encoder: this.#encoder,
      evidence: this.#evidence,
      gate: this.#gate,
    };
    this.index = new IndexRoom(this.#database, this.#encoder, this.#commit);
    this.meta = new MetaRoom(this.#database, this.#commit, this.#encoder);
    this.quarantined = new Quarantine({
      ...parts,
      clock: options.clock,
      log: options.log,
      keepDays: options.quarantineKeepDays,
      shrank: () => this.#trim?.quarantineShrank(),
    });
    this.#intake = new Intake({
      ...parts,
      index: this.index,
      pressed: () => void this.#usage.measure(),
      isFirst: () => this.#checkpoint === null,
      progressed: (checkpoint, number) => this.#settle(checkpoint, number),
    });
    this.#marks = new Marks(this.#queues, options.tuning ?? {});
    this.#state = new StateWriter({
      ...parts,
      marks: this.#marks,
      clock: options.clock,
      stateId: () => this.#stateId,
      trim: () => this.#trim,
    });
    this.#usage = this.#watchUsage();
    this.#marker = this.#keepMarker();
    this.damages = new Damages({
      ...parts,
      records: this.#records,
      marks: this.#marks,
      intake: this.#intake,
      log: options.log,
      checkpoint: () => this.#checkpoint,
      healed: (queue) => this.#tellGrown([queue.name]),
    });
  }

  #watchUsage(): UsageWatch {
    const options = this.#options;
    return new UsageWatch({
      gate: this.#gate,
      stateDir: options.stateDir,
      clock: options.clock,
      waiting: () => ({ batches: this.#intake.waitingBatches, nextBytes: this.#intake.nextBytes }),
      failed: (cause) =>
        this.#commit.fail(new AgentError("SPOOL_IO", "The state directory cannot be measured.", { cause })),
      measured: () => this.#intake.admit(),
    });
  }

  #keepMarker(): MarkerKeeper {
    const options = this.#options;
    return new MarkerKeeper({
      ...options,
      current: () => ({
        formatVersion: STATE_FORMAT_VERSION,
        createdMs: this.#stateId,
        epoch: this.#checkpoint?.epoch ?? 0,
        checkpoint: this.#marks.safe()?.checkpoint ?? null,
        names: this.#queues.all.map(({ tag, lane, name }) => [tag, lane, name]),
        values: this.meta.values,
      }),
    });
  }

  /** What had to be done to the database when it was opened. */
  get healedAtOpen(): OpenedState["healed"] {
    return this.#healedAtOpen;
  }

  checkpoint(): Checkpoint | null {
    return this.#checkpoint;
  }

  append(batch: AppendBatch, signal?: AbortSignal): Promise<void> {
    return this.#intake.append(batch, signal);
  }

  queues(): readonly QueueState[] {
    return this.#queues.all.map(queueState);
  }

  async read(queue: string, after: Seq, limits: ReadLimits, lane: Lane = "live"): Promise<SpooledEvent[]> {
    this.#assertUsable();
    const found = this.#queues.find(queue, lane);
    if (found === null) return [];
    assert(after >= found.acked, "a read begins at or after what was acknowledged");
    try {
      return await this.#records.read(found, after, limits);
    } catch (error) {
      if (!(error instanceof AgentError) || error.code !== "SPOOL_CORRUPT") throw error;
      // What was acknowledged during the read may be deleted already; that is no damage.
      if (found.acked > after) return [];
      this.damages.found(found, after + 1, error.message);
      return [];
    }
  }

  ack(queue: string, through: Seq, lane: Lane = "live"): void {
    const found = this.#queues.find(queue, lane);
    assert(found !== null, "only a known queue is acknowledged");
    if (found.ack(through) > 0) this.#state.cursorsDirty = true;
  }

  async quarantine(event: SpooledEvent, verdict: QuarantineVerdict): Promise<void> {
    this.#assertUsable();
    await this.quarantined.add(event, verdict);
  }

  /** A proof of all that is stored, beside the work. The caller runs it, one at a time. */
  proof(): LiveVerify {
    const own = { database: this.#database, queues: this.#queues, signal: this.#ending.signal };
    return new LiveVerify({ ...this.#options, ...own });
  }

  onAppended(listener: (queues: readonly string[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves with the error that ended the spool; never, while it works. */
  whenFailed(): Promise<AgentError> {
    return this.#failure.promise;
  }

  /** Cheap: from memory. Sizes are estimates between measurements. */
  stats(): SpoolStats {
    return spoolStats({
      queues: this.#queues,
      gate: this.#gate,
      limits: this.#options.limits,
      fsyncs: this.#fsyncs,
      failed: this.#failed !== null,
      waitingBatches: this.#intake.waitingBatches,
      quarantined: this.quarantined.count,
      lossesAtOpen: this.#lossesAtOpen.length,
    });
  }

  /**
   * Rejects what waits for room with an AbortError, writes what was taken and the cursors, and
   * releases the directory. Idempotent.
   */
  async close(): Promise<void> {
    if (this.#ending.signal.aborted) return this.#database.close();
    this.#ending.abort();
    this.#intake.refuse(abortError("the spool was closed"));
    await this.#ticking;
    await this.#usage.settled();
    await this.#commit.settled();
    if (this.#failed === null && (this.#state.cursorsDirty || this.#commit.holdsProgress)) {
      await this.#commit.durable().catch(() => undefined);
    }
    await this.#trim?.settled();
    await this.#database.close();
    if (this.#failed === null) await noteClosed(this.#options.stateDir);
  }

  async #start(opened: OpenedState): Promise<void> {
    this.#lossesAtOpen = opened.lossesAtOpen;
    this.#healedAtOpen = opened.healed;
    this.#stateId = opened.format.createdMs;
    this.#checkpoint = opened.progress?.checkpoint ?? null;
    this.#marker.restore(opened.asked, this.#checkpoint);
    this.#marks.restore(opened.marks);
    for (const { queue, seq, what } of opened.damages) this.damages.found(queue, seq, what);
    await this.meta.load(opened.values, this.#options.log);
    await this.quarantined.load();
    const spaces = { queues: this.#queues, segments: this.#segments };
    this.#trim = new Trim(this.#database, spaces, {
      ...this.#options,
      compacted: () => {
        this.#state.cursorsDirty = true;
        void this.#usage.measure();
      },
      failed: (error) => this.#commit.fail(error),
    });
    this.#trim.restore(opened.cursors.uncompactedSinceMs);
    await this.#usage.measure();
    this.#ticking = this.#tickUntilEnd(this.#trim);
  }

  #assertUsable(): void {
    if (this.#failed !== null) throw this.#failed;
    if (this.#ending.signal.aborted) throw abortError("the spool was closed");
  }

  #afterWrite(group: Group, seconds: number): void {
    for (const [queue, last] of group.grown) queue.durable = last;
    this.#gate.wrote(group.bytes);
    this.#marks.wrote(group.bytes);
    this.#usage.wrote();
    this.#intake.settled(group.batches);
    if (group.checkpoint !== null) this.#settle(group.checkpoint, group.checkpointNumber);
    if (group.sync) {
      this.#fsyncs.add(seconds);
      this.#options.observer.synced({ seconds, events: group.events, bytes: group.bytes });
    }
    if (group.grown.size > 0) {
      this.#trim?.worked();
      this.#tellGrown(Array.from(group.grown.keys(), (queue) => queue.name));
    }
    this.#intake.admit();
    if ((this.#trim?.backlog ?? 0) >= DELETES_PER_WRITE) this.#requestUpkeep();
  }

  #tellGrown(names: readonly string[]): void {
    for (const listener of this.#listeners) listener(names);
  }

  /** A write of cursors and deletes alone; not synced: what it loses is done again. */
  #requestUpkeep(): void {
    this.#commit.open();
    this.#commit.request();
  }

  #settle(checkpoint: Checkpoint, number: number): void {
    if (number <= this.#checkpointNumber) return;
    this.#checkpoint = checkpoint;
    this.#checkpointNumber = number;
    this.#marker.note(checkpoint);
  }

  #fail(error: AgentError): void {
    this.#failed = error;
    if (error.code === "SPOOL_CORRUPT") noteRepair(this.#options.stateDir);
    this.#intake.refuse(error);
    this.#failure.resolve(error);
  }

  async #tickUntilEnd(trim: Trim): Promise<void> {
    const { clock } = this.#options;
    for (;;) {
      await clock.sleep(TICK_MS, this.#ending.signal);
      if (this.#ending.signal.aborted || this.#failed !== null) return;
      try {
        await this.#tick(trim, clock.monotonicMs());
      } catch (error) {
        this.#commit.fail(error);
      }
    }
  }

  async #tick(trim: Trim, nowMs: number): Promise<void> {
    if (this.#state.cursorsDirty || trim.backlog > 0) this.#requestUpkeep();
    if (this.#commit.holdsProgress && this.#commit.sinceSyncMs() >= PROGRESS_SYNC_MS) {
      await this.#commit.durable();
    }
    const pressed = this.#gate.closed !== null || this.#intake.waitingBatches > 0;
    await this.#usage.tick(pressed);
    trim.compactIfDue(pressed);
    await this.#marker.tick();
    if (nowMs >= this.#nextOldestMs) {
      this.#nextOldestMs = nowMs + OLDEST_MS;
      await refreshOldest(this.#queues, this.#records);
    }
    if (nowMs >= this.#nextExpireMs) {
      this.#nextExpireMs = nowMs + EXPIRE_MS;
      const expired = await this.quarantined.expire();
      await this.#evidence.tidy();
      if (expired > 0) this.#options.log.notice("quarantined events expired", { expired });
    }
  }
}
