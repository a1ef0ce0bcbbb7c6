/**
 * All metrics, by name, in one table. The first five names are those that dashboards already use;
 * everything else begins with `edge_agent_`.
 */
import { collectDefaultMetrics, Counter, Gauge, Registry } from "prom-client";
import type { AgentFacts } from "./facts.ts";
import { secondsLeft } from "../ports.ts";
import { binlogHours } from "./clocks.ts";
import { TimesHistogram } from "./times-histogram.ts";

const publishBuckets = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600];
const fsyncBuckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];

interface MetricRow {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly labels: readonly string[];
  readonly buckets?: readonly number[];
}

export const metricTable = {
  sync_duration_seconds: {
    kind: "histogram",
    help: "Seconds from capture to acceptance by the broker, without time on hold.",
    labels: ["table", "status"],
    buckets: publishBuckets,
  },
  sync_total: {
    kind: "counter",
    help: "Events by table, operation and outcome.",
    labels: ["table", "op", "status"],
  },
  sync_errors_total: {
    kind: "counter",
    help: "Failures by table and type.",
    labels: ["table", "error_type"],
  },
  sync_lag_seconds: {
    kind: "gauge",
    help: "Seconds from commit to acceptance by the broker; grows while something waits.",
    labels: ["table"],
  },
  sync_batch_size: { kind: "gauge", help: "Events in the last bulk publish.", labels: [] },
  edge_agent_build_info: { kind: "gauge", help: "Always 1.", labels: ["version", "commit", "node"] },
  edge_agent_start_time_seconds: { kind: "gauge", help: "When the agent was started.", labels: [] },
  edge_agent_ready: { kind: "gauge", help: "1 once the agent was ready.", labels: [] },
  edge_agent_rows_captured_total: { kind: "counter", help: "Row images of followed tables.", labels: [] },
  edge_agent_events_captured_total: {
    kind: "counter",
    help: "Events that were written to the spool.",
    labels: [],
  },
  edge_agent_suppressed_total: {
    kind: "counter",
    help: "Changes that touched no mapped field and so gave no event.",
    labels: [],
  },
  edge_agent_source_connected: { kind: "gauge", help: "1 while the binlog is read.", labels: [] },
  edge_agent_capture_halted: {
    kind: "gauge",
    help: "1 while nothing is captured until somebody acts, by error code and case.",
    labels: ["code", "case"],
  },
  edge_agent_source_connects_total: { kind: "counter", help: "Connections to the binlog.", labels: [] },
  edge_agent_source_disconnects_total: {
    kind: "counter",
    help: "Ends of a connection, by code.",
    labels: ["code"],
  },
  edge_agent_source_bytes_total: { kind: "counter", help: "Bytes of binlog that were read.", labels: [] },
  edge_agent_source_newest_commit_timestamp_seconds: {
    kind: "gauge",
    help: "Newest commit time that the source has shown.",
    labels: [],
  },
  edge_agent_oddities_total: {
    kind: "counter",
    help: "Counted oddities of the source.",
    labels: ["what", "table"],
  },
  edge_agent_spool_bytes: { kind: "gauge", help: "Bytes that the state directory uses.", labels: [] },
  edge_agent_spool_bytes_max: { kind: "gauge", help: "Most bytes that it may use.", labels: [] },
  edge_agent_spool_events: { kind: "gauge", help: "Events that wait in the spool.", labels: [] },
  edge_agent_spool_oldest_age_seconds: {
    kind: "gauge",
    help: "Age of the oldest of them since its capture.",
    labels: [],
  },
  edge_agent_disk_free_bytes: {
    kind: "gauge",
    help: "Free bytes of the state directory's volume.",
    labels: [],
  },
  edge_agent_disk_free_min_bytes: { kind: "gauge", help: "Free bytes that are left to others.", labels: [] },
  edge_agent_intake_closed: { kind: "gauge", help: "1 while reading waits, by reason.", labels: ["code"] },
  edge_agent_spool_damaged_queues: {
    kind: "gauge",
    help: "Queues that wait because a record of theirs is damaged.",
    labels: [],
  },
  edge_agent_spool_damages_healed_total: {
    kind: "counter",
    help: "Healed damages of the spool: rewound (read again), gap (lost), repaired or made anew (the database).",
    labels: ["how"],
  },
  edge_agent_fsync_seconds: {
    kind: "histogram",
    help: "Seconds of one synced write of the spool.",
    labels: [],
    buckets: fsyncBuckets,
  },
  edge_agent_synced_bytes_total: { kind: "counter", help: "Bytes of synced writes.", labels: [] },
  edge_agent_binlog_runway_hours: {
    kind: "gauge",
    help: "Hours that the server keeps at least what is still needed; +Inf: it purges nothing, NaN: not known.",
    labels: [],
  },
  edge_agent_spool_runway_hours: {
    kind: "gauge",
    help: "Hours until the spool is full at the pace of the last minutes; +Inf: it does not grow, NaN: not known.",
    labels: [],
  },
  edge_agent_snapshot_jobs: { kind: "gauge", help: "Snapshots and resyncs that are not done.", labels: [] },
  edge_agent_snapshot_rows: {
    kind: "gauge",
    help: "Rows that the one under way has read.",
    labels: ["table", "reason"],
  },
  edge_agent_snapshot_rows_estimated: {
    kind: "gauge",
    help: "Rows that it has to read, as the server estimates them.",
    labels: ["table", "reason"],
  },
  edge_agent_snapshot_seconds_left: {
    kind: "gauge",
    help: "Seconds until they are read, by that estimate and the present pace; NaN while that is not known.",
    labels: ["table", "reason"],
  },
  edge_agent_snapshot_paused: { kind: "gauge", help: "1 while the reading of rows is paused.", labels: [] },
  edge_agent_index_incomplete: {
    kind: "gauge",
    help: "Relations of the index that may lack children until they are scanned.",
    labels: [],
  },
  edge_agent_verify_open: {
    kind: "gauge",
    help: "Comparisons with the consumers (verify) that are not done.",
    labels: [],
  },
  edge_agent_verify_rows_compared_total: {
    kind: "counter",
    help: "Rows that consumers compared with the source.",
    labels: ["table"],
  },
  edge_agent_verify_drifts_total: {
    kind: "counter",
    help: "Rows that had drifted apart, by kind: missing, changed, extra, ahead.",
    labels: ["table", "kind"],
  },
  edge_agent_held_topics: { kind: "gauge", help: "Topics on hold.", labels: [] },
  edge_agent_topic_held: { kind: "gauge", help: "1 while the topic is on hold.", labels: ["topic", "code"] },
  edge_agent_quarantine_events: { kind: "gauge", help: "Events in quarantine.", labels: [] },
  edge_agent_quarantined_total: {
    kind: "counter",
    help: "Events that went into quarantine.",
    labels: ["table", "code"],
  },
  edge_agent_last_accepted_timestamp_seconds: {
    kind: "gauge",
    help: "When the broker last accepted an event.",
    labels: [],
  },
} as const satisfies Record<string, MetricRow>;

export type MetricName = keyof typeof metricTable;
type NameOf<K extends MetricRow["kind"]> = {
  [N in MetricName]: (typeof metricTable)[N]["kind"] extends K ? N : never;
}[MetricName];

/** The registry with one metric for each row of the table. */
export class Metrics {
  readonly registry = new Registry();
  readonly #counters = new Map<string, Counter>();
  readonly #gauges = new Map<string, Gauge>();
  readonly #histograms = new Map<string, TimesHistogram>();
  readonly #tellers: (() => void)[] = [];
  readonly #collect: () => Promise<AgentFacts>;

  /** `collect` is asked at every scrape. */
  constructor(collect: () => Promise<AgentFacts>) {
    this.#collect = collect;
    const registers = [this.registry];
    for (const [name, row] of Object.entries<MetricRow>(metricTable)) {
      const options = { name, help: row.help, labelNames: [...row.labels], registers };
      if (row.kind === "counter") this.#counters.set(name, new Counter(options));
      else if (row.kind === "gauge") this.#gauges.set(name, new Gauge(options));
      else
        this.#histograms.set(
          name,
          new TimesHistogram({ ...options, buckets: [...(row.buckets ?? publishBuckets)] }),
        );
    }
  }

  /** Adds what the runtime knows of itself (processor time, memory, event loop). */
  watchProcess(): void {
    collectDefaultMetrics({ register: this.registry });
  }

  counter(name: NameOf<"counter">): Counter {
    return found(this.#counters, name);
  }

  gauge(name: NameOf<"gauge">): Gauge {
    return found(this.#gauges, name);
  }

  histogram(name: NameOf<"histogram">): TimesHistogram {
    return found(this.#histograms, name);
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** Runs before each scrape: for what is cheaper to count elsewhere than to tell at once. */
  beforeScrape(tell: () => void): void {
    this.#tellers.push(tell);
  }

  /** The text of /metrics, with the facts of this moment. */
  async scrape(): Promise<string> {
    for (const tell of this.#tellers) tell();
    this.#apply(await this.#collect());
    return this.registry.metrics();
  }

  #apply(facts: AgentFacts): void {
    this.gauge("edge_agent_start_time_seconds").set(facts.startedAtMs / 1000);
    this.gauge("edge_agent_ready").set(facts.ready ? 1 : 0);
    const reading = facts.source.state === "streaming" || facts.source.state === "paused";
    this.gauge("edge_agent_source_connected").set(reading ? 1 : 0);
    const halted = this.gauge("edge_agent_capture_halted");
    halted.reset();
    if (facts.halted !== null) {
      halted.set({ code: facts.halted.code, case: facts.halted.detail ?? "" }, 1);
    }
    const lag = this.gauge("sync_lag_seconds");
    for (const [table, seconds] of facts.lagSeconds) lag.set({ table }, seconds);
    this.#applySpool(facts);
    this.gauge("edge_agent_binlog_runway_hours").set(
      binlogHours(facts.runway.binlog, facts.nowMs) ?? Number.NaN,
    );
    this.gauge("edge_agent_spool_runway_hours").set(facts.runway.spoolHours ?? Number.NaN);
    this.#applySnapshot(facts);
    const open = facts.verifications.filter(({ state }) => state !== "done");
    this.gauge("edge_agent_verify_open").set(open.length);
    const held = this.gauge("edge_agent_topic_held");
    held.reset();
    for (const { topic, code } of facts.held) held.set({ topic, code }, 1);
    this.gauge("edge_agent_held_topics").set(facts.held.length);
    const closed = this.gauge("edge_agent_intake_closed");
    for (const code of ["SPOOL_FULL", "DISK_FULL"])
      closed.set({ code }, facts.intakeClosed?.code === code ? 1 : 0);
    if (facts.accepted.lastAtMs !== null) {
      this.gauge("edge_agent_last_accepted_timestamp_seconds").set(facts.accepted.lastAtMs / 1000);
    }
  }

  #applySnapshot({ snapshot, index }: AgentFacts): void {
    const incomplete = index.filter(({ completeSince }) => completeSince === null).length;
    this.gauge("edge_agent_index_incomplete").set(incomplete);
    const rows = this.gauge("edge_agent_snapshot_rows");
    const estimated = this.gauge("edge_agent_snapshot_rows_estimated");
    const left = this.gauge("edge_agent_snapshot_seconds_left");
    rows.reset();
    estimated.reset();
    left.reset();
    this.gauge("edge_agent_snapshot_jobs").set(snapshot === null ? 0 : snapshot.waiting + 1);
    this.gauge("edge_agent_snapshot_paused").set(snapshot?.paused === true ? 1 : 0);
    if (snapshot === null) return;
    const { table, reason } = snapshot;
    rows.set({ table, reason }, snapshot.rows);
    if (snapshot.rowsEstimated !== null) estimated.set({ table, reason }, snapshot.rowsEstimated);
    left.set({ table, reason }, secondsLeft(snapshot) ?? Number.NaN);
  }

  #applySpool(facts: AgentFacts): void {
    const { spool } = facts;
    if (spool === null) return;
    this.gauge("edge_agent_spool_bytes").set(spool.bytes);
    this.gauge("edge_agent_spool_bytes_max").set(spool.bytesMax);
    this.gauge("edge_agent_spool_events").set(spool.events);
    this.gauge("edge_agent_spool_oldest_age_seconds").set(oldestAgeSeconds(facts));
    this.gauge("edge_agent_disk_free_bytes").set(spool.freeBytes);
    this.gauge("edge_agent_disk_free_min_bytes").set(spool.freeMinBytes);
    this.gauge("edge_agent_spool_damaged_queues").set(spool.damagedQueues);
    this.gauge("edge_agent_quarantine_events").set(spool.quarantined);
  }
}

/** Age of the oldest waiting event since its capture; 0 when nothing waits. */
export function oldestAgeSeconds(facts: AgentFacts): number {
  let oldestMs = facts.nowMs;
  for (const head of facts.heads) if (head.waiting > 0) oldestMs = Math.min(oldestMs, head.capturedAtMs);
  return (facts.nowMs - oldestMs) / 1000;
}

function found<T>(map: ReadonlyMap<string, T>, name: string): T {
  const metric = map.get(name);
  if (metric === undefined) throw new Error(`no metric ${name}`);
  return metric;
}
