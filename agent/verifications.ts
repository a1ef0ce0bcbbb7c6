/**
 * Watches over verifications: digests of an entity are read and sent as rows are, a consumer compares
 * them, and what it reports as drifted apart is read again and then compared once more. What is under
 * way is kept in the state, so a restart goes on where it was.
 *
 * Bounds: a report is asked for during a day; drift is healed once, and what still differs then ends
 * with an error in the log.
 */
import type { Checkpoint } from "./change.ts";
import { AgentError } from "./kernel/errors.ts";
import { backoffDelayMs, type Clock, type Log } from "./kernel/service.ts";
import {
  type DriftCounts,
  driftedRows,
  type VerificationFacts,
  type VerifyOutcome,
} from "./observe/facts.ts";
import type { EventEncoder, QueueState, VerificationReports } from "./ports.ts";
import type { JobRequest, ResyncAccepted } from "./snapshots.ts";
import type { StateValues } from "./state-guard.ts";
import {
  healingScopes,
  isStored,
  newRecord,
  pruned,
  type VerificationRecord,
} from "./verification-records.ts";
import { parseReport, type VerifyReport } from "./verify-report.ts";

export interface VerificationParts {
  readonly spool: {
    readonly meta: StateValues;
    checkpoint(): Checkpoint | null;
    queues(): readonly QueueState[];
  };
  readonly instance: string;
  /** Table and topic of the mapping's entities. */
  readonly entities: () => readonly VerifiedEntity[];
  /** Adds jobs while capture rests. Rejects with COMMAND_REFUSED. */
  readonly addJobs: (requests: readonly JobRequest[]) => Promise<readonly ResyncAccepted[]>;
  /** Null: nobody told where consumers report. */
  readonly reports: VerificationReports | null;
  readonly reported: (table: string, counts: DriftCounts) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface VerifiedEntity {
  readonly entity: string;
  readonly table: string;
  readonly topic: string;
}

/** What is asked to be compared. */
export type VerifyRequest = Pick<JobRequest, "entity" | "scope">;

export interface VerifyAccepted extends ResyncAccepted {
  readonly instance: string;
  /** Whether the agent asks a consumer for what it found. */
  readonly asks: boolean;
}

const STORED = "verifications";
const TICK_MS = 500;
const ASK_MAX_MS = 24 * 3_600_000;
const askAgain = { firstMs: 1_000, maxMs: 15_000 } as const;
const askLater = { firstMs: 2_000, maxMs: 60_000 } as const;

export class Verifications {
  readonly #parts: VerificationParts;
  #records: readonly VerificationRecord[];
  /** Of this process: jobs that were seen waiting, and those whose last digest was made. */
  readonly #seen = new Set<number>();
  readonly #made = new Set<number>();
  /** Where the bulk lane ended when the last digest was in it. */
  readonly #through = new Map<number, number>();
  readonly #asked = new Map<number, number>();
  #nextAskMs = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #wake: (() => void) | null = null;

  static async open(parts: VerificationParts): Promise<Verifications> {
    const stored = await parts.spool.meta.get(STORED);
    return new Verifications(parts, isStored(stored) ? stored.records : []);
  }

  private constructor(parts: VerificationParts, records: readonly VerificationRecord[]) {
    this.#parts = parts;
    this.#records = records;
  }

  facts(): readonly VerificationFacts[] {
    return this.#records;
  }

  /** The encoder, watched: it alone knows that the last digest of a verification was made. */
  over(encoder: EventEncoder): EventEncoder {
    return {
      tables: encoder.tables,
      takeSuppressed: () => encoder.takeSuppressed(),
      encode: (item, context) => {
        if (item.kind === "chunk" && item.isLast && item.job.purpose === "digests") {
          this.#made.add(item.job.generation);
        }
        return encoder.encode(item, context);
      },
    };
  }

  /** Has an entity compared. Rejects with COMMAND_REFUSED. */
  async start({ entity, scope }: VerifyRequest): Promise<VerifyAccepted> {
    const { addJobs, instance, reports } = this.#parts;
    const [accepted] = await addJobs([{ entity, scope, purpose: "digests" }]);
    if (accepted === undefined) throw new Error("a job that was added has no generation");
    const record = this.#record({ ...accepted, scope, recheckOf: null });
    this.#seen.add(record.generation);
    await this.#keep([...this.#records.filter((one) => one.generation !== record.generation), record]);
    this.#wake?.();
    return { ...accepted, instance, asks: reports !== null };
  }

  /** Until the signal aborts. Rejects when the spool does. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#tick();
      const hasWork = this.#records.some(({ state }) => state !== "done");
      await (hasWork ? this.#parts.clock.sleep(TICK_MS, signal) : this.#untilWoken(signal));
    }
  }

  async close(): Promise<void> {
    await this.#parts.reports?.close();
  }

  #untilWoken(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener("abort", done);
        this.#wake = null;
        resolve();
      };
      this.#wake = done;
      signal.addEventListener("abort", done, { once: true });
      if (signal.aborted) done();
    });
  }

  async #tick(): Promise<void> {
    const waiting = this.#waiting();
    const known = new Set(this.#records.map(({ generation }) => generation));
    // One whose record a crash prevented, or that began anew under another number.
    const unknown = [...waiting.values()].filter(({ generation }) => !known.has(generation));
    if (unknown.length > 0) await this.#keep([...this.#records, ...unknown]);
    for (const { generation } of this.#records) {
      const record = this.#records.find((one) => one.generation === generation);
      if (record !== undefined && record.state !== "done") await this.#step(record, waiting.has(generation));
    }
  }

  /** What is still to be read, by generation. */
  #waiting(): ReadonlyMap<number, VerificationRecord> {
    const found = new Map<number, VerificationRecord>();
    for (const { purpose, generation, table, scope } of this.#parts.spool.checkpoint()?.snapshot?.jobs ??
      []) {
      const entity = this.#parts.entities().find((one) => one.table === table)?.entity;
      if (purpose !== "digests" || entity === undefined) continue;
      this.#seen.add(generation);
      found.set(generation, this.#record({ entity, generation, scope, recheckOf: null }));
    }
    return found;
  }

  async #step(record: VerificationRecord, isWaiting: boolean): Promise<void> {
    const { generation, entity, state } = record;
    if (isWaiting) {
      // Also again: after damage of the spool its rows may be read once more.
      if (state !== "reading") await this.#change(record, { state: "reading" });
    } else if (state === "reading") {
      if (this.#seen.has(generation) && !this.#made.has(generation)) {
        return this.#end(record, "unread", "its rows could not be read; the log says why");
      }
      this.#through.set(generation, this.#lane(entity)?.last ?? 0);
      await this.#change(record, { state: "delivering" });
    } else if (state === "delivering") {
      const lane = this.#lane(entity);
      const through = this.#through.get(generation) ?? lane?.last ?? 0;
      this.#through.set(generation, through);
      if (lane === undefined || lane.acked >= through) await this.#sent(record);
    } else if (state === "asking") await this.#ask(record);
    else await this.#conclude(record);
  }

  #lane(entity: string): QueueState | undefined {
    const topic = this.#parts.entities().find((one) => one.entity === entity)?.topic;
    return this.#parts.spool.queues().find(({ queue, lane }) => queue === topic && lane === "bulk");
  }

  async #sent(record: VerificationRecord): Promise<void> {
    const { clock, reports, log } = this.#parts;
    const { entity, generation } = record;
    const sentAtMs = clock.wallMs();
    if (reports !== null) {
      await this.#change(record, { state: "asking", sentAtMs });
      log.notice("all digests were sent; a consumer is asked for its report", { entity, generation });
      return;
    }
    const hint = `magento-edge-agent resync ${entity} --keys=ID,... heals it`;
    log.notice("all digests were sent; drift is reported at the consumers", { entity, generation, hint });
    await this.#change(record, { sentAtMs, state: "done", outcome: "sent", endedAtMs: sentAtMs });
  }

  async #ask(record: VerificationRecord): Promise<void> {
    const { clock, reports, log, instance } = this.#parts;
    const { entity, generation, sentAtMs } = record;
    const nowMs = clock.wallMs();
    if (nowMs - (sentAtMs ?? nowMs) > ASK_MAX_MS || reports === null) {
      log.warn("no consumer has reported what it found", { entity, generation });
      return this.#end(record, "unreported", "no consumer has reported in time; see VERIFY_REPORTS_URL");
    }
    if (clock.monotonicMs() < Math.max(this.#nextAskMs, this.#asked.get(generation) ?? 0)) return;
    const answer = await reports.read(instance, generation);
    const about = { instance, generation, entity };
    const report = answer.kind === "found" ? parseReport(answer.body, about) : null;
    const trouble =
      answer.kind === "unavailable" ? answer.reason : typeof report === "string" ? report : null;
    if (trouble !== null) return this.#unavailable(trouble);
    this.#failures = 0;
    if (typeof report === "object" && report?.complete === true) return this.#reported(record, report);
    const waitedMs = nowMs - (sentAtMs ?? nowMs);
    this.#asked.set(
      generation,
      clock.monotonicMs() + Math.min(askAgain.maxMs, Math.max(askAgain.firstMs, waitedMs / 4)),
    );
  }

  #unavailable(reason: string): void {
    const { clock, log } = this.#parts;
    this.#failures += 1;
    this.#nextAskMs = clock.monotonicMs() + backoffDelayMs(this.#failures, askLater);
    if (this.#failures === 1)
      log.warn("a consumer cannot be asked for its report; it is tried again", { reason });
  }

  async #reported(record: VerificationRecord, report: VerifyReport): Promise<void> {
    const { complete: _complete, keys, ...counts } = report;
    const { entity, generation, recheckOf } = record;
    const { log, reported, entities } = this.#parts;
    const table = entities().find((one) => one.entity === entity)?.table;
    if (table !== undefined) reported(table, counts);
    const about = { entity, generation, ...counts };
    const drifted = driftedRows(counts);
    const judged = { ...record, counts };
    if (drifted === 0 && counts.undeliverable === 0) {
      log.notice("a verification found no drift", about);
      return this.#end(judged, "equal", null);
    }
    if (drifted === 0) {
      log.warn("a verification found no drift, and rows that are too large to be delivered", about);
      return this.#end(judged, "incomplete", "rows are too large to be delivered; see the quarantine");
    }
    if (recheckOf === null) return this.#heal(judged, keys, drifted);
    log.error("rows still differ after they were read again", {
      ...about,
      hint: "See magento-edge-agent quarantine ls, and the dead letters: their events may have been refused.",
    });
    return this.#end(judged, "drift", "rows still differ after they were read again");
  }

  async #heal(record: VerificationRecord, keys: VerifyReport["keys"], drifted: number): Promise<void> {
    const { entity, generation } = record;
    const { log, addJobs } = this.#parts;
    const scopes = healingScopes(record.scope, keys, drifted);
    const requests = scopes.flatMap((scope): JobRequest[] => [
      { entity, scope, purpose: "rows" },
      { entity, scope, purpose: "digests" },
    ]);
    let accepted: readonly ResyncAccepted[];
    try {
      accepted = await addJobs(requests);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      const hint = `magento-edge-agent resync ${entity} heals it`;
      log.error("a verification found drift that is not healed", {
        entity,
        generation,
        drifted,
        reason: error.message,
        hint,
      });
      return this.#end(record, "drift", `it is not healed: ${error.message}`);
    }
    const resyncs = accepted.filter((_one, index) => requests[index]?.purpose === "rows");
    const rechecks = accepted.flatMap((one, index): VerificationRecord[] => {
      const request = requests[index];
      if (request?.purpose !== "digests") return [];
      return [this.#record({ ...one, scope: request.scope, recheckOf: generation })];
    });
    log.warn("a verification found drift; the rows are read again, and compared once more", {
      entity,
      generation,
      ...record.counts,
      read_again: scopes
        .map((scope) => (scope.kind === "keys" ? `${scope.keys.length} keys` : scope.kind))
        .join(", "),
      resyncs: resyncs.map((one) => one.generation).join(","),
    });
    const healing: VerificationRecord = {
      ...record,
      state: "healing",
      resyncs: resyncs.map((one) => one.generation),
    };
    await this.#keep([
      ...this.#records.map((one) => (one.generation === generation ? healing : one)),
      ...rechecks,
    ]);
  }

  /** The outcome of what was healed is that of the second look. */
  async #conclude(record: VerificationRecord): Promise<void> {
    const { entity, generation } = record;
    const rechecks = this.#records.filter(({ recheckOf }) => recheckOf === generation);
    if (rechecks.some(({ state }) => state !== "done")) return;
    const bad = rechecks.find(({ outcome }) => outcome !== "equal");
    if (bad === undefined && rechecks.length > 0) {
      this.#parts.log.notice("the drift of a verification is healed", { entity, generation });
      return this.#end(record, "healed", null);
    }
    if (bad?.outcome === "drift") return this.#end(record, "drift", bad.reason);
    const hint = `magento-edge-agent resync ${entity} --all heals it`;
    this.#parts.log.error("drift was not shown to be healed", {
      entity,
      generation,
      reason: bad?.reason,
      hint,
    });
    return this.#end(
      record,
      "drift",
      `it was not shown to be healed: ${bad?.reason ?? "nothing was compared"}; ${hint}`,
    );
  }

  async #end(record: VerificationRecord, outcome: VerifyOutcome, reason: string | null): Promise<void> {
    const { generation } = record;
    for (const forgotten of [this.#seen, this.#made, this.#through, this.#asked])
      forgotten.delete(generation);
    const endedAtMs = this.#parts.clock.wallMs();
    await this.#change(record, { ...record, state: "done", outcome, reason, endedAtMs });
  }

  #record(made: Omit<Parameters<typeof newRecord>[0], "nowMs">): VerificationRecord {
    return newRecord({ ...made, nowMs: this.#parts.clock.wallMs() });
  }

  async #change({ generation }: VerificationRecord, changed: Partial<VerificationRecord>): Promise<void> {
    await this.#keep(
      this.#records.map((one) => (one.generation === generation ? { ...one, ...changed } : one)),
    );
  }

  /** Durable when it resolves. */
  async #keep(records: readonly VerificationRecord[]): Promise<void> {
    this.#records = pruned(records);
    await this.#parts.spool.meta.put(STORED, { records: this.#records });
  }
}
