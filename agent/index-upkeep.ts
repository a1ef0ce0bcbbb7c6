/**
 * Keeps the index of children true (transform/child-index.ts says what it holds): beside capture's
 * loop, which writes what it gives in the batch of the rows that it comes from (invariant 1), and with
 * a loop of its own that removes what is void. It asks for a scan of keys wherever the index may lack
 * something: in a state that has none yet, behind a part of the history that was not read, after a
 * table was altered, and when damage is found.
 */
import { binlogFileNumber, type Checkpoint, type SourceItem, type WantedJob } from "./change.ts";
import {
  begun,
  distrusted,
  isVoid,
  readState,
  type RelationState,
  scanned,
  stateKey,
  stateRecord,
  tableChanged,
} from "./index-state.ts";
import { AgentError } from "./kernel/errors.ts";
import type { Clock, Log } from "./kernel/service.ts";
import type { IndexFacts } from "./observe/facts.ts";
import type {
  IndexChange,
  IndexEncoder,
  IndexFollower,
  IndexRelation,
  SpoolStats,
  SpoolWriter,
} from "./ports.ts";

/** The part of the spool that is needed here. */
export interface IndexRecords {
  get(key: Buffer): Promise<Buffer | null>;
  removeStale(
    prefix: Buffer,
    isStale: (value: Buffer) => boolean,
    from: Buffer | null,
  ): Promise<{ readonly next: Buffer | null; readonly removed: number; readonly damaged: number }>;
}

export interface IndexUpkeepParts {
  readonly spool: Pick<SpoolWriter, "checkpoint" | "append"> & {
    readonly index: IndexRecords;
    /** What had to be done to the database when it was opened; null: nothing. */
    readonly healedAtOpen: string | null;
    stats(): Pick<SpoolStats, "lossesAtOpen">;
  };
  /** Of the mapping in use. */
  readonly encoder: () => IndexEncoder;
  /** Runs the change while nothing is captured; capture then begins a new loop. */
  readonly atRest: (change: () => Promise<void>) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
}

const LOOK_MS = 1_000;
/** Alterations come in crowds; each new loop is a new connection. */
const RESCAN_MS = 10_000;
/** Between two steps of removing: the disk is the database's. */
const STEP_PAUSE_MS = 20;

export class IndexUpkeep implements IndexFollower {
  readonly #parts: IndexUpkeepParts;
  #encoder: IndexEncoder;
  readonly #states = new Map<number, RelationState>();
  /** Relations whose state is to be written with the next item. */
  readonly #unwritten = new Set<number>();
  /** Why nothing that lies on disk is trusted; null where it is. */
  #distrust: string | null;
  #rescanAtMs: number | null = null;

  constructor(parts: IndexUpkeepParts) {
    this.#parts = parts;
    this.#encoder = parts.encoder();
    // What LevelDB lost it does not name.
    const isWhole = parts.spool.healedAtOpen === null && parts.spool.stats().lossesAtOpen === 0;
    this.#distrust = isWhole ? null : "the database was damaged";
  }

  /** Reads how all relations stand; each gets a new number. */
  async begin(): Promise<void> {
    const { clock, log } = this.#parts;
    this.#encoder = this.#parts.encoder();
    for (const relation of this.#encoder.relations) {
      const before = await this.#read(relation);
      if (relation.fingerprint === null && (before === null || before.fingerprint === "")) continue;
      let state = begun(before, relation.fingerprint ?? "", clock.wallMs());
      if (this.#distrust !== null) {
        if (state.completeSince !== null)
          log.warn("the index is scanned again", { relation: relation.name, because: this.#distrust });
        state = distrusted(state);
      }
      this.#set(relation.id, state);
    }
    this.#distrust = null;
  }

  take(item: SourceItem, into: IndexChange[]): void {
    if (item.kind === "table" || item.kind === "chunk") this.#follow(item);
    if (item.kind === "transaction" || item.kind === "chunk")
      this.#encoder.addEntries(item, (relation) => this.#states.get(relation)?.number ?? 0, into);
    if (this.#unwritten.size === 0) return;
    for (const id of this.#unwritten) {
      const state = this.#states.get(id);
      if (state !== undefined) into.push(stateRecord(id, state));
    }
    this.#unwritten.clear();
  }

  /**
   * Scans that the index needs where the stream goes on, beside the jobs that are there already and
   * those that are asked for anyway: one that reads all rows does the same.
   */
  wanted(after: Checkpoint | null, others: readonly WantedJob[]): readonly WantedJob[] {
    const tables = new Set<string>();
    for (const { id, table, fingerprint } of this.#encoder.relations) {
      const state = this.#states.get(id);
      if (fingerprint === null || state === undefined || state.completeSince !== null) continue;
      const isUnderWay = (after?.snapshot?.jobs ?? []).some(
        (job) =>
          job.table === table &&
          scansAll(job) &&
          (job.begun === null || job.generation === state.scan?.generation),
      );
      if (!isUnderWay && !others.some((job) => job.table === table && scansAll(job))) tables.add(table);
    }
    return [...tables].map((table) => ({
      table,
      reason: "index",
      scope: { kind: "all" },
      purpose: "index",
      topic: null,
    }));
  }

  /**
   * Before the checkpoint is set to this one, capture at rest. What is passed over on the way forward
   * is not followed: a replay that was under way had taken the index back to earlier changes.
   */
  async movesTo(to: Checkpoint): Promise<void> {
    const { spool, log } = this.#parts;
    const from = spool.checkpoint();
    if (from === null || !isAhead(to, from)) return;
    log.warn("the index is scanned again", { because: "a replay was broken off" });
    const index = await voidedStates(spool.index, this.#encoder.relations);
    await spool.append({ events: [], checkpoint: from, index });
  }

  /** Of the relations of followed tables. */
  facts(): IndexFacts {
    return this.#encoder.relations
      .filter(({ fingerprint }) => fingerprint !== null)
      .map(({ id, name }) => ({
        relation: name,
        completeSince: this.#states.get(id)?.completeSince ?? null,
      }));
  }

  /** Removes what is void, and asks for scans that became necessary, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    while (!signal.aborted) {
      for (const relation of this.#encoder.relations) await this.#sweep(relation, signal);
      const isDue = this.#rescanAtMs !== null && clock.monotonicMs() >= this.#rescanAtMs;
      if (isDue && !signal.aborted) {
        this.#rescanAtMs = null;
        await this.#beginAgain([]);
      }
      await clock.sleep(LOOK_MS, signal);
    }
  }

  #follow(item: Extract<SourceItem, { kind: "table" | "chunk" }>): void {
    const { clock, log } = this.#parts;
    for (const { id, name, followed } of this.#encoder.relations) {
      const before = this.#states.get(id);
      if (followed !== item.table || before === undefined) continue;
      if (item.kind === "chunk") {
        const state = scanned(before, item);
        if (state === before) continue;
        this.#set(id, state);
        if (state.completeSince !== null && item.isLast && state.completeSince !== before.completeSince)
          log.notice("the index of a relation is complete", {
            relation: name,
            generation: state.completeSince,
          });
      } else {
        this.#set(id, tableChanged(before, item.what, clock.wallMs()));
        this.#rescanAtMs = clock.monotonicMs() + RESCAN_MS;
        log.notice("the index is scanned again", { relation: name, because: item.statement });
      }
    }
  }

  #set(id: number, state: RelationState): void {
    this.#states.set(id, state);
    this.#unwritten.add(id);
  }

  /** Null where there is none, or it is damaged: then nothing of the relation is trusted. */
  async #read({ id, name }: IndexRelation): Promise<RelationState | null> {
    try {
      const record = await this.#parts.spool.index.get(stateKey(id));
      return record === null ? null : readState(record);
    } catch (error) {
      if (!(error instanceof AgentError) || error.code !== "SPOOL_CORRUPT") throw error;
      this.#parts.log.warn("the index is scanned again", { relation: name, because: error.message });
      return null;
    }
  }

  /** What is void on disk, whatever is under way: a floor that a crash could take back removes nothing. */
  async #sweep(relation: IndexRelation, signal: AbortSignal): Promise<void> {
    const { spool, clock, log } = this.#parts;
    const known = this.#states.get(relation.id);
    if (known === undefined || known.swept >= known.floor) return;
    const floor = (await this.#read(relation))?.floor ?? 0;
    if (known.swept >= floor) return;
    let removed = 0;
    let damaged = 0;
    for (const prefix of relation.prefixes) {
      let from: Buffer | null = null;
      do {
        const step = await spool.index.removeStale(prefix, (value) => isVoid(value, floor), from);
        removed += step.removed;
        damaged += step.damaged;
        from = step.next;
        await clock.sleep(STEP_PAUSE_MS, signal);
      } while (from !== null && !signal.aborted);
      if (signal.aborted) return;
    }
    if (removed > 0) log.info("void entries of the index are removed", { relation: relation.name, removed });
    const now = this.#states.get(relation.id);
    if (now !== undefined) this.#set(relation.id, { ...now, swept: Math.max(now.swept, floor) });
    if (damaged > 0) await this.#damaged(relation, damaged);
  }

  async #damaged({ id, name }: IndexRelation, entries: number): Promise<void> {
    this.#parts.log.warn("the index is scanned again", {
      relation: name,
      because: `${entries} damaged entries`,
    });
    const state = this.#states.get(id);
    if (state !== undefined) await this.#beginAgain([stateRecord(id, distrusted(state))]);
  }

  /** A new loop of capture asks for the scans that are wanted; the changes are on disk before it. */
  #beginAgain(index: readonly IndexChange[]): Promise<void> {
    const { spool, atRest } = this.#parts;
    return atRest(async () => {
      const checkpoint = spool.checkpoint();
      if (checkpoint !== null && index.length > 0) await spool.append({ events: [], checkpoint, index });
    });
  }
}

function isAhead(one: Checkpoint, other: Checkpoint): boolean {
  if (one.epoch !== other.epoch) return true;
  if (one.file === other.file) return one.position > other.position;
  return one.file !== "" && other.file !== "" && binlogFileNumber(one.file) > binlogFileNumber(other.file);
}

function scansAll({ scope, purpose, unlessShape }: WantedJob): boolean {
  return scope.kind === "all" && purpose !== "digests" && unlessShape === undefined;
}

/** The states of all relations from a place on that does not follow the last one: no child is sure. */
export async function voidedStates(
  records: Pick<IndexRecords, "get">,
  relations: readonly { readonly id: number }[],
): Promise<IndexChange[]> {
  const changes: IndexChange[] = [];
  for (const { id } of relations) {
    const record = await records.get(stateKey(id)).catch(ignoreDamage);
    const state = record === null ? null : readState(record);
    // Without one, the next loop begins with one that is not complete.
    changes.push(state === null ? { key: stateKey(id), value: null } : stateRecord(id, distrusted(state)));
  }
  return changes;
}

function ignoreDamage(error: unknown): null {
  if (error instanceof AgentError && error.code === "SPOOL_CORRUPT") return null;
  throw error;
}
