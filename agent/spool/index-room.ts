/**
 * The index room: small records beside the queues, changed in the same synced batch as the events
 * that they belong to (`AppendBatch.index`). A read sees what is on disk, not what an append still
 * has under way.
 */
import type { IndexChange } from "../ports.ts";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import { entriesOf } from "./database.ts";
import type { Database } from "./database.ts";
import type { Group } from "./group-commit.ts";
import { indexKey, indexKeyBody, indexPrefix, MAX_INDEX_KEY_BYTES } from "./keys.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { openFrame } from "./record.ts";
import type { RecordEncoder } from "./record.ts";

export class IndexRoom {
  readonly #database: Database;
  readonly #encoder: RecordEncoder;

  constructor(database: Database, encoder: RecordEncoder) {
    this.#database = database;
    this.#encoder = encoder;
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

  /** Adds the changes of an append to its group. */
  addTo(group: Group, changes: readonly IndexChange[]): void {
    for (const change of changes) {
      assert(change.key.length < MAX_INDEX_KEY_BYTES, "index keys are shorter than 1 KiB");
      const key = indexKey(change.key);
      group.bytes += key.length;
      if (change.value === null) {
        group.batch.del(key);
      } else {
        group.batch.put(key, this.#encoder.bytes(key, change.value));
        group.bytes += change.value.length;
      }
    }
  }
}

/**
 * Key made of parts, each with its length before it: no part's content can look like another's
 * end. The parts of a parent are a prefix of the keys of its children.
 */
export function compositeKey(parts: readonly string[]): Buffer {
  const pieces: Buffer[] = [];
  for (const part of parts) {
    const bytes = Buffer.from(part);
    const length = Buffer.allocUnsafe(2);
    length.writeUInt16BE(bytes.length);
    pieces.push(length, bytes);
  }
  return Buffer.concat(pieces);
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
