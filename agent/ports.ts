/**
 * What the rooms ask of each other. Interfaces only: a room implements one without importing the
 * room that calls it, and `main.ts` joins them.
 */
import type {
  Checkpoint,
  FollowedTable,
  Lane,
  OutboundEvent,
  QueueLane,
  Seq,
  SourceItem,
  SnapshotChunk,
  SnapshotPurpose,
  SpooledEvent,
  TableEvent,
  TransactionPart,
} from "./change.ts";

// ---------------------------------------------------------------------------------------------
// source -> capture

export interface ChangeSource {
  /**
   * Committed transactions after the checkpoint, in order, in batches of what is at hand (bounded
   * in rows and bytes). Pulling is the only back-pressure: while nothing is pulled the stream is
   * paused, and after 10 s closed on purpose and resumed by position. Reconnects by itself; throws
   * only what a reconnect cannot mend (an AgentError). Ends when the signal aborts.
   */
  batches(after: Checkpoint | null, signal: AbortSignal): AsyncIterable<readonly SourceItem[]>;
  /** For /health, status and the log. */
  status(): SourceStatus;
}

/** What is being read beside the stream. */
export interface SnapshotStatus {
  readonly table: string;
  readonly reason: string;
  readonly purpose: SnapshotPurpose;
  readonly generation: number;
  readonly rows: number;
  /** The server's estimate at the beginning; null before it. */
  readonly rowsEstimated: number | null;
  readonly rowsPerSecond: number;
  /** Jobs behind it. */
  readonly waiting: number;
  readonly paused: boolean;
  /** What keeps it from reading on; null while it reads. */
  readonly waitsFor: string | null;
}

/** By the server's estimate and the present pace; null while neither says anything. */
export function secondsLeft({ rows, rowsEstimated, rowsPerSecond }: SnapshotStatus): number | null {
  return rowsEstimated === null || rowsPerSecond < 1
    ? null
    : Math.max(0, rowsEstimated - rows) / rowsPerSecond;
}

export interface SourceStatus {
  readonly state: "stopped" | "connecting" | "streaming" | "paused" | "waiting";
  /** What it waits for, in words, when connecting or waiting. */
  readonly reason: string | null;
  readonly server: string | null;
  /** Milliseconds since the last packet (event or heartbeat), null before the first. */
  readonly silentMs: number | null;
  readonly reconnects: number;
}

// ---------------------------------------------------------------------------------------------
// transform -> capture

export interface EventEncoder {
  /** Tables and columns that the mapping wants, without prefix. */
  readonly tables: readonly FollowedTable[];
  /**
   * Events of one part, in order. Pure: the same part and epoch give the same events, but for
   * `synced_at`.
   */
  encode(item: TransactionPart | TableEvent | SnapshotChunk, context: EncodeContext): OutboundEvent[];
  /** Changes since the last call that touched no mapped field and so gave no event. */
  takeSuppressed(): number;
}

/** What the index keeps of rows: of which parent each child is. */
export interface IndexEncoder {
  /** All that are declared, whether their tables are followed or not. */
  readonly relations: readonly IndexRelation[];
  /**
   * Adds the entries that the rows of the item change, in their order. `numberOf` gives what stands
   * in the entries of a relation that are written now. Pure.
   */
  addEntries(
    item: TransactionPart | SnapshotChunk,
    numberOf: (relation: number) => number,
    into: IndexChange[],
  ): void;
}

export interface IndexRelation {
  readonly id: number;
  /** Table and column, for logs and status. */
  readonly name: string;
  /** Of the children, without prefix. */
  readonly table: string;
  /** Its index in the list of followed tables; -1 where it is not followed. */
  readonly followed: number;
  /** Of what its entries depend on; null while its table is not followed. */
  readonly fingerprint: string | null;
  /** What the keys of all its entries begin with. */
  readonly prefixes: readonly Buffer[];
}

/** Keeps the index beside the loop (index-upkeep.ts). */
export interface IndexFollower {
  /** Before the first pull of a loop. */
  begin(): Promise<void>;
  /** Adds what the item changes, to be written in the batch that covers the item. */
  take(item: SourceItem, into: IndexChange[]): void;
}

/** Where encoded payloads are put. */
export interface PayloadWriter {
  /** The text in UTF-8. The bytes may be used again once their batch is durable. */
  write(text: string): Buffer;
  /** What `fill` writes from `start` on, at most `bytesMax`; it says where it ended. The same holds for it. */
  compose(bytesMax: number, fill: (target: Buffer, start: number) => number): Buffer;
}

export interface EncodeContext {
  readonly epoch: number;
  /** When the agent captured it: milliseconds since 1970. */
  readonly capturedAtMs: number;
  /** Events that earlier parts of the same transaction made; 0 for a whole one. */
  readonly eventsBefore: number;
  /** Where entity events' payloads go; without it each has memory of its own. */
  readonly payloads?: PayloadWriter;
}

// ---------------------------------------------------------------------------------------------
// capture -> spool

export interface AppendBatch {
  readonly events: readonly OutboundEvent[];
  /** Written in the same synced batch as the events that it covers (invariant 1). */
  readonly checkpoint: Checkpoint;
  /** Changes of the index room, written in the same synced batch. */
  readonly index?: readonly IndexChange[];
  /** The checkpoint holds what somebody is told of next: on disk when the append resolves, also without events. */
  readonly durable?: true;
}

/** One change of the spool's index room. Without a value the key is deleted. */
export interface IndexChange {
  readonly key: Buffer;
  readonly value: Buffer | null;
}

export interface SpoolWriter {
  /** The newest checkpoint whose events are all on disk. */
  checkpoint(): Checkpoint | null;
  /**
   * Resolves when events and checkpoint are on disk (fsync returned). Waits, without losing
   * anything, while the spool is at its byte limit or the volume at its free-space floor. Batches
   * given while an fsync runs are written together by the next one, in order.
   *
   * A batch without events and index changes (progress) resolves when it is taken, in its order;
   * its checkpoint reaches the disk with the next write, within about a second. The first checkpoint
   * of a state, and that of a batch that says `durable`, is on disk when its append resolves.
   *
   * A batch that still waits for room when the signal aborts rejects with the signal's reason, and
   * nothing of it is written. One that was already taken is finished, whatever the signal says.
   */
  append(batch: AppendBatch, signal?: AbortSignal): Promise<void>;
}

// ---------------------------------------------------------------------------------------------
// spool -> forward

/** One lane of a queue. The live lane is there as soon as the bulk lane is. */
export interface QueueState extends QueueLane {
  /** Everything up to here is accepted or quarantined. */
  readonly acked: Seq;
  /** Newest durable record; equals `acked` when empty. */
  readonly last: Seq;
  /** How far it can be read: `last`, or the record before a damaged one until that is healed. */
  readonly readable: Seq;
  /**
   * Records up to here wait for nothing of the other lane (`SpooledEvent.otherLaneThrough`): numbers
   * there were given anew after damage, so what they say of it means something else now.
   */
  readonly unboundThrough: Seq;
}

export interface QueueReader {
  queues(): readonly QueueState[];
  /**
   * Records after `after`, in order, verified (checksum, key, contiguity); empty at the end. Never
   * gives a damaged one: `readable` ends before it, until it is healed. What cannot be healed is
   * passed over in the numbers, and a gap event stands behind it.
   */
  read(queue: string, after: Seq, limits: ReadLimits, lane: Lane): Promise<SpooledEvent[]>;
  /** Everything up to `through` may be trimmed. Lazily persisted: a lost ack is a redelivery. */
  ack(queue: string, through: Seq, lane: Lane): void;
  /**
   * Durable when it resolves. The record itself leaves its queue by `ack`. One that lies there
   * already (after a crash, or a retry in vain) is replaced and keeps its time.
   */
  quarantine(event: SpooledEvent, verdict: QuarantineVerdict): Promise<void>;
  readonly quarantined: QuarantineRoom;
  /** Calls back after each durable append, with the queues that grew. Returns the unsubscriber. */
  onAppended(listener: (queues: readonly string[]) => void): () => void;
}

export interface ReadLimits {
  readonly maxEvents: number;
  readonly maxBytes: number;
}

/** Why an event was given up. */
export interface GivenUp {
  /** Why, as a stable code: Dapr's errorCode or the agent's. */
  readonly code: string;
  readonly reason: string;
  readonly attempts: number;
}

export interface QuarantineVerdict extends GivenUp {
  /** Whether the broker has the dead letter; false when that was refused too. */
  readonly deadLetterAccepted: boolean;
  /** What the event is about; null where its payload does not say. */
  readonly about: EventFacts | null;
}

/** What an event is about, read from its payload: names, key and place, never another value. */
export interface EventFacts {
  readonly entity: string | null;
  /** The entity's UUID. */
  readonly id: string | null;
  readonly magentoId: string | number | null;
  readonly sequence: string | null;
  /** Size of the CloudEvent's text; of an oversize event the size that it would have had. */
  readonly bytes: number;
}

export interface QuarantinedEvent {
  readonly event: SpooledEvent;
  readonly verdict: QuarantineVerdict;
  readonly quarantinedAtMs: number;
  /** Sequence of a newer event of the same entity that was accepted since; null while there is none. */
  readonly overtakenBy: string | null;
  /** Generation of the resync that brings its entity's state of now; null where none was asked for. */
  readonly resync: number | null;
}

/** What lies in quarantine, as the forwarder sees it. */
export interface QuarantineRoom {
  readonly count: number;
  /** The event by its CloudEvent id, or null. Rejects with SPOOL_CORRUPT when it is damaged. */
  find(id: string): Promise<QuarantinedEvent | null>;
  /** Whether the event with this number of the queue lies there. */
  has(queue: string, seq: Seq, lane: Lane): boolean;
  /** Whether `accepted` wants to hear of this event. Cheap: asked for every accepted one. */
  concerns(event: SpooledEvent): boolean;
  /**
   * The broker has the event, which `concerns` named. A quarantined event of the same entity with a
   * smaller sequence is overtaken from now on, and the event itself is in quarantine no longer; nor
   * is one whose entity was read again, by the resync that it waits for.
   * On disk no later than the acknowledgement that covers the event.
   */
  accepted(event: SpooledEvent, sequence: string | null): void;
}

// ---------------------------------------------------------------------------------------------
// transform -> forward (handed over by main): events that the forwarder itself has to make

export interface ControlEncoder {
  /**
   * The dead letter of an event, in wire form. `payload`, the event itself, is left out over the
   * limit, or where the caller says so: the letter has the same id either way.
   */
  deadLetter(event: SpooledEvent, verdict: GivenUp, withPayload?: boolean): OutboundEvent;
  /** What an event is about; null where its payload does not say. */
  about(event: SpooledEvent): EventFacts | null;
  /** One heartbeat, in wire form. */
  heartbeat(facts: HeartbeatFacts): OutboundEvent;
}

export interface HeartbeatFacts {
  readonly epoch: number;
  /** All commits up to this time and position were accepted; null before the first. */
  readonly completeUpToMs: number | null;
  readonly file: string | null;
  readonly position: number | null;
  readonly gtidSet: string | null;
  readonly backlogEvents: number;
  readonly backlogBytes: number;
  /** Topics on hold. */
  readonly held: readonly string[];
  readonly quarantined: number;
  readonly nowMs: number;
}

// ---------------------------------------------------------------------------------------------
// forward -> the watch over verifications (agent/verifications.ts)

/** What a consumer says of a verification, where VERIFY_REPORTS_URL says it can be asked. */
export interface VerificationReports {
  /** Never rejects. */
  read(instance: string, generation: number): Promise<ReportAnswer>;
  /** Releases the connections. */
  close(): Promise<void>;
}

export type ReportAnswer =
  | { readonly kind: "found"; readonly body: string }
  /** Nothing of it has come there yet. */
  | { readonly kind: "absent" }
  | { readonly kind: "unavailable"; readonly reason: string };

// ---------------------------------------------------------------------------------------------
// rooms -> observe

/** What the spool holds and how it does, for metrics, /health and status. */
export interface SpoolStats {
  /** Whether appends are taken, or why they wait. */
  readonly intake: "open" | "SPOOL_FULL" | "DISK_FULL" | "failed";
  readonly queues: readonly SpoolQueueStats[];
  readonly events: number;
  readonly bytes: number;
  /** What the state directory takes, and what it may. */
  readonly directoryBytes: number;
  readonly bytesMax: number;
  /** What its volume has left, and what it must keep. */
  readonly freeBytes: number;
  readonly diskFreeMin: number;
  /** p99 of the last 512. */
  readonly fsync: { readonly count: number; readonly lastSeconds: number; readonly p99Seconds: number };
  readonly waitingBatches: number;
  readonly quarantined: number;
  /** Lines of LevelDB about bytes that it dropped when the spool was opened. */
  readonly lossesAtOpen: number;
}

export interface SpoolQueueStats extends QueueState {
  readonly events: number;
  /** An estimate: a share of what was appended. */
  readonly bytes: number;
  /** When the oldest record that waits was captured; null when none waits. */
  readonly oldestCapturedAtMs: number | null;
}

export interface CaptureObserver {
  /** `suppressed`: changes that touched no mapped field and so gave no event. */
  batchCaptured(facts: { readonly rows: number; readonly events: number; readonly suppressed: number }): void;
  /** Newest commit time the source has shown, for lag. */
  commitSeen(commitTimeMs: number): void;
}

export interface SourceObserver {
  connected(): void;
  disconnected(code: string): void;
  bytesRead(bytes: number): void;
  /** Counted oddities: "zero_date", "invalid_text", "rolled_back_group", "large_transaction". */
  oddity(what: string, table: string): void;
}

export interface SpoolObserver {
  synced(facts: { readonly seconds: number; readonly events: number; readonly bytes: number }): void;
  intakeClosed(code: "SPOOL_FULL" | "DISK_FULL", message: string): void;
  intakeOpened(): void;
}

export type Published = Pick<OutboundEvent, "table" | "op" | "commitTimeMs">;

export interface ForwardObserver {
  /**
   * The event was accepted so many seconds after its capture, holds not counted. `snapshot`: it says
   * nothing about lag. Called for every event, so without an object of its own.
   */
  published(event: Published, seconds: number, snapshot: boolean): void;
  publishFailed(facts: { readonly table: string; readonly errorType: string }): void;
  batchSent(events: number): void;
  held(topic: string, code: string, message: string): void;
  released(topic: string): void;
  quarantined(table: string, code: string): void;
}
