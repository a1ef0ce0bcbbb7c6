/**
 * The one listener of all rooms: counts into the metrics, keeps what health and status need, and
 * writes the log lines of failures and recoveries (each at most every 30 seconds). Label children
 * are kept by table, so that an event costs a map look-up and no allocation.
 */
import type { Counter } from "prom-client";
import type { Op } from "../change.ts";
import type { Clock, Log } from "../kernel/service.ts";
import type { CaptureObserver, ForwardObserver, Published, SourceObserver, SpoolObserver } from "../ports.ts";
import { type AgentFacts, type DriftCounts, driftKinds, type HeldTopic, type QueueHead } from "./facts.ts";
import { LagMeter } from "./lag.ts";
import { RepeatLog } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import type { TimesCell } from "./times-histogram.ts";

interface AcceptedCount {
  readonly counter: Counter.Internal;
  untold: number;
}

interface TableMetrics {
  readonly duration: TimesCell;
  /** By operation; those that the library does not know of yet. */
  readonly accepted: Map<Op | "", AcceptedCount>;
}

export class Observer implements CaptureObserver, SourceObserver, SpoolObserver, ForwardObserver {
  readonly #metrics: Metrics;
  readonly #log: Log;
  readonly #repeats: RepeatLog;
  readonly #clock: Clock;
  readonly #fsync: TimesCell;
  readonly #lag = new LagMeter();
  readonly #tables = new Map<string, TableMetrics>();
  readonly #held = new Map<string, HeldTopic>();
  readonly #oddities = new Set<string>();
  #closed: { code: string; message: string } | null = null;
  #acceptedEvents = 0;
  #lastAcceptedMs: number | null = null;
  #lastSeconds: number | null = null;
  #newestCommitMs = 0;

  constructor(metrics: Metrics, log: Log, clock: Clock) {
    this.#metrics = metrics;
    this.#log = log;
    this.#clock = clock;
    this.#repeats = new RepeatLog(log, clock);
    this.#fsync = metrics.histogram("edge_agent_fsync_seconds").cell({});
    metrics.beforeScrape(() => this.#tellAccepted());
  }

  // ---- what health, status and metrics ask

  get heldTopics(): readonly HeldTopic[] {
    return [...this.#held.values()];
  }

  get closedIntake(): AgentFacts["intakeClosed"] {
    return this.#closed;
  }

  get acceptance(): AgentFacts["accepted"] {
    return { events: this.#acceptedEvents, lastAtMs: this.#lastAcceptedMs, lastSeconds: this.#lastSeconds };
  }

  lagSeconds(heads: readonly QueueHead[], nowMs: number): ReadonlyMap<string, number> {
    return this.#lag.seconds(heads, nowMs);
  }

  // ---- capture

  batchCaptured(facts: {
    readonly rows: number;
    readonly events: number;
    readonly suppressed: number;
  }): void {
    this.#metrics.counter("edge_agent_rows_captured_total").inc(facts.rows);
    this.#metrics.counter("edge_agent_events_captured_total").inc(facts.events);
    this.#metrics.counter("edge_agent_suppressed_total").inc(facts.suppressed);
  }

  commitSeen(commitTimeMs: number): void {
    if (commitTimeMs <= this.#newestCommitMs) return;
    this.#newestCommitMs = commitTimeMs;
    this.#metrics.gauge("edge_agent_source_newest_commit_timestamp_seconds").set(commitTimeMs / 1000);
  }

  /** What a consumer reported of a verification. */
  verified(table: string, counts: DriftCounts): void {
    this.#metrics.counter("edge_agent_verify_rows_compared_total").inc({ table }, counts.compared);
    for (const kind of driftKinds)
      this.#metrics.counter("edge_agent_verify_drifts_total").inc({ table, kind }, counts[kind]);
  }

  // ---- source

  connected(): void {
    this.#metrics.counter("edge_agent_source_connects_total").inc();
  }

  disconnected(code: string): void {
    // The source itself logs why, and when it goes on.
    this.#metrics.counter("edge_agent_source_disconnects_total").inc({ code });
  }

  bytesRead(bytes: number): void {
    this.#metrics.counter("edge_agent_source_bytes_total").inc(bytes);
  }

  oddity(what: string, table: string): void {
    this.#metrics.counter("edge_agent_oddities_total").inc({ what, table });
    const key = `${what} ${table}`;
    if (this.#oddities.has(key) || this.#oddities.size > 1000) return;
    this.#oddities.add(key);
    this.#log.notice("an oddity in the source; counted from now on, logged once", { what, table });
  }

  // ---- spool

  synced(facts: { readonly seconds: number; readonly events: number; readonly bytes: number }): void {
    this.#fsync.observe(facts.seconds);
    this.#metrics.counter("edge_agent_synced_bytes_total").inc(facts.bytes);
  }

  damageHealed(how: string): void {
    this.#metrics.counter("edge_agent_spool_damages_healed_total").inc({ how: how.replaceAll(" ", "_") });
  }

  intakeClosed(code: "SPOOL_FULL" | "DISK_FULL", message: string): void {
    this.#closed = { code, message };
    this.#repeats.failed("intake", message, { code });
  }

  intakeOpened(): void {
    this.#closed = null;
    this.#repeats.recovered("intake", "there is room again; reading goes on");
  }

  // ---- forward

  published({ table, op, commitTimeMs }: Published, seconds: number, snapshot: boolean): void {
    const nowMs = this.#clock.wallMs();
    this.#acceptedEvents++;
    this.#lastAcceptedMs = nowMs;
    this.#lastSeconds = seconds;
    if (table === "") return;
    const metrics = this.#tables.get(table) ?? this.#tableMetrics(table);
    metrics.duration.observe(seconds);
    let accepted = metrics.accepted.get(op);
    if (accepted === undefined) {
      const counter = this.#metrics.counter("sync_total").labels(table, op, "success");
      accepted = { counter, untold: 0 };
      metrics.accepted.set(op, accepted);
    }
    accepted.untold++;
    if (!snapshot) this.#lag.delivered(table, commitTimeMs, nowMs);
  }

  publishFailed(facts: { readonly table: string; readonly errorType: string }): void {
    this.#metrics.counter("sync_errors_total").inc({ table: facts.table, error_type: facts.errorType });
  }

  batchSent(events: number): void {
    this.#metrics.gauge("sync_batch_size").set(events);
  }

  held(topic: string, code: string, message: string): void {
    const sinceMs = this.#held.get(topic)?.sinceMs ?? this.#clock.wallMs();
    this.#held.set(topic, { topic, code, message, sinceMs });
    this.#repeats.failed(`topic ${topic}`, "delivery is on hold; the spool keeps the events", {
      topic,
      code,
      reason: message,
    });
  }

  released(topic: string): void {
    this.#held.delete(topic);
    this.#repeats.recovered(`topic ${topic}`, "delivery goes on", { topic });
  }

  quarantined(table: string, code: string): void {
    this.#metrics.counter("edge_agent_quarantined_total").inc({ table, code });
    this.#metrics.counter("sync_total").inc({ table, op: "", status: "error" });
    this.#repeats.failed(`quarantine ${table} ${code}`, "an event was refused and went into quarantine", {
      table,
      code,
    });
  }

  /** The library's counters cost objects at every step, so they are told of many at once. */
  #tellAccepted(): void {
    for (const { accepted } of this.#tables.values()) {
      for (const count of accepted.values()) {
        count.counter.inc(count.untold);
        count.untold = 0;
      }
    }
  }

  #tableMetrics(table: string): TableMetrics {
    const made: TableMetrics = {
      duration: this.#metrics.histogram("sync_duration_seconds").cell({ table, status: "success" }),
      accepted: new Map(),
    };
    this.#tables.set(table, made);
    return made;
  }
}
