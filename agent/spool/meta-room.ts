/**
 * Small JSON values of the agent itself: identity, schema versions, fingerprint of the mapping.
 * Checked like every record.
 */
import { AgentError } from "../kernel/errors.ts";
import type { Log } from "../kernel/service.ts";
import { entriesOf } from "./database.ts";
import type { Database } from "./database.ts";
import type { GroupCommit } from "./group-commit.ts";
import { metaKey, metaName, metaPrefix } from "./keys.ts";
import { DamagedRecord } from "./damaged-record.ts";
import { decodeJson } from "./record.ts";
import type { RecordEncoder } from "./record.ts";

export class MetaRoom {
  readonly #database: Database;
  readonly #commit: GroupCommit;
  readonly #encoder: RecordEncoder;
  /** Replaced at every change, so that whoever keeps a copy sees one. */
  #values: Readonly<Record<string, unknown>> = {};

  constructor(database: Database, commit: GroupCommit, encoder: RecordEncoder) {
    this.#database = database;
    this.#commit = commit;
    this.#encoder = encoder;
  }

  /** All values: another object after each change. */
  get values(): Readonly<Record<string, unknown>> {
    return this.#values;
  }

  /**
   * Reads all values. One that is damaged or missing is taken from the copy, and written again.
   * Throws STATE_LOST when the copy has none either.
   */
  async load(copy: Readonly<Record<string, unknown>>, log: Log): Promise<void> {
    const sound: Record<string, unknown> = {};
    const damaged = new Set<string>();
    for await (const [key, value] of entriesOf(this.#database, metaPrefix(AGENT))) {
      const name = metaName(key).slice(AGENT.length);
      try {
        sound[name] = JSON.parse(decodeJson(key, value));
      } catch (cause) {
        if (!(cause instanceof DamagedRecord)) throw cause;
        damaged.add(name);
      }
    }
    this.#values = sound;
    for (const [name, value] of Object.entries(copy)) {
      if (Object.hasOwn(sound, name)) continue;
      log.warn("a value of the state was damaged or missing, and is taken from the marker", { name });
      await this.put(name, value);
      damaged.delete(name);
    }
    const [lost] = damaged;
    if (lost !== undefined) throw new AgentError("STATE_LOST", `The state's value "${lost}" is damaged.`);
  }

  /** The value; undefined when there is none. The caller checks its shape. */
  get(name: string): Promise<unknown> {
    return Promise.resolve(Object.hasOwn(this.#values, name) ? this.#values[name] : undefined);
  }

  /** Durable when it resolves. `value` is anything that JSON can hold. */
  async put(name: string, value: unknown): Promise<void> {
    const key = metaKey(`${AGENT}${name}`);
    this.#commit.open().batch.put(key, this.#encoder.json(key, value));
    await this.#commit.durable();
    this.#values = { ...this.#values, [name]: value };
  }
}

/** Apart from the spool's own meta records. */
const AGENT = "agent/";
