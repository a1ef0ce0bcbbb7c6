/**
 * Database to committed transactions (ports.ts, ChangeSource). It keeps one stream going: connects,
 * proves that the position is what it was, reconnects for ever after a loss, and throws only what
 * no reconnect can mend.
 */
import {
  type Checkpoint,
  type FollowedTable,
  nextEpoch,
  type Position,
  type SourceItem,
  STATE_FORMAT_VERSION,
} from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { backoffDelayMs, type Clock, type Log } from "../kernel/service.ts";
import type { ChangeSource, SourceObserver, SourceStatus } from "../ports.ts";
import { connectionOptions, type ControlConnection, openControl } from "./control-connection.ts";
import { partLimits } from "./group-rows.ts";
import { findNewPlace, type NewPlace } from "./new-place.ts";
import { inspectServer } from "./preflight.ts";
import {
  readBinlogFiles,
  readColumns,
  readCurrentPosition,
  readServerFacts,
  type ServerFacts,
  type ServerPosition,
} from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";
import { watchSilence } from "./silent-stream.ts";
import { asLoss, askAboutLoss } from "./loss-inquiry.ts";
import { isDumpRefused, translateError } from "./source-errors.ts";
import { planStart, requirePosition, type Start, startWithoutCheckpoint } from "./start-position.ts";
import { Stream, type StreamLimits } from "./stream.ts";

export interface BinlogSourceParts {
  readonly settings: SourceSettings;
  readonly tables: readonly FollowedTable[];
  readonly observer: SourceObserver;
  readonly log: Log;
  readonly clock: Clock;
  /** For tests: smaller limits, shorter times. */
  readonly limits?: Partial<StreamLimits>;
  readonly silenceLookMs?: number;
}

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
  /** Looks up a place to begin anew: "current", FILE:POSITION or a GTID (new-place.ts). */
  placeAt(from: string): Promise<NewPlace>;
}

const defaultLimits: StreamLimits = {
  parts: partLimits,
  queueBytes: 1024 * 1024,
  pauseMs: 10_000,
  heartbeatMs: 5_000,
  pullRows: 500,
  pullBytes: 512 * 1024,
  progressMs: 1_000,
  progressBytes: 8 * 1024 * 1024,
};

const backoff = { firstMs: 200, maxMs: 5_000 } as const;
/** A stream from which nothing came is compared with the server's own position this often. */
const SILENCE_LOOK_MS = 20_000;
/** The same failure is said again after this time at the earliest. */
const LOG_AGAIN_MS = 30_000;
/** A server that has the position and refuses it this often will not give it. */
const REFUSALS_MAX = 5;

export function createBinlogSource(parts: BinlogSourceParts): BinlogSource {
  return new MysqlBinlogSource(parts);
}

class MysqlBinlogSource implements BinlogSource {
  readonly #parts: BinlogSourceParts;
  readonly #limits: StreamLimits;
  #stream: Stream | null = null;
  #reason: string | null = null;
  #server: string | null = null;
  #state: "stopped" | "connecting" | "streaming" | "waiting" = "stopped";
  #connects = 0;
  #failures = 0;
  #refusals = 0;
  /** The connection ended before it had come to where the checkpoint stands. */
  #failedOnTheWay = false;
  /** Where the last unreadable event stood: a second one there is no accident of the network. */
  #unreadableAt: string | null = null;
  #loggedCode: string | null = null;
  #loggedAtMs = 0;
  #stepMs = 0;

  constructor(parts: BinlogSourceParts) {
    this.#parts = parts;
    this.#limits = { ...defaultLimits, ...parts.limits };
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
    // The proof is for what may have changed: at the start, and after a lost connection.
    let prove = true;
    const watching = new AbortController();
    void this.#watchSilence(stream, watching.signal);
    try {
      while (!signal.aborted) {
        const items = stream.take();
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
          yield [{ kind: "progress", commitTimeMs: null, checkpoint: begun }];
      }
    } finally {
      watching.abort();
      stream.close();
      this.#state = "stopped";
      this.#stream = null;
    }
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
      reason: this.#reason,
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
      const { from, start } = await this.#startFor(control, facts, before, prove);
      this.#step();
      if (signal.aborted) return false;
      stream.open({
        flavour: facts.flavour,
        from,
        expected: start.expected,
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

  async #startFor(
    control: ControlConnection,
    facts: ServerFacts,
    before: Checkpoint | null,
    prove: boolean,
  ): Promise<{ readonly from: Checkpoint; readonly start: Start }> {
    if (before !== null) {
      const files = await readBinlogFiles(control);
      requirePosition(before, facts, files);
      return { from: before, start: planStart(before, prove, files) };
    }
    const start = await startWithoutCheckpoint(control, this.#parts.settings, facts);
    return { from: this.#newCheckpoint(start.from, facts), start };
  }

  #newCheckpoint(
    place: ServerPosition & { readonly resumePosition: number },
    facts: ServerFacts,
  ): Checkpoint {
    return {
      formatVersion: STATE_FORMAT_VERSION,
      epoch: nextEpoch(null, this.#parts.clock.wallMs()),
      file: place.file,
      position: place.position,
      resumePosition: place.resumePosition,
      gtidSet: place.gtidSet,
      serverId: facts.serverId,
      serverUuid: facts.serverUuid,
      lastTransaction: null,
      partial: null,
      newestCommitMs: 0,
    };
  }

  async #readColumns(table: string) {
    await using control = await openControl(this.#parts.settings);
    return await readColumns(control, this.#parts.settings.database, table);
  }

  /** Waits out what a reconnect can mend; throws what it cannot. */
  async #endure(failure: AgentError, from: Checkpoint | null, signal: AbortSignal): Promise<void> {
    const { log, clock, observer } = this.#parts;
    observer.disconnected(failure.code);
    if (!this.#mendable(failure)) throw await this.#named(failure, from);
    this.#failures += 1;
    this.#state = failure.code === "SCHEMA_UNKNOWN" ? "waiting" : "connecting";
    this.#reason = failure.message;
    this.#step();
    const delayMs = backoffDelayMs(this.#failures, backoff);
    const nowMs = clock.monotonicMs();
    if (failure.code !== this.#loggedCode || nowMs - this.#loggedAtMs >= LOG_AGAIN_MS) {
      this.#loggedCode = failure.code;
      this.#loggedAtMs = nowMs;
      log.warn("the database's stream is interrupted", {
        code: failure.code,
        reason: failure.message,
        hint: failure.hint,
        failures: this.#failures,
        nextTryMs: Math.round(delayMs),
      });
    }
    await clock.sleep(delayMs, signal);
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

  #mendable(failure: AgentError): boolean {
    if (isDumpRefused(failure) && failure.code === "SOURCE_UNREACHABLE") {
      this.#refusals += 1;
      if (this.#refusals < REFUSALS_MAX) return true;
      return false;
    }
    if (failure.code === "SOURCE_UNREADABLE") {
      // A flipped bit on the way is mended by reading again; the same place twice is not that.
      const place = failure.message;
      const again = place === this.#unreadableAt;
      this.#unreadableAt = place;
      return !again;
    }
    return [
      "SOURCE_UNREACHABLE",
      "SOURCE_AUTH",
      "SOURCE_RIGHTS",
      "SERVER_ID_TAKEN",
      "SCHEMA_UNKNOWN",
    ].includes(failure.code);
  }

  #recovered(): void {
    if (this.#state === "streaming") return;
    this.#state = "streaming";
    this.#reason = null;
    this.#refusals = 0;
    this.#parts.observer.connected();
    if (this.#loggedCode !== null) {
      this.#parts.log.notice("the database's stream goes on", { failures: this.#failures });
    }
    this.#loggedCode = null;
    this.#failures = 0;
  }
}
