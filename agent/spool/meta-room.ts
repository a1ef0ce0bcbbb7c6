/**
 * Small JSON values of the agent itself: identity, schema versions, fingerprint of the mapping.
 * Checked like every record.
 */
import { AgentError } from "../kernel/errors.ts";
import type { Database } from "./database.ts";
import type { GroupCommit } from "./group-commit.ts";
import { metaKey } from "./keys.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { decodeJson } from "./record.ts";
import type { RecordEncoder } from "./record.ts";

export class MetaRoom {
  readonly #database: Database;
  readonly #commit: GroupCommit;
  readonly #encoder: RecordEncoder;

  constructor(database: Database, commit: GroupCommit, encoder: RecordEncoder) {
    this.#database = database;
    this.#commit = commit;
    this.#encoder = encoder;
  }

  /** The value, proven sound; undefined when there is none. The caller checks its shape. */
  async get(name: string): Promise<unknown> {
    const key = agentKey(name);
    const value = await this.#database.get(key);
    if (value === undefined) return undefined;
    try {
      return JSON.parse(decodeJson(key, value));
    } catch (cause) {
      if (!(cause instanceof DamagedRecord)) throw cause;
      throw new AgentError("SPOOL_CORRUPT", `The state's record "${name}" is damaged: ${cause.damage}.`, {
        cause,
      });
    }
  }

  /** Durable when it resolves. `value` is anything that JSON can hold. */
  async put(name: string, value: unknown): Promise<void> {
    const key = agentKey(name);
    this.#commit.open().batch.put(key, this.#encoder.json(key, value));
    await this.#commit.durable();
  }
}

/** Apart from the spool's own meta records. */
function agentKey(name: string): Buffer {
  return metaKey(`agent/${name}`);
}
