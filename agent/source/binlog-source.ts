/**
 * Database to committed transactions (ports.ts, ChangeSource). It keeps one stream going: connects,
 * proves that the position is what it was, reconnects for ever after a loss, and throws only what
 * no reconnect can mend.
 */
import { ofFollowed, withJobs } from "../snapshot-jobs.ts";
import type { Checkpoint, Position, SourceItem } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { ChangeSource, SnapshotStatus, SourceStatus } from "../ports.ts";
import { connectionOptions, type ControlConnection, openControl } from "./control-connection.ts";
import {
  atOtherServer,
  deliveredGtids,
  isOtherServer,
  lacksTransactions,
  missingGtids,
  requireGtidPath,
  serverName,
} from "./failover.ts";
import { findNewPlace, type NewPlace } from "./new-place.ts";
import { inspectServer } from "./preflight.ts";
import { Reconnects } from "./reconnects.ts";
import {
  readBinlogFiles,
  readColumns,
  readCurrentPosition,
  readMemoryTables,
  readReplicasWithId,
  readServerFacts,
  type ServerFacts,
  type ServerPosition,
} from "./server-facts.ts";
import { watchSilence } from "./silent-stream.ts";
import { SnapshotWeave } from "./snapshot/snapshot-weave.ts";
import type { StreamView } from "./snapshot/weave-parts.ts";
import { asLoss, askAboutLoss } from "./loss-inquiry.ts";
import { translateError } from "./source-errors.ts";
import {
  newCheckpoint,
  planStart,
  requirePosition,
  type Start,
  startByGtid,
  startWithoutCheckpoint,
} from "./start-position.ts";
import { type BinlogSourceParts, defaultLimits, type SourceLimits } from "./source-parts.ts";
import { Stream } from "./stream.ts";

export interface BinlogSource extends ChangeSource {
  /**
   * Looks at the server before READY. Throws AgentError: SOURCE_UNREACHABLE, SOURCE_AUTH,
   * SOURCE_RIGHTS, SOURCE_UNSUITABLE or SERVER_ID_TAKEN; a line for each fault, with its mend.
   */
  firstConnect(): Promise<ServerFacts>;
  /**
   * Monotonic time of the last step that gives nothing to pull: a packet of a transaction whose end
   * was not read yet, or the begin or end of something done to get connected.
   */
  readonly lastStepMs: number;
  /**
   * Whether the server has the checkpoint's place and all that follows it. Says nothing about the
   * proof of position, which comes with the stream. Rejects while the server cannot be asked.
   */
  canResume(checkpoint: Checkpoint): Promise<boolean>;
  /** The end of the server's binlog now, on a connection of its own. */
  currentPosition(): Promise<ServerPosition>;
  /** What is being read beside the stream; null while nothing is. */
  snapshotStatus(): SnapshotStatus | null;
  /** Looks up a place to begin anew: "current", FILE:POSITION or a GTID (new-place.ts). */
  placeAt(from: string): Promise<NewPlace>;
}

/** A stream from which nothing came is compared with the server's own position this often. */
const SILENCE_LOOK_MS = 20_000;

export function createBinlogSource(parts: BinlogSourceParts): BinlogSource {
  return new MysqlBinlogSource(parts);
}

class MysqlBinlogSource implements BinlogSource {
  readonly #parts: BinlogSourceParts;
  readonly #limits: SourceLimits;
  readonly #reconnects: Reconnects;
  #stream: Stream | null = null;
  #weave: SnapshotWeave | null = null;
  #server: string | null = null;
  #state: "stopped" | "connecting" | "streaming" | "waiting" = "stopped";
  #connects = 0;
  /** The connection ended before it had come to where the checkpoint stands. */
  #failedOnTheWay = false;
  /** Since when a new server lacks transactions that were read from the old one. */
  #lacksSinceMs: number | null = null;
  #stepMs = 0;
  /** Another client came with our server id, and the server ended our dump for it. */
  #idWasTaken = false;

  constructor(parts: BinlogSourceParts) {
    this.#parts = parts;
    this.#limits = { ...defaultLimits, ...parts.limits };
    this.#reconnects = new Reconnects({ ...parts, idTakenMs: this.#limits.idTakenMs });
  }

  async *batches(after: Checkpoint | null, signal: AbortSignal): AsyncGenerator<readonly SourceItem[]> {
    const { settings, tables, observer, log, clock } = this.#parts;
    const stream = new Stream(
      {
        database: settings.database,
        tablePrefix: settings.tablePrefix,
        tables,
        observer,
        log,
        clock,
        limits: this.#limits,
        readColumns: (table) => this.#readColumns(table),
      },
      after,
    );
    this.#stream = stream;
    const weave = this.#newWeave(after);
    this.#weave = weave;
    const view = this.#viewOf(stream);
    // The proof is for what may have changed: at the start, and after a lost connection.
    let prove = true;
    const watching = new AbortController();
    void this.#watchSilence(stream, watching.signal);
    try {
      while (!signal.aborted) {
        const items = weave.weave(stream.take(), view);
        stream.wakesOnEvent = weave.isPending;
        if (stream.isConfirmed) this.#recovered();
        if (items !== null) {
          yield items;
          continue;
        }
        if (stream.isConnected) {
          await stream.wait(signal);
          continue;
        }
        const failure = stream.takeFailure();
        if (failure !== null) {
          prove = true;
          this.#failedOnTheWay = stream.failedOnTheWay;
          await this.#endure(failure, stream.from, signal);
        }
        const before = stream.from;
        if (!signal.aborted) prove = !(await this.#connect(stream, prove, signal)) && prove;
        // The server's end as it was now must not be chosen anew after a crash: what is committed in
        // between would be skipped. A START_POSITION by GTID names no file yet, and stays the same.
        const begun = before === null ? stream.from : null;
        if (begun !== null && begun.file !== "")
          yield weave.stamped([{ kind: "progress", commitTimeMs: null, checkpoint: begun }]);
      }
    } finally {
      watching.abort();
      stream.close();
      weave.close();
      this.#state = "stopped";
      this.#stream = null;
      this.#weave = null;
    }
  }

  #newWeave(after: Checkpoint | null): SnapshotWeave {
    const { settings, tables, observer, clock, log, snapshots } = this.#parts;
    const wanted = snapshots?.wanted(after) ?? [];
    const before = ofFollowed(after?.snapshot, tables);
    const progress = wanted.length === 0 ? before : withJobs(before, wanted);
    const rules = { mayRead: () => null, rateMax: null, ...snapshots };
    return new SnapshotWeave({ settings, tables, observer, clock, log, ...rules }, progress);
  }

  #viewOf(stream: Stream): StreamView {
    return {
      connection: () => (stream.isConnected ? this.#connects : null),
      delivered: () => stream.delivered,
      deliveredCheckpoint: () => stream.deliveredCheckpoint(),
      endsAt: (position) => stream.endsAt(position),
      wakeUp: () => stream.wakeUp(),
    };
  }

  snapshotStatus(): SnapshotStatus | null {
    return this.#weave?.status() ?? null;
  }

  async #watchSilence(stream: Stream, signal: AbortSignal): Promise<void> {
    const { clock, silenceLookMs } = this.#parts;
    const readsAt = (): Position | null => {
      const place = stream.readsAt;
      return place === null ? null : { file: place.file, position: place.position };
    };
    // While the server cannot be asked, the stream's own silence tells of it.
    const serverEnd = (): Promise<Position | null> => this.currentPosition().catch(() => null);
    const silent = ({ file, position }: Position): void =>
      stream.close(
        new AgentError(
          "SOURCE_UNREACHABLE",
          `nothing comes, but the server's binlog is at ${file}:${position}`,
        ),
      );
    const lookEveryMs = silenceLookMs ?? SILENCE_LOOK_MS;
    await watchSilence({ clock, lookEveryMs, readsAt, serverEnd, silent }, signal);
  }

  status(): SourceStatus {
    const paused = this.#state === "streaming" && (this.#stream?.isPaused ?? false);
    return {
      state: paused ? "paused" : this.#state,
      reason: this.#reconnects.reason,
      server: this.#server,
      silentMs: this.#stream?.silentMs ?? null,
      reconnects: Math.max(0, this.#connects - 1),
    };
  }

  get lastStepMs(): number {
    return Math.max(this.#stepMs, this.#stream?.lastStepMs ?? 0);
  }

  async firstConnect(): Promise<ServerFacts> {
    const { facts, faults } = await inspectServer(this.#parts.settings, this.#parts.tables);
    const [first, ...others] = faults.filter(({ severity }) => severity === "fault");
    if (first !== undefined) {
      const lines = [first, ...others].map(
        ({ name, value, rule, mend }) => `${name} is ${value}; it must be ${rule}; mend: ${mend}`,
      );
      throw new AgentError(first.code, lines.join("\n"), { hint: first.mend });
    }
    if (facts === null) throw new AgentError("SOURCE_UNREACHABLE", "the server did not answer");
    return facts;
  }

  async canResume(checkpoint: Checkpoint): Promise<boolean> {
    try {
      await using control = await openControl(this.#parts.settings);
      requirePosition(checkpoint, await readServerFacts(control), await readBinlogFiles(control));
      return true;
    } catch (thrown) {
      const error = translateError(thrown);
      if (error.code === "POSITION_LOST") return false;
      throw error;
    }
  }

  async currentPosition(): Promise<ServerPosition> {
    await using control = await openControl(this.#parts.settings);
    const { flavour } = await readServerFacts(control);
    return await readCurrentPosition(control, flavour);
  }

  placeAt(from: string): Promise<NewPlace> {
    return findNewPlace(this.#parts.settings, from);
  }

  /** True when a dump was requested; what becomes of it is the stream's to say. */
  async #connect(stream: Stream, prove: boolean, signal: AbortSignal): Promise<boolean> {
    this.#state = "connecting";
    const { settings } = this.#parts;
    this.#step();
    try {
      await using control = await openControl(settings);
      this.#step();
      const facts = await readServerFacts(control);
      this.#server = `${facts.version}, server id ${facts.serverId}`;
      const before = stream.from;
      this.#step();
      if (this.#idWasTaken) await this.#requireFreeId(control);
      const { from, start } = await this.#startFor(control, facts, before, prove);
      this.#step();
      // MariaDB answers only when no CREATE TABLE ... SELECT is under way: asked where it can matter.
      const memoryTables = this.#reconnects.metUnreadable
        ? await readMemoryTables(control, settings.database)
        : new Set<string>();
      this.#step();
      if (signal.aborted) return false;
      stream.open({
        flavour: facts.flavour,
        from,
        expected: start.expected,
        memoryTables,
        dump: {
          connection: connectionOptions(settings, facts.encrypted),
          serverId: settings.serverId,
          start: start.dump,
          heartbeatMs: this.#limits.heartbeatMs,
        },
      });
      this.#connects += 1;
      return true;
    } catch (thrown) {
      await this.#endure(translateError(thrown), stream.from, signal);
      return false;
    }
  }

  /** Whoever comes second with an id makes the server end the other one's dump: it is waited for. */
  async #requireFreeId(control: ControlConnection): Promise<void> {
    const { serverId } = this.#parts.settings;
    const [user] = (await readReplicasWithId(control, serverId)) ?? [];
    if (user === undefined) this.#idWasTaken = false;
    else throw new AgentError("SERVER_ID_TAKEN", `server id ${serverId} is used by replica ${user}`);
  }

  async #startFor(
    control: ControlConnection,
    facts: ServerFacts,
    before: Checkpoint | null,
    prove: boolean,
  ): Promise<{ readonly from: Checkpoint; readonly start: Start }> {
    if (before === null) {
      const start = await startWithoutCheckpoint(control, this.#parts.settings, facts);
      return { from: newCheckpoint(start.from, facts, this.#parts.clock.wallMs()), start };
    }
    if (isOtherServer(before, facts)) return await this.#failOver(control, facts, before);
    this.#lacksSinceMs = null;
    if (before.file === "") return { from: before, start: startByGtid(before.gtidSet ?? "") };
    const files = await readBinlogFiles(control);
    requirePosition(before, facts, files);
    return { from: before, start: planStart(before, prove, files) };
  }

  /** Another server answers at the address: only GTIDs lead there. */
  async #failOver(control: ControlConnection, facts: ServerFacts, before: Checkpoint) {
    const { clock, log } = this.#parts;
    const gtidSet = await requireGtidPath(control, before, facts);
    const missing = await missingGtids(control, facts.flavour, deliveredGtids(before, gtidSet));
    const nowMs = clock.monotonicMs();
    this.#lacksSinceMs = missing === "" ? null : (this.#lacksSinceMs ?? nowMs);
    if (this.#lacksSinceMs !== null) {
      // A replica that is promoted in haste still applies what it has received.
      const isPatient = nowMs - this.#lacksSinceMs < this.#limits.replicaDelayMs;
      throw lacksTransactions(before, facts, missing, isPatient);
    }
    const from = atOtherServer(before, facts, clock.wallMs());
    log.notice("the database is another server now; capture goes on by GTID, in a new epoch", {
      before: serverName(before),
      now: serverName(facts),
      gtid: gtidSet,
      epoch: from.epoch,
    });
    return { from, start: startByGtid(gtidSet) };
  }

  async #readColumns(table: string) {
    await using control = await openControl(this.#parts.settings);
    return await readColumns(control, this.#parts.settings.database, table);
  }

  /** Waits out what a reconnect can mend; throws what it cannot. */
  async #endure(failure: AgentError, from: Checkpoint | null, signal: AbortSignal): Promise<void> {
    const { clock, observer } = this.#parts;
    observer.disconnected(failure.code);
    if (!this.#reconnects.mends(failure)) throw await this.#named(failure, from);
    this.#state = failure.code === "SCHEMA_UNKNOWN" ? "waiting" : "connecting";
    this.#step();
    this.#idWasTaken ||= failure.code === "SERVER_ID_TAKEN";
    await clock.sleep(this.#reconnects.failed(failure), signal);
  }

  #step(): void {
    this.#stepMs = this.#parts.clock.monotonicMs();
  }

  /** A lost position by its right name, when the server can still be asked. */
  async #named(failure: AgentError, from: Checkpoint | null): Promise<AgentError> {
    if (from === null) return failure;
    const lost = asLoss(failure, from, this.#failedOnTheWay);
    if (lost.code !== "POSITION_LOST") return failure;
    try {
      return await askAboutLoss(lost, from, this.#parts.settings);
    } catch {
      return lost;
    }
  }

  #recovered(): void {
    if (this.#state === "streaming") return;
    this.#state = "streaming";
    this.#parts.observer.connected();
    this.#reconnects.recovered();
  }
}
