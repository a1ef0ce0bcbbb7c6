/**
 * One write at a time, in order: while one runs, everything that comes is collected into the next
 * group. All writes of the spool go through here, so that the order of the meta records on disk is
 * the order in which they were made.
 */
import type { Checkpoint } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock } from "../kernel/service.ts";
import { isCorruption } from "./database.ts";
import type { Database, WriteBatch } from "./database.ts";
import type { Queue } from "./queue.ts";

/** What one write to disk will hold. */
export class Group {
  readonly batch: WriteBatch;
  readonly waiters: PromiseWithResolvers<void>[] = [];
  /** Queues that grow by this group, with the last record of each. */
  readonly grown = new Map<Queue, number>();
  /** Appends whose content is in this group. */
  batches = 0;
  events = 0;
  bytes = 0;
  /** Whether it must reach the disk itself, and not only the operating system. */
  sync = false;
  /** Newest checkpoint whose events are in this group or before it, and its number. */
  checkpoint: Checkpoint | null = null;
  checkpointNumber = 0;
  /** Whether the marks changed and belong into it. */
  marks = false;

  constructor(batch: WriteBatch) {
    this.batch = batch;
  }
}

export interface GroupCommitHooks {
  /** Last chance to add to a group before it is written. */
  beforeWrite(group: Group): void;
  /** The group is written, and on disk if it asked for that. */
  afterWrite(group: Group, seconds: number): void;
  /** A write failed: nothing is known about the state of the disk any more. */
  failed(error: AgentError): void;
}

export class GroupCommit {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #syncMinMs: number;
  readonly #hooks: GroupCommitHooks;
  #open: Group | null = null;
  #writing = false;
  #requested = false;
  #pausing = false;
  #error: AgentError | null = null;
  #lastSyncMs = -Infinity;
  #idle: PromiseWithResolvers<void> | null = null;

  constructor(
    database: Database,
    options: { readonly clock: Clock; readonly syncMinMs: number },
    hooks: GroupCommitHooks,
  ) {
    this.#database = database;
    this.#clock = options.clock;
    this.#syncMinMs = options.syncMinMs;
    this.#hooks = hooks;
  }

  /** Bytes of the group that is being collected. */
  get openBytes(): number {
    return this.#open?.bytes ?? 0;
  }

  /** Whether a checkpoint waits for a write that nobody asked for yet. */
  get holdsProgress(): boolean {
    return this.#open !== null && this.#open.checkpoint !== null;
  }

  /** The group that is being collected; it is written only after `request`. */
  open(): Group {
    this.#open ??= new Group(this.#database.batch());
    return this.#open;
  }

  /** Milliseconds since the last write that was synced began. */
  sinceSyncMs(): number {
    return this.#clock.monotonicMs() - this.#lastSyncMs;
  }

  /** Writes the open group as soon as may be. */
  request(): void {
    this.#requested = true;
    this.#pump();
  }

  /** Writes the open group durably; resolves when it is on disk. */
  durable(): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    const group = this.open();
    const waiter = Promise.withResolvers<void>();
    group.sync = true;
    group.waiters.push(waiter);
    this.request();
    return waiter.promise;
  }

  /** Resolves when all that was added so far is written, synced or not. */
  written(): Promise<void> {
    if (this.#error !== null) return Promise.reject(this.#error);
    const waiter = Promise.withResolvers<void>();
    this.open().waiters.push(waiter);
    this.request();
    return waiter.promise;
  }

  /** Resolves when nothing is being written and nothing was asked for. */
  async settled(): Promise<void> {
    while (this.#error === null && (this.#writing || this.#requested)) {
      this.#idle ??= Promise.withResolvers<void>();
      await this.#idle.promise;
    }
  }

  #pump(): void {
    const group = this.#open;
    if (this.#writing || this.#pausing || !this.#requested || this.#error !== null) return;
    if (group === null) {
      this.#requested = false;
      return;
    }
    const pauseMs = group.sync ? this.#syncMinMs - this.sinceSyncMs() : 0;
    if (pauseMs > 0) {
      void this.#pause(pauseMs);
      return;
    }
    this.#requested = false;
    this.#open = null;
    void this.#write(group);
  }

  async #pause(pauseMs: number): Promise<void> {
    this.#pausing = true;
    await this.#clock.sleep(pauseMs);
    this.#pausing = false;
    this.#pump();
  }

  async #write(group: Group): Promise<void> {
    this.#writing = true;
    try {
      this.#hooks.beforeWrite(group);
      const startMs = this.#clock.monotonicMs();
      if (group.sync) this.#lastSyncMs = startMs;
      await writeBatch(group);
      this.#writing = false;
      this.#hooks.afterWrite(group, (this.#clock.monotonicMs() - startMs) / 1000);
      for (const waiter of group.waiters) waiter.resolve();
    } catch (error) {
      this.#writing = false;
      for (const waiter of group.waiters) waiter.reject(error);
      this.fail(error);
    }
    this.#wakeIdle();
    this.#pump();
  }

  /**
   * Ends all writing; what is under way or collected is rejected. After a failed fsync the kernel
   * may have dropped dirty pages: only a fresh read tells what is on disk.
   */
  fail(cause: unknown): void {
    if (this.#error !== null) return;
    const error =
      cause instanceof AgentError ? cause : new AgentError("BUG", "The spool failed by itself.", { cause });
    this.#error = error;
    for (const waiter of this.#open?.waiters ?? []) waiter.reject(error);
    this.#open = null;
    this.#wakeIdle();
    this.#hooks.failed(error);
  }

  #wakeIdle(): void {
    this.#idle?.resolve();
    this.#idle = null;
  }
}

async function writeBatch(group: Group): Promise<void> {
  try {
    await group.batch.write({ sync: group.sync });
  } catch (cause) {
    // A compaction that cannot read a table fails every write after it.
    if (isCorruption(cause)) {
      throw new AgentError("SPOOL_CORRUPT", "A table of the spool's database is damaged.", { cause });
    }
    throw new AgentError("SPOOL_IO", "A write of the spool failed.", { cause });
  }
}
