/**
 * The index room: small records beside the queues, changed in the same synced batch as the events
 * that they belong to (`AppendBatch.index`). A read sees what is on disk, not what an append still
 * has under way.
 *
 * Many records are removed by `removeStale`, a few at a time, while appends go on.
 */
import type { IndexChange } from "../ports.ts";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import { entriesOf, isCorruption } from "./database.ts";
import type { Database } from "./database.ts";
import type { Group, GroupCommit } from "./group-commit.ts";
import { indexKey, indexKeyBody, indexPrefix, MAX_INDEX_KEY_BYTES } from "./keys.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { openFrame } from "./record.ts";
import type { RecordEncoder } from "./record.ts";

/** Records that one step of `removeStale` looks at: a few milliseconds. */
const STEP_RECORDS = 1_000;

/** What a step of `removeStale` did. */
export interface SweepStep {
  /** Where the next step begins; null: it is done. */
  readonly next: Buffer | null;
  readonly removed: number;
  /** Of these, records whose content was damaged. */
  readonly damaged: number;
}

export class IndexRoom {
  readonly #database: Database;
  readonly #encoder: RecordEncoder;
  readonly #commit: GroupCommit;
  /** Keys that appends wrote since a step began; null while there is none. */
  #written: Set<string> | null = null;

  constructor(database: Database, encoder: RecordEncoder, commit: GroupCommit) {
    this.#database = database;
    this.#encoder = encoder;
    this.#commit = commit;
  }

  /** The value under the key, proven sound; null when there is none. */
  async get(key: Buffer): Promise<Buffer | null> {
    const full = indexKey(key);
    const value = await this.#database.get(full);
    return value === undefined ? null : sound(full, value);
  }

  /** Entries whose keys start with the prefix, in the order of their keys. */
  async *entries(prefix: Buffer): AsyncGenerator<{ readonly key: Buffer; readonly value: Buffer }> {
    for await (const [key, value] of entriesOf(this.#database, indexPrefix(prefix))) {
      yield { key: indexKeyBody(key), value: sound(key, value) };
    }
  }

  /**
   * Removes records with the prefix that are stale by their value, or damaged: one step, from `from`
   * on. What an append writes meanwhile stays. Its writes are not synced: what a crash loses of them
   * is found by the next one. One at a time.
   */
  async removeStale(
    prefix: Buffer,
    isStale: (value: Buffer) => boolean,
    from: Buffer | null,
  ): Promise<SweepStep> {
    assert(this.#written === null, "one step at a time");
    const written = new Set<string>();
    this.#written = written;
    try {
      // What was appended before is read below, and what comes from now on is known.
      await this.#commit.written();
      const { lte, gte } = indexPrefix(prefix);
      const range = { gte: from ?? gte, lte, limit: STEP_RECORDS };
      const stale: Buffer[] = [];
      let damaged = 0;
      let last: Buffer | null = null;
      let count = 0;
      for await (const [key, value] of entriesOf(this.#database, range)) {
        last = key;
        count += 1;
        const body = bodyOf(key, value);
        if (body === null) damaged += 1;
        if (body === null || isStale(body)) stale.push(key);
      }
      const { batch } = this.#commit.open();
      const removed = stale.filter((key) => !written.has(key.toString("latin1")));
      for (const key of removed) batch.del(key);
      if (removed.length > 0) await this.#commit.written();
      const next = count < STEP_RECORDS || last === null ? null : Buffer.concat([last, Buffer.alloc(1)]);
      return { next, removed: removed.length, damaged };
    } catch (cause) {
      if (!isCorruption(cause)) throw cause;
      const error = new AgentError("SPOOL_CORRUPT", "A table of the spool's index is damaged.", { cause });
      this.#commit.fail(error);
      throw error;
    } finally {
      this.#written = null;
    }
  }

  /** Adds the changes of an append to its group. */
  addTo(group: Group, changes: readonly IndexChange[]): void {
    for (const change of changes) {
      assert(change.key.length < MAX_INDEX_KEY_BYTES, "index keys are shorter than 16 KiB");
      const key = indexKey(change.key);
      group.bytes += key.length;
      this.#written?.add(key.toString("latin1"));
      if (change.value === null) {
        group.batch.del(key);
      } else {
        group.batch.put(key, this.#encoder.bytes(key, change.value));
        group.bytes += change.value.length;
      }
    }
  }
}

function sound(key: Buffer, value: Buffer): Buffer {
  try {
    return openFrame(key, value);
  } catch (cause) {
    if (!(cause instanceof DamagedRecord)) throw cause;
    throw new AgentError("SPOOL_CORRUPT", `A record of the spool's index is damaged: ${cause.damage}.`, {
      cause,
    });
  }
}

/** Null: damaged. */
function bodyOf(key: Buffer, value: Buffer): Buffer | null {
  try {
    return openFrame(key, value);
  } catch (error) {
    if (error instanceof DamagedRecord) return null;
    throw error;
  }
}
