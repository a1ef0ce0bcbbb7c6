/**
 * Puts the rooms together for `run`: opens the state, checks it against the settings, makes source,
 * transform, forwarder and the listeners, and knows the order in which all of it ends.
 *
 * Start: spool -> source (first connection) -> listeners -> READY -> both loops.
 * End: stop capture -> drain forward -> close what listens -> close the spool.
 */
import { Adoption, adoptState, guardMachine } from "./adoption.ts";
import { CaptureRounds } from "./capture-rounds.ts";
import { Capture } from "./capture.ts";
import type { Checkpoint } from "./change.ts";
import { buildInfo } from "./commands/build-info.ts";
import type { ReadAgain } from "./commands/quarantine-desk.ts";
import type { DiskLimits } from "./config/derived.ts";
import type { Settings } from "./config/settings-table.ts";
import { Completeness } from "./forward/completeness.ts";
import { DaprClient } from "./forward/dapr-client.ts";
import { ReportClient } from "./forward/report-client.ts";
import { Forwarder } from "./forward/forwarder.ts";
import type { ForwarderOptions } from "./forward/forwarder-options.ts";
import { Healing, type HealingParts } from "./healing.ts";
import { FactGatherer, type FactSources, type Identity } from "./gather-facts.ts";
import { IndexUpkeep } from "./index-upkeep.ts";
import type { Clock, Log } from "./kernel/service.ts";
import type { MachineFacts } from "./machine.ts";
import type { Beginning } from "./new-beginning.ts";
import { afterLossOf, beginAnewWith, mendLoss, readAnew } from "./reading-anew.ts";
import {
  beginReplay,
  type ReplayBegun,
  ReplayFilter,
  type ReplayParts,
  type ReplayRequest,
} from "./replay.ts";
import { Metrics } from "./observe/metrics.ts";
import { Observer } from "./observe/observer.ts";
import { type MappedRooms, MappingInUse } from "./mapping-in-use.ts";
import { RunwayWatch } from "./runway-watch.ts";
import type { ControlEncoder, HeartbeatFacts, IndexEncoder } from "./ports.ts";
import { createBinlogSource } from "./source/binlog-source.ts";
import { statusAtRest } from "./snapshot-jobs.ts";
import { findPlaceInTime } from "./source/place-in-time.ts";
import type { SnapshotParts } from "./source/source-parts.ts";
import { readRetention, type Retention } from "./source/retention.ts";
import { Spool } from "./spool/spool.ts";
import { readQuarantinedAgain } from "./quarantine-resync.ts";
import { daprSettings, makeTransform, sourceSettings } from "./room-settings.ts";
import { type IndexWants, mayReadRows, rowsFacts, snapshotsAtStart } from "./snapshots.ts";
import { guardIdentity } from "./state-guard.ts";
import type { Mapping } from "./transform/mapping.ts";
import { openVerifications } from "./open-verifications.ts";
import type { Verifications } from "./verifications.ts";

const HEARTBEAT_MS = 10_000;

export interface AgentParts {
  readonly settings: Settings;
  readonly mapping: Mapping;
  readonly stateDir: string;
  readonly limits: DiskLimits;
  readonly machine: MachineFacts;
  readonly log: Log;
  readonly clock: Clock;
}

/** The rooms of one running agent. Everything in it is open; whoever made it closes it. */
export interface Agent {
  readonly spool: Spool;
  readonly mapped: MappingInUse;
  readonly runway: RunwayWatch;
  readonly capture: CaptureRounds;
  readonly healing: Healing;
  readonly index: IndexUpkeep;
  readonly forwarder: Forwarder;
  readonly client: DaprClient;
  readonly observer: Observer;
  readonly metrics: Metrics;
  readonly facts: FactGatherer;
  readonly instance: string;
  /** Set where the state belongs to another machine: then neither loop may run. */
  readonly adoption: Adoption | null;
  /** Begins a new epoch at another place; capture must be at rest (new-beginning.ts). */
  readonly beginAnew: (from: string) => Promise<Beginning>;
  /** Reads again what the binlog still has; capture must be at rest between two transactions. */
  readonly replay: (request: ReplayRequest) => Promise<ReplayBegun>;
  /** Reads entities of quarantined events again (quarantine-resync.ts). */
  readonly readAgain: ReadAgain;
  readonly verifications: Verifications;
  /** Set once it is ready; from then on the process stays up. */
  ready: boolean;
}

/** Opens the state and makes the rooms. Closes the spool again when one of them refuses. */
export async function assembleAgent(parts: AgentParts): Promise<Agent> {
  const { settings, log, clock } = parts;
  const startedAtMs = clock.wallMs();
  // The metrics ask the facts, and the facts come from rooms that report to the metrics.
  const late: { facts: FactGatherer | null } = { facts: null };
  const metrics = new Metrics(() => {
    if (late.facts === null) throw new Error("the agent is not assembled yet");
    return late.facts.gather();
  });
  const observer = new Observer(metrics, log, clock);
  const spool = await Spool.open({
    stateDir: parts.stateDir,
    limits: { bytesMax: parts.limits.spoolBytesMax, diskFreeMin: parts.limits.diskFreeMinBytes },
    syncMinMs: settings.spoolSyncMinMs,
    quarantineKeepDays: settings.quarantineKeepDays,
    observer,
    log,
    clock,
  });
  try {
    if (spool.healedAtOpen !== null) observer.damageHealed(spool.healedAtOpen);
    const agent = await makeRooms({ parts, spool, observer, metrics, startedAtMs });
    late.facts = agent.facts;
    return agent;
  } catch (error) {
    await spool.close();
    throw error;
  }
}

interface Opened {
  readonly parts: AgentParts;
  readonly spool: Spool;
  readonly observer: Observer;
  readonly metrics: Metrics;
  readonly startedAtMs: number;
}

async function makeRooms(opened: Opened): Promise<Agent> {
  const { parts, spool, observer, metrics, startedAtMs } = opened;
  const { settings, log, clock } = parts;
  const instance = await guardIdentity(spool.meta, settings);
  const adoption = await openAdoption(parts, spool);
  // Source and index need one another: what is to be read, and what the mapping follows.
  const wants: IndexWants = { wanted: () => [] };
  const mapped = await openMapping(opened, instance, wants);
  const completeness = completenessOf(spool);
  const onDurable = (checkpoint: Checkpoint): void => {
    completeness.appended(checkpoint, spool.queues());
    capture.wentOn();
  };
  const beginAt = (from: string): Promise<Beginning> => beginAnewWith(parts, { spool, mapped }, from);
  const replays = new ReplayFilter();
  const indexEncoder = (): IndexEncoder => mapped.rooms.transform.index;
  const atRest = (change: () => Promise<void>): Promise<void> => capture.atRest(change);
  const index = new IndexUpkeep({ spool, encoder: indexEncoder, atRest, clock, log });
  wants.wanted = (after, others) => index.wanted(after, others);
  const watched = { spool, mapped, observer, instance, clock, log, reports: reportsOf(settings, clock) };
  const verifications = await openVerifications(watched, (change) => capture.atRest(change, true));
  const newCapture = (): Capture => {
    const encoder = verifications.over(replays.over(mapped.rooms.transform));
    return new Capture({ ...opened, source: mapped.rooms.source, encoder, index, clock, onDurable });
  };
  const mend: RoundsParts["mend"] = (halt) => mendLoss(parts, halt, beginAt);
  const capture: CaptureRounds = new CaptureRounds({ ...roundsOf(opened, mapped), newCapture, mend });
  const client = new DaprClient(daprSettings(settings), clock);
  const forwarder = makeForwarder(opened, { mapped, client, completeness });
  const healing = makeHealing(opened, mapped, {
    atRest: (change) => capture.atRest(change, true),
    beforeRewind: (to) => index.movesTo(to),
    rewound: () => completeness.restarted(),
    afterLossOf: (topic, progress) => afterLossOf(topic, progress, { settings, mapped }),
  });
  const runway = watchRunway(settings, { spool, clock, log });
  const agent: Agent = {
    spool,
    runway,
    healing,
    index,
    mapped,
    capture,
    forwarder,
    client,
    observer,
    metrics,
    instance,
    adoption,
    beginAnew: beginAt,
    verifications,
    replay: replayWith(opened, { mapped, completeness, filter: replays }),
    readAgain: (ids) => readQuarantinedAgain({ settings, spool, mapped, capture }, ids),
    ready: false,
    facts: new FactGatherer({
      identity: identityOf(settings, instance, startedAtMs),
      source: capture,
      ...roomFacts({ mapped, verifications, runway, index }),
      snapshot: () => mapped.rooms.source.snapshotStatus() ?? statusAtRest(spool.checkpoint()?.snapshot),
      rows: () => rowsFacts(settings, mapped.mapping, spool.checkpoint()?.snapshot),
      complete: () => completeness.upTo(spool.queues()),
      spool,
      observer,
      nowMs: () => clock.wallMs(),
      ready: () => agent.ready,
    }),
  };
  if (adoption !== null) capture.halt(adoption.reason);
  return agent;
}

type RoundsParts = ConstructorParameters<typeof CaptureRounds>[0];

function roundsOf(
  { parts: { clock, log }, spool }: Opened,
  mapped: MappingInUse,
): Omit<RoundsParts, "newCapture" | "mend"> {
  return {
    sourceStatus: () => mapped.rooms.source.status(),
    sourceStepMs: () => mapped.rooms.source.lastStepMs,
    isBetweenTransactions: () => spool.checkpoint()?.partial === null,
    clock,
    log,
  };
}

interface Rooms {
  readonly mapped: MappingInUse;
  readonly completeness: Completeness;
}

function replayWith(
  { parts, spool }: Opened,
  { mapped, completeness, filter }: Rooms & { readonly filter: ReplayFilter },
): Agent["replay"] {
  const placeSince: ReplayParts["placeSince"] = (since, epochMs) =>
    findPlaceInTime(sourceSettings(parts.settings), since, epochMs);
  return async (request) => {
    completeness.restarted();
    return beginReplay({ spool, mapping: mapped.mapping, placeSince, filter }, request);
  };
}

function makeForwarder(
  { parts, spool, observer }: Opened,
  rooms: Rooms & { readonly client: DaprClient },
): Forwarder {
  const { settings, clock } = parts;
  const heartbeat = { intervalMs: HEARTBEAT_MS, facts: () => heartbeatFacts(spool, rooms.completeness) };
  const encoder = controlOf(rooms.mapped);
  const roads = { reader: spool, publisher: rooms.client, encoder, observer, clock };
  return new Forwarder(roads, forwarderOptions(settings, heartbeat));
}

/** Null where nobody said where consumers report. */
function reportsOf(settings: Settings, clock: Clock): ReportClient | null {
  const url = settings.verifyReportsUrl;
  return url === null ? null : new ReportClient(url, daprSettings(settings), clock);
}

function roomFacts({
  mapped,
  verifications,
  runway,
  index,
}: Pick<Agent, "mapped" | "verifications" | "runway" | "index">): Pick<
  FactSources,
  "mapping" | "index" | "verifications" | "runway"
> {
  return {
    runway: () => runway.facts(),
    mapping: () => mapped.facts(),
    index: () => index.facts(),
    verifications: () => verifications.facts(),
  };
}

function makeHealing(
  { parts, spool, observer }: Opened,
  mapped: MappingInUse,
  loop: Pick<HealingParts, "atRest" | "beforeRewind" | "rewound" | "afterLossOf">,
): Healing {
  return new Healing({
    ...loop,
    damages: spool.damages,
    checkpoint: () => spool.checkpoint(),
    canResume: (checkpoint) => mapped.rooms.source.canResume(checkpoint),
    gapEvent: (facts) => mapped.rooms.transform.gap(facts),
    healed: (how) => observer.damageHealed(how),
    clock: parts.clock,
    log: parts.log,
  });
}

function openMapping(
  { parts, spool, observer }: Opened,
  instance: string,
  index: IndexWants,
): Promise<MappingInUse> {
  const { settings, log, clock } = parts;
  const wantedAtStart = snapshotsAtStart(settings, index);
  const roomsOf = (mapping: Mapping, schemaVersions: Readonly<Record<string, number>>): MappedRooms => {
    const transform = makeTransform(settings, mapping, { instance, schemaVersions });
    const { tables } = transform;
    const snapshots: SnapshotParts = {
      wanted: (after) => wantedAtStart(mapping, after),
      mayRead: () => mayReadRows(spool.stats()),
      rateMax: settings.snapshotRateMax,
      afterReplacement: (table, progress) => readAnew(progress, [table], settings),
    };
    const common = { tables, observer, log, clock, snapshots };
    const source = createBinlogSource({ settings: sourceSettings(settings), ...common });
    return { transform, source };
  };
  const fieldHashKey = (): string | null => settings.fieldHashKey.read();
  return MappingInUse.open({ spool, makeRooms: roomsOf, fieldHashKey, clock, log }, parts.mapping);
}

function identityOf({ shopName, dbName }: Settings, instance: string, startedAtMs: number): Identity {
  return { version: buildInfo.version, shop: shopName, database: dbName, instance, startedAtMs };
}

function watchRunway(
  settings: Settings,
  parts: Pick<ConstructorParameters<typeof RunwayWatch>[0], "spool" | "clock" | "log">,
): RunwayWatch {
  const ask = (): Promise<Retention> => readRetention(sourceSettings(settings));
  return new RunwayWatch({ ...parts, readRetention: ask });
}

function forwarderOptions(settings: Settings, heartbeat: ForwarderOptions["heartbeat"]): ForwarderOptions {
  return {
    batchSize: settings.batchSize,
    syncIntervalMs: settings.syncIntervalMs,
    maxRetries: settings.maxRetries,
    quarantineMax: settings.quarantineMax,
    rateMax: settings.forwardRateMax,
    heartbeat,
  };
}

/** Control events as the mapping in use has them at the moment. */
function controlOf(mapped: MappingInUse): ControlEncoder {
  return {
    deadLetter: (event, verdict, withPayload) =>
      mapped.rooms.transform.control.deadLetter(event, verdict, withPayload),
    about: (event) => mapped.rooms.transform.control.about(event),
    heartbeat: (facts) => mapped.rooms.transform.control.heartbeat(facts),
  };
}

/** Of what the state holds at the start. */
function completenessOf(spool: Spool): Completeness {
  const completeness = new Completeness();
  const atStart = spool.checkpoint();
  if (atStart !== null) completeness.appended(atStart, spool.queues());
  return completeness;
}

async function openAdoption(parts: AgentParts, spool: Spool): Promise<Adoption | null> {
  const reason = await guardMachine(spool.meta, parts.machine);
  if (reason === null) return null;
  return new Adoption(reason, () => adoptState(spool, parts.machine, parts.clock.wallMs()));
}

function heartbeatFacts(
  spool: Spool,
  completeness: Completeness,
): Omit<HeartbeatFacts, "held" | "quarantined" | "nowMs"> {
  const { events, bytes } = spool.stats();
  return {
    epoch: spool.checkpoint()?.epoch ?? 0,
    ...completeness.upTo(spool.queues()),
    backlogEvents: events,
    backlogBytes: bytes,
  };
}
