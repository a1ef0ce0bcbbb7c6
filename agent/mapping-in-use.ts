/**
 * The mapping in use and what is made from it: transform and source. A reload (SIGHUP) replaces both
 * at once, between two transactions: inside one that is partly delivered the checkpoint counts the
 * rows of followed tables, so there the mapping that began it has to end it. Events in the spool
 * keep the mapping that they were made with.
 */
import { isDeepStrictEqual } from "node:util";
import type { Checkpoint, OutboundEvent } from "./change.ts";
import { AgentError, asError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import type { MappingFacts } from "./observe/facts.ts";
import type { SpoolWriter } from "./ports.ts";
import type { BinlogSource } from "./source/binlog-source.ts";
import { planSchemas, readSchemas, type SchemaPlan, type StateValues } from "./state-guard.ts";
import type { Mapping } from "./transform/mapping.ts";
import type { Transform } from "./transform/transform.ts";

/** What depends on the mapping; replaced as a whole. */
export interface MappedRooms {
  readonly transform: Transform;
  readonly source: BinlogSource;
}

export interface MappingInUseParts {
  readonly spool: SpoolWriter & { readonly meta: StateValues };
  /** Rooms for a mapping. Throws MAPPING_INVALID. */
  readonly makeRooms: (mapping: Mapping, versions: SchemaPlan["versions"]) => MappedRooms;
  readonly fieldHashKey: () => string | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** Brings capture to rest between two transactions, runs the change, and lets capture go on. */
export type AtRest = (change: () => Promise<void>) => Promise<void>;

/** Where the mapping is kept that a transaction under way was begun with. */
const STORED = "mapping";

interface Generation {
  readonly mapping: Mapping;
  readonly rooms: MappedRooms;
  readonly schemas: SchemaPlan;
  readonly sinceMs: number;
}

export class MappingInUse {
  readonly #parts: MappingInUseParts;
  #now: Generation;
  /** Read from the file and sound, but not in use yet. */
  #next: Mapping | null;
  #reloading = false;
  #again = false;

  /**
   * Starts with the mapping given, or, when the state stands inside a transaction that was begun with
   * another one, with that: `hasNext` then says that a reload is due.
   */
  static async open(parts: MappingInUseParts, wanted: Mapping): Promise<MappingInUse> {
    const begun = await mappingOfPartial(parts.spool, wanted);
    const generation = await makeGeneration(parts, begun ?? wanted);
    return new MappingInUse(parts, generation, begun === null ? null : wanted);
  }

  private constructor(parts: MappingInUseParts, first: Generation, next: Mapping | null) {
    this.#parts = parts;
    this.#now = first;
    this.#next = next;
  }

  get rooms(): MappedRooms {
    return this.#now.rooms;
  }

  get mapping(): Mapping {
    return this.#now.mapping;
  }

  get hasNext(): boolean {
    return this.#next !== null;
  }

  facts(): MappingFacts {
    const { mapping, schemas, sinceMs } = this.#now;
    const versions = mapping.entities.map(({ entity }) => [entity, schemas.versions[entity] ?? 1] as const);
    return { sinceMs, versions: Object.fromEntries(versions), isNextWaiting: this.#next !== null };
  }

  /** Tells consumers what the mapping changed since the last run. Before the first capture. */
  announce(signal: AbortSignal): Promise<void> {
    return announce(this.#parts, this.#now, signal);
  }

  /**
   * Takes up what `load` gives. Never rejects: a mapping that cannot be used is one line in the log,
   * and the one in use stays. A call while another is under way makes that one read again.
   */
  async reload(load: () => Mapping, atRest: AtRest, signal: AbortSignal): Promise<void> {
    if (this.#reloading) {
      this.#again = true;
      return;
    }
    this.#reloading = true;
    try {
      do {
        this.#again = false;
        await this.#reloadOnce(load, atRest, signal);
      } while (this.#again && !signal.aborted);
    } catch (thrown) {
      this.#next = null;
      if (!signal.aborted) this.#refused(thrown);
    } finally {
      this.#reloading = false;
    }
  }

  async #reloadOnce(load: () => Mapping, atRest: AtRest, signal: AbortSignal): Promise<void> {
    const { log, spool } = this.#parts;
    const mapping = load();
    if (isDeepStrictEqual(mapping, this.#now.mapping)) {
      this.#next = null;
      log.notice("the mapping was read again, and is the one in use");
      return;
    }
    const next = await makeGeneration(this.#parts, mapping);
    this.#next = mapping;
    if (spool.checkpoint()?.partial != null) {
      log.notice("the new mapping waits for the end of a large transaction that is partly delivered");
    }
    await atRest(async () => {
      await announce(this.#parts, next, signal);
      const before = this.#now.mapping;
      this.#now = next;
      this.#next = null;
      log.notice("the new mapping is in use", { ...differences(before, mapping) });
    });
  }

  #refused(thrown: unknown): void {
    const error = asError(thrown);
    const code = thrown instanceof AgentError ? thrown.code : "BUG";
    this.#parts.log.error("the new mapping is refused; the one in use stays", {
      code,
      reason: error.message.replaceAll("\n", " "),
      hint: thrown instanceof AgentError ? thrown.hint : undefined,
    });
  }
}

/** The mapping that the transaction under way was begun with, where it follows other tables. */
async function mappingOfPartial(spool: MappingInUseParts["spool"], wanted: Mapping): Promise<Mapping | null> {
  if (spool.checkpoint()?.partial == null) return null;
  const stored = await spool.meta.get(STORED);
  if (!isMapping(stored) || isDeepStrictEqual(stored, wanted)) return null;
  return stored;
}

async function makeGeneration(parts: MappingInUseParts, mapping: Mapping): Promise<Generation> {
  const schemas = planSchemas(await readSchemas(parts.spool.meta), mapping, parts.fieldHashKey());
  return {
    mapping,
    schemas,
    rooms: parts.makeRooms(mapping, schemas.versions),
    sinceMs: parts.clock.wallMs(),
  };
}

/**
 * Tells consumers of entities whose mapping changed, and only then remembers it: after a crash in
 * between the same announcement, with the same id, is made again. Before the first checkpoint
 * nobody has events of the old mapping, so there is nothing to tell.
 */
async function announce(parts: MappingInUseParts, made: Generation, signal: AbortSignal): Promise<void> {
  const { spool, clock, log } = parts;
  const { changes, record } = made.schemas;
  const checkpoint: Checkpoint | null = spool.checkpoint();
  if (checkpoint !== null && changes.length > 0) {
    const events: OutboundEvent[] = changes.map((change) =>
      made.rooms.transform.schemaChanged({
        ...change,
        epoch: checkpoint.epoch,
        position: checkpoint,
        nowMs: clock.wallMs(),
      }),
    );
    await spool.append({ events, checkpoint }, signal);
    for (const { entity, schemaVersion } of changes) {
      log.notice("the mapping of an entity changed; what was sent before has the old form until a resync", {
        entity,
        schema_version: schemaVersion,
      });
    }
  }
  await spool.meta.put(STORED, made.mapping);
  await spool.meta.put("schemas", record);
}

function differences(before: Mapping, after: Mapping): Readonly<Record<string, string | undefined>> {
  const old = new Map(before.entities.map((entity) => [entity.entity, entity]));
  const names = after.entities.map((entity) => entity.entity);
  const isChanged = (name: string): boolean =>
    !isDeepStrictEqual(
      old.get(name),
      after.entities.find((entity) => entity.entity === name),
    );
  return {
    added: list(names.filter((name) => !old.has(name))),
    changed: list(names.filter((name) => old.has(name) && isChanged(name))),
    removed: list([...old.keys()].filter((name) => !names.includes(name))),
  };
}

function list(names: readonly string[]): string | undefined {
  return names.length === 0 ? undefined : names.join(",");
}

/** Of a record that this agent wrote and the spool has verified: enough to tell its shape. */
function isMapping(value: unknown): value is Mapping {
  return (
    typeof value === "object" &&
    value !== null &&
    "entities" in value &&
    Array.isArray(value.entities) &&
    "controlTopic" in value &&
    "deadLetterTopic" in value
  );
}
