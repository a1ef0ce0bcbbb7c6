/**
 * Asks the rooms what they know, for metrics, health and status. Cheap enough for every scrape: all
 * but the head of each queue comes from memory, and a head is read once.
 */
import type { Checkpoint, QueueLane } from "./change.ts";
import type {
  AgentFacts,
  CompleteFacts,
  HaltFacts,
  IndexFacts,
  MappingFacts,
  QueueHead,
  RowsFacts,
  RunwayFacts,
  VerificationFacts,
} from "./observe/facts.ts";
import type { Observer } from "./observe/observer.ts";
import type { ChangeSource, QueueReader, SnapshotStatus, SpoolStats } from "./ports.ts";

export interface Identity {
  readonly version: string;
  readonly shop: string;
  readonly database: string;
  readonly instance: string;
  readonly startedAtMs: number;
}

export interface FactSources {
  readonly identity: Identity;
  readonly source: Pick<ChangeSource, "status"> & { readonly halted: HaltFacts | null };
  readonly mapping: () => MappingFacts;
  readonly runway: () => RunwayFacts;
  readonly snapshot: () => SnapshotStatus | null;
  readonly rows: () => RowsFacts;
  readonly index: () => IndexFacts;
  readonly verifications: () => readonly VerificationFacts[];
  readonly complete: () => CompleteFacts;
  readonly spool: QueueReader & { checkpoint(): Checkpoint | null; stats(): SpoolStats };
  readonly observer: Observer;
  readonly nowMs: () => number;
  readonly ready: () => boolean;
}

export class FactGatherer {
  readonly #sources: FactSources;
  /** The head last read of each lane of a queue, with its number. */
  readonly #heads = new Map<string, { readonly seq: number; readonly head: QueueHead }>();

  constructor(sources: FactSources) {
    this.#sources = sources;
  }

  async gather(): Promise<AgentFacts> {
    const { identity, source, spool, observer } = this.#sources;
    const heads = await this.#readHeads();
    const nowMs = this.#sources.nowMs();
    const stats = spool.stats();
    const checkpoint = spool.checkpoint();
    return {
      ...identity,
      nowMs,
      ready: this.#sources.ready(),
      source: source.status(),
      halted: source.halted,
      mapping: this.#sources.mapping(),
      position: checkpoint === null ? null : positionOf(checkpoint),
      spool: {
        events: stats.events,
        bytes: stats.directoryBytes,
        bytesMax: stats.bytesMax,
        freeBytes: stats.freeBytes,
        freeMinBytes: stats.diskFreeMin,
        quarantined: stats.quarantined,
        damagedQueues: stats.queues.filter(({ last, readable }) => readable < last).length,
      },
      runway: this.#sources.runway(),
      snapshot: this.#sources.snapshot(),
      rows: this.#sources.rows(),
      index: this.#sources.index(),
      verifications: this.#sources.verifications(),
      complete: this.#sources.complete(),
      heads,
      held: observer.heldTopics,
      intakeClosed: observer.closedIntake,
      lagSeconds: observer.lagSeconds(heads, nowMs),
      accepted: observer.acceptance,
    };
  }

  async #readHeads(): Promise<QueueHead[]> {
    const heads: QueueHead[] = [];
    for (const state of this.#sources.spool.queues()) {
      const head = await this.#readHead(state);
      if (head !== null) heads.push(head);
    }
    return heads;
  }

  async #readHead({ queue, lane }: QueueLane): Promise<QueueHead | null> {
    const { spool } = this.#sources;
    const state = spool.queues().find((one) => one.queue === queue && one.lane === lane);
    if (state === undefined || state.acked === state.last) return null;
    const name = `${lane} ${queue}`;
    const waiting = state.last - state.acked;
    const known = this.#heads.get(name);
    if (known?.seq === state.acked + 1) return { ...known.head, waiting };
    // A damaged head is the forwarder's to report; the facts only lack it.
    const [event] = await spool.read(queue, state.acked, { maxEvents: 1, maxBytes: 1 }, lane).catch(() => []);
    if (event === undefined) return null;
    const { table, op, commitTimeMs, capturedAtMs, seq } = event;
    const head: QueueHead = { queue, lane, table, op, commitTimeMs, capturedAtMs, waiting };
    this.#heads.set(name, { seq, head });
    return head;
  }
}

function positionOf({ file, position, gtidSet, epoch }: Checkpoint): NonNullable<AgentFacts["position"]> {
  return { file, position, gtidSet, epoch };
}
