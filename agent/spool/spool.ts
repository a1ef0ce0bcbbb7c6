/**
 * The spool: durable, ordered queues of events with the checkpoint that covers them, on local disk.
 *
 * Guarantees: an append that resolved was fsync'd, its events and its checkpoint in one atomic
 * batch (invariant 1). Records of a queue are numbered 1, 2, 3, ... without gaps; a record is
 * delivered only when version, checksum, key and number are right (invariant 8). Queues do not
 * affect one another (invariant 4). Everything is bounded (invariant 7). A write that fails ends
 * the spool: every later call rejects with that error, and the state has to be opened again.
 *
 * The caller owes: one process per state directory, `close` at the end, and reads that begin at or
 * after what was acknowledged.
 */
import type { Checkpoint, Seq, SpooledEvent } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock, Log } from "../kernel/service.ts";
import type {
  AppendBatch,
  QuarantineVerdict,
  QueueReader,
  QueueState,
  ReadLimits,
  SpoolObserver,
  SpoolStats,
  SpoolWriter,
} from "../ports.ts";
import { levelDatabase } from "./database.ts";
import type { Database } from "./database.ts";
import { Evidence } from "./evidence.ts";
import { FsyncTimes } from "./fsync-times.ts";
import { GroupCommit } from "./group-commit.ts";
import type { Group } from "./group-commit.ts";
import { IndexRoom } from "./index-room.ts";
import { abortError, Intake } from "./intake.ts";
import { freeBytes, IntakeGate, measureUsage } from "./limits.ts";
import type { SpoolLimits } from "./limits.ts";
import { MetaRoom } from "./meta-room.ts";
import { databasePath, openState, restoreQueues } from "./opening.ts";
import type { OpenedState } from "./opening.ts";
import { Quarantine } from "./quarantine.ts";
import { Queues } from "./queue.ts";
import { QueueRecords, refreshOldest } from "./reading.ts";
import { RecordEncoder } from "./record.ts";
import { spoolStats } from "./stats.ts";
import { cursorsKey, progressKey, queuesKey } from "./state.ts";
import type { CursorsRecord, ProgressRecord, QueuesRecord } from "./state.ts";
import { DELETES_PER_WRITE, Trim, trimTuning } from "./trim.ts";
import type { TrimTuning } from "./trim.ts";

export interface SpoolOptions {
  /** STATE_DIR. Made with mode 0700 when there is none. */
  readonly stateDir: string;
  readonly limits: SpoolLimits;
  /** SPOOL_SYNC_MIN_MS. */
  readonly syncMinMs: number;
  /** QUARANTINE_KEEP_DAYS. */
  readonly quarantineKeepDays: number;
  readonly observer: SpoolObserver;
  readonly log: Log;
  readonly clock: Clock;
  /** For tests: another database than LevelDB. */
  readonly database?: Database;
  /** For tests: when room is given back. */
  readonly tuning?: Partial<TrimTuning>;
}

/** Acknowledgements, trims and measurements happen this often. */
const TICK_MS = 200;
const PROGRESS_SYNC_MS = 1_000;
/** Others fill the volume too: its free space is looked at whenever so much was written. */
const FREE_LOOK_BYTES = 2 * 1024 * 1024;
const MEASURE_MS = 1_000;
const OLDEST_MS = 1_000;
const EXPIRE_MS = 60 * 60 * 1000;

export class Spool implements SpoolWriter, QueueReader {
  readonly meta: MetaRoom;
  readonly index: IndexRoom;
  readonly quarantined: Quarantine;
  readonly #options: SpoolOptions;
  readonly #database: Database;
  readonly #encoder = new RecordEncoder();
  readonly #queues = new Queues();
  readonly #evidence: Evidence;
  readonly #gate: IntakeGate;
  readonly #commit: GroupCommit;
  readonly #intake: Intake;
  readonly #records: QueueRecords;
  readonly #fsyncs = new FsyncTimes();
  readonly #listeners = new Set<(queues: readonly string[]) => void>();
  readonly #ending = new AbortController();
  readonly #failure = Promise.withResolvers<AgentError>();
  #trim: Trim | null = null;
  #ticking: Promise<void> | null = null;
  #failed: AgentError | null = null;
  #checkpoint: Checkpoint | null = null;
  #checkpointNumber = 0;
  #cursorsDirty = false;
  #lossesAtOpen: readonly string[] = [];
  #measuring: Promise<void> | null = null;
  #nextMeasureMs = 0;
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
      await spool.#start(await openState(options.stateDir, spool.#database, options));
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
    this.#evidence = new Evidence(options.stateDir);
    this.#records = new QueueRecords(this.#database, this.#evidence);
    this.#gate = new IntakeGate(options.limits, options.observer);
    this.#commit = new GroupCommit(this.#database, options, {
      beforeWrite: (group) => this.#beforeWrite(group),
      afterWrite: (group, seconds) => this.#afterWrite(group, seconds),
      failed: (error) => this.#fail(error),
    });
    const parts = {
      database: this.#database,
      commit: this.#commit,
      queues: this.#queues,
      encoder: this.#encoder,
      evidence: this.#evidence,
      gate: this.#gate,
    };
    this.index = new IndexRoom(this.#database, this.#encoder);
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
      pressed: () => void this.#measure(),
      progressed: (checkpoint, number) => this.#settle(checkpoint, number),
    });
  }

  checkpoint(): Checkpoint | null {
    return this.#checkpoint;
  }

  append(batch: AppendBatch, signal?: AbortSignal): Promise<void> {
    return this.#intake.append(batch, signal);
  }

  queues(): readonly QueueState[] {
    return this.#queues.all.map((queue) => ({
      queue: queue.name,
      acked: queue.acked,
      last: queue.durable,
    }));
  }

  async read(queue: string, after: Seq, limits: ReadLimits): Promise<SpooledEvent[]> {
    this.#assertUsable();
    const found = this.#queues.find(queue);
    if (found === null) return [];
    assert(after >= found.acked, "a read begins at or after what was acknowledged");
    return this.#records.read(found, after, limits);
  }

  ack(queue: string, through: Seq): void {
    const found = this.#queues.find(queue);
    assert(found !== null, "only a known queue is acknowledged");
    if (found.ack(through) > 0) this.#cursorsDirty = true;
  }

  async quarantine(event: SpooledEvent, verdict: QuarantineVerdict): Promise<void> {
    this.#assertUsable();
    await this.quarantined.add(event, verdict);
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
    await this.#measuring;
    await this.#commit.settled();
    if (this.#failed === null && (this.#cursorsDirty || this.#commit.holdsProgress)) {
      await this.#commit.durable().catch(() => undefined);
    }
    await this.#trim?.settled();
    await this.#database.close();
  }

  async #start(opened: OpenedState): Promise<void> {
    this.#lossesAtOpen = opened.lossesAtOpen;
    await restoreQueues(this.#queues, opened.state, {
      database: this.#database,
      evidence: this.#evidence,
    });
    this.#checkpoint = opened.state.progress?.checkpoint ?? null;
    await this.quarantined.load();
    this.#trim = new Trim(this.#database, this.#queues, {
      clock: this.#options.clock,
      tuning: { ...trimTuning, ...this.#options.tuning },
      uncompactedSinceMs: opened.state.cursors.uncompactedSinceMs,
      compacted: () => {
        this.#cursorsDirty = true;
        void this.#measure();
      },
      failed: (error) => this.#commit.fail(error),
    });
    await this.#measure();
    this.#ticking = this.#tickUntilEnd(this.#trim);
  }

  #assertUsable(): void {
    if (this.#failed !== null) throw this.#failed;
    if (this.#ending.signal.aborted) throw abortError("the spool was closed");
  }

  // --- writes ---------------------------------------------------------------------------------

  #beforeWrite(group: Group): void {
    if (this.#queues.namesChanged) {
      this.#queues.namesChanged = false;
      const record: QueuesRecord = { names: this.#queues.all.map(({ tag, name }) => [tag, name]) };
      group.batch.put(queuesKey, this.#encoder.json(queuesKey, record));
    }
    if (group.checkpoint !== null) this.#putProgress(group, group.checkpoint);
    if (this.#cursorsDirty || (this.#trim?.backlog ?? 0) > 0) this.#putCursors(group);
  }

  #putProgress(group: Group, checkpoint: Checkpoint): void {
    const record: ProgressRecord = {
      checkpoint,
      ends: this.#queues.all.map((queue) => [queue.tag, queue.lane, queue.assigned, queue.appendedBytes]),
    };
    const value = this.#encoder.json(progressKey, record);
    group.batch.put(progressKey, value);
    group.bytes += value.length;
  }

  #putCursors(group: Group): void {
    this.#trim?.addDeletes(group.batch);
    this.#cursorsDirty = false;
    const record: CursorsRecord = {
      acked: this.#queues.all.map(({ tag, lane, acked, ackedBytes }) => [tag, lane, acked, ackedBytes]),
      uncompactedSinceMs: this.#trim?.uncompactedSinceMs ?? null,
    };
    const value = this.#encoder.json(cursorsKey, record);
    group.batch.put(cursorsKey, value);
    group.bytes += value.length;
  }

  #afterWrite(group: Group, seconds: number): void {
    for (const [queue, last] of group.grown) queue.durable = last;
    this.#gate.wrote(group.bytes);
    if (this.#gate.unmeasuredFreeBytes >= FREE_LOOK_BYTES) void this.#measure();
    this.#intake.settled(group.batches);
    if (group.checkpoint !== null) this.#settle(group.checkpoint, group.checkpointNumber);
    if (group.sync) {
      this.#fsyncs.add(seconds);
      this.#options.observer.synced({ seconds, events: group.events, bytes: group.bytes });
    }
    if (group.grown.size > 0) {
      this.#trim?.worked();
      const names = Array.from(group.grown.keys(), (queue) => queue.name);
      for (const listener of this.#listeners) listener(names);
    }
    this.#intake.admit();
    if ((this.#trim?.backlog ?? 0) >= DELETES_PER_WRITE) this.#requestUpkeep();
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
  }

  #fail(error: AgentError): void {
    this.#failed = error;
    this.#intake.refuse(error);
    this.#failure.resolve(error);
  }

  // --- upkeep ---------------------------------------------------------------------------------

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
    if (this.#cursorsDirty || trim.backlog > 0) this.#requestUpkeep();
    if (this.#commit.holdsProgress && this.#commit.sinceSyncMs() >= PROGRESS_SYNC_MS) {
      await this.#commit.durable();
    }
    const pressed = this.#gate.closed !== null || this.#intake.waitingBatches > 0;
    if (pressed || (this.#gate.unmeasuredBytes > 0 && nowMs >= this.#nextMeasureMs)) {
      await this.#measure();
    }
    trim.compactIfDue(pressed);
    if (nowMs >= this.#nextOldestMs) {
      this.#nextOldestMs = nowMs + OLDEST_MS;
      await refreshOldest(this.#queues, this.#records);
    }
    if (nowMs >= this.#nextExpireMs) {
      this.#nextExpireMs = nowMs + EXPIRE_MS;
      const expired = await this.quarantined.expire();
      if (expired > 0) this.#options.log.notice("quarantined events expired", { expired });
    }
  }

  #measure(): Promise<void> {
    this.#measuring ??= this.#measureNow()
      .catch((cause: unknown) => {
        this.#commit.fail(new AgentError("SPOOL_IO", "The state directory cannot be measured.", { cause }));
      })
      .finally(() => {
        this.#measuring = null;
        this.#intake.admit();
      });
    return this.#measuring;
  }

  async #measureNow(): Promise<void> {
    const { clock, stateDir } = this.#options;
    const bytesBefore = this.#gate.unmeasuredBytes;
    const startMs = clock.monotonicMs();
    if (this.#gate.closed === null && this.#intake.waitingBatches === 0 && startMs < this.#nextMeasureMs) {
      this.#gate.freeMeasured(await freeBytes(stateDir));
      return;
    }
    const usage = await measureUsage(stateDir);
    this.#gate.measured(usage, bytesBefore, this.#intake.nextBytes);
    // Many tables take long to list: then it is done less often.
    const nowMs = clock.monotonicMs();
    this.#nextMeasureMs = nowMs + Math.max(MEASURE_MS, (nowMs - startMs) * 20);
  }
}
