/** `magento-edge-agent run`: the service. Resolves with the exit code when it has ended. */
import type { Adoption } from "../adoption.ts";
import { type Agent, type AgentParts, assembleAgent } from "../assemble.ts";
import { sourceSettings } from "../room-settings.ts";
import {
  controlSockets,
  type ControlSockets,
  databaseAddress,
  describeAddress,
  diskLimits,
  stateDirectory,
  volumeOf,
} from "../config/derived.ts";
import { describeFault, type Supervisor, takeSupervisor } from "../config/load.ts";
import type { Settings } from "../config/settings-table.ts";
import { formatBytes } from "../config/value-kinds.ts";
import { AgentError, asError, exitCodeOf } from "../kernel/errors.ts";
import { type Log, systemClock } from "../kernel/service.ts";
import type { Mapping } from "../transform/mapping.ts";
import { readMachine } from "../machine.ts";
import { Logger, stderrIsJournal } from "../observe/log.ts";
import { SystemdNotify } from "../observe/systemd-notify.ts";
import { readForeignKeys } from "../source/foreign-keys.ts";
import { differingKeys } from "../transform/relations.ts";
import { buildInfo } from "./build-info.ts";
import { type Arguments, type Command, type Output, sharedOptions, usageError } from "./command.ts";
import { Listeners } from "./listeners.ts";
import { loadFrom, loadMapping } from "./load-settings.ts";
import { runToStdout } from "./run-stdout.ts";
import { catchSignals, type Signals } from "./signals.ts";

export const runCommand: Command = {
  name: "run",
  summary: "Follows the database and forwards its changes until it is stopped.",
  positionals: [],
  options: {
    sink: {
      type: "string",
      value: "stdout",
      text: "Print events as JSON lines; no Dapr, nothing is kept on disk.",
    },
    "env-file": sharedOptions.envFile,
    "log-format": { type: "string", value: "text|json", text: "Instead of LOG_FORMAT." },
    "log-level": { type: "string", value: "LEVEL", text: "Instead of LOG_LEVEL." },
  },
  run: async (args, output) => {
    const sink = args.text("sink");
    if (sink !== null && sink !== "stdout")
      throw usageError(`--sink=${sink}: only stdout can be named here`, "run");
    const supervisor = takeSupervisor();
    const loaded = loadFrom(args, false);
    const log = makeLog(args, loaded.settings, supervisor, output);
    if (loaded.settings === null) {
      for (const fault of loaded.faults) log.error(describeFault(fault), { code: "CONFIG_INVALID" });
      return exitCodeOf(new AgentError("CONFIG_INVALID", ""));
    }
    for (const notice of loaded.notices) log.notice(notice);
    try {
      if (sink === "stdout") return await runToStdout(loaded.settings, log);
      return await runService(loaded.settings, supervisor, log);
    } catch (thrown) {
      logEnd(log, thrown);
      return exitCodeOf(thrown);
    }
  },
};

/** The last line of a process that could not go on. */
function logEnd(log: Log, thrown: unknown): void {
  const error = asError(thrown);
  if (thrown instanceof AgentError) {
    for (const line of error.message.split("\n")) log.error(line, { code: thrown.code });
    const cause = thrown.cause === undefined ? undefined : asError(thrown.cause).message;
    log.error("the agent ends", { code: thrown.code, hint: thrown.hint, cause });
  } else log.error("the agent ends because of a bug", { code: "BUG", stack: error.stack ?? error.message });
}

function makeLog(args: Arguments, settings: Settings | null, supervisor: Supervisor, output: Output): Log {
  const format = args.text("log-format") ?? settings?.logFormat ?? "text";
  const level = args.text("log-level") ?? settings?.logLevel ?? "info";
  if (format !== "text" && format !== "json") throw usageError(`--log-format=${format}: text or json`, "run");
  if (level !== "debug" && level !== "info" && level !== "notice" && level !== "warn" && level !== "error") {
    throw usageError(`--log-level=${level}: debug, info, notice, warn or error`, "run");
  }
  return new Logger({
    format,
    level,
    inJournal: stderrIsJournal(supervisor.journalStream),
    clock: systemClock,
    write: (line) => output.err(line),
  });
}

/** Time that systemd is asked for while a large state is opened, or the last requests end. */
const OPEN_MS = 300_000;
const DRAIN_MS = 10_000;
const STATUS_MS = 10_000;
/** So long systemd is told that the service reloads. */
const RELOAD_TOLD_MS = 10_000;

async function runService(settings: Settings, supervisor: Supervisor, log: Log): Promise<number> {
  const signals = catchSignals(log);
  const notify = new SystemdNotify({
    socketPath: supervisor.notifySocket,
    watchdogUsec: supervisor.watchdogUsec,
    watchdogPid: supervisor.watchdogPid,
    clock: systemClock,
    log,
  });
  try {
    notify.extendTimeout(OPEN_MS);
    const stateDir = stateDirectory(settings, supervisor);
    const limits = diskLimits(settings, await volumeOf(stateDir));
    const parts: AgentParts = {
      settings,
      mapping: loadMapping(settings),
      stateDir,
      limits,
      machine: readMachine({ root: "/", runtimeDirectory: supervisor.runtimeDirectory }),
      log,
      clock: systemClock,
    };
    const service: Service = { parts, sockets: controlSockets(settings, supervisor), notify, signals };
    // A state that was adopted is opened anew, as an agent that may work.
    while ((await serve(service)) === "adopted")
      log.notice("the state was adopted and belongs to this machine now");
    return 0;
  } finally {
    await notify.close();
    signals.release();
  }
}

interface Service {
  readonly parts: AgentParts;
  readonly sockets: ControlSockets;
  readonly notify: SystemdNotify;
  readonly signals: Signals;
}

async function serve({ parts, sockets, notify, signals }: Service): Promise<"stopped" | "adopted"> {
  const { settings, log } = parts;
  const agent = await assembleAgent(parts);
  agent.metrics.watchProcess();
  const { version, commit, node } = buildInfo;
  agent.metrics.gauge("edge_agent_build_info").set({ version, commit, node }, 1);
  const listeners = new Listeners(agent, { settings, log, sockets });
  const isAdopted = (): boolean => agent.adoption?.isDone === true && !signals.stop.aborted;
  try {
    if (agent.adoption === null) await start(agent, parts, listeners);
    else await startForeign(agent.adoption, log, listeners);
    if (!signals.stop.aborted) await follow({ agent, parts, listeners, notify, signals });
  } finally {
    if (!isAdopted()) notify.stopping();
    await end(agent, listeners, log);
  }
  return isAdopted() ? "adopted" : "stopped";
}

/** The database is not even asked: a clone has its origin's server id, and would throw it out there. */
async function startForeign({ reason }: Adoption, log: Log, listeners: Listeners): Promise<void> {
  await listeners.open();
  const { code, message, hint } = reason;
  log.error("nothing is captured or published: the state belongs to another machine", {
    code,
    reason: message,
    hint,
  });
}

/** Everything that has to hold before READY. */
async function start(agent: Agent, parts: AgentParts, listeners: Listeners): Promise<void> {
  const { settings, log } = parts;
  const checkpoint = agent.spool.checkpoint();
  try {
    await agent.mapped.rooms.source.firstConnect();
  } catch (error) {
    // With a checkpoint there is a backlog to forward, and a database that is merely away comes back.
    if (checkpoint === null || !(error instanceof AgentError) || error.code !== "SOURCE_UNREACHABLE")
      throw error;
    log.warn("the database cannot be reached; what the spool holds is forwarded meanwhile", {
      reason: error.message,
    });
  }
  await tellForeignKeys(agent, parts);
  await listeners.open();
  log.notice("started", {
    version: buildInfo.version,
    shop: settings.shopName,
    database: settings.dbName,
    address: describeAddress(databaseAddress(settings)),
    server_id: sourceSettings(settings).serverId,
    dapr: settings.daprEndpoint,
    state_dir: parts.stateDir,
    spool_bytes_max: formatBytes(parts.limits.spoolBytesMax),
    disk_free_min: formatBytes(parts.limits.diskFreeMinBytes),
    position: checkpoint === null ? "none" : `${checkpoint.file}:${checkpoint.position}`,
    waiting: agent.spool.stats().events,
    instance: agent.instance,
  });
}

/** Once: what reaches into other tables at a delete may be other than Magento's in this shop. */
async function tellForeignKeys(agent: Agent, { settings, log }: AgentParts): Promise<void> {
  const followed = agent.mapped.rooms.transform.tables.map(({ table }) => table);
  try {
    const differing = differingKeys(await readForeignKeys(sourceSettings(settings)), followed);
    if (differing.length > 0)
      log.notice("foreign keys of the shop differ from Magento's", { keys: differing.join("; ") });
  } catch (error) {
    log.info("the shop's foreign keys cannot be looked at", { reason: asError(error).message });
  }
}

interface Following {
  readonly agent: Agent;
  readonly parts: AgentParts;
  readonly listeners: Listeners;
  readonly notify: SystemdNotify;
  readonly signals: Signals;
}

/** READY, then both loops until a signal comes or one of them cannot go on. */
async function follow({ agent, parts, listeners, notify, signals }: Following): Promise<void> {
  agent.ready = true;
  notify.ready();
  notify.startWatchdog(() => listeners.isLive());
  const loops = agent.adoption === null ? loopsOf({ agent, signals }) : [agent.adoption.whenDone()];
  const broken = agent.spool.whenFailed().then((error) => {
    throw error;
  });
  const stopped = new Promise<void>((resolve) => {
    signals.stop.addEventListener("abort", () => resolve(), { once: true });
  });
  void tellStatus(listeners, notify, signals.stop);
  void agent.runway.run(signals.stop);
  const reload = (): void => void reloadMapping({ agent, parts, listeners, notify, signals });
  // A state that waits to be adopted reads its mapping when it is opened anew.
  signals.onHangup(agent.adoption === null ? reload : () => undefined);
  if (agent.adoption === null && agent.mapped.hasNext) reload();
  try {
    await Promise.race([stopped, broken, ...loops]);
  } catch (error) {
    if (!signals.stop.aborted) throw error;
  } finally {
    // The loops end below; a second failure on the way must not end the process unheard.
    for (const loop of loops) loop.catch(() => undefined);
    broken.catch(() => undefined);
  }
}

function loopsOf({ agent, signals }: Pick<Following, "agent" | "signals">): Promise<void>[] {
  const announced = agent.mapped.announce(signals.stop);
  const captured = announced.then(() => agent.capture.run(signals.stop));
  const { healing, index, verifications } = agent;
  const watched = [healing, index, verifications].map((one) => one.run(signals.stop));
  return [captured, agent.forwarder.run(), ...watched];
}

/** A reload that waits for a large transaction is the status's to tell: for systemd it is over. */
async function reloadMapping({ agent, parts, notify, signals }: Following): Promise<void> {
  notify.reloading();
  const load = (): Mapping => loadMapping(parts.settings);
  const reloaded = agent.mapped.reload(load, (change) => agent.capture.atRest(change), signals.stop);
  await Promise.race([reloaded, systemClock.sleep(RELOAD_TOLD_MS, signals.stop)]);
  if (!signals.stop.aborted) notify.ready();
}

async function tellStatus(listeners: Listeners, notify: SystemdNotify, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    const line = await listeners.statusLine().catch(() => null);
    if (line !== null && !stop.aborted) notify.status(line);
    await systemClock.sleep(STATUS_MS, stop);
  }
}

/** Each step also when the one before it failed: the spool's lock has to be released. */
async function end(agent: Agent, listeners: Listeners, log: Log): Promise<void> {
  const steps: ReadonlyArray<readonly [string, () => Promise<void>]> = [
    ["capture", () => agent.capture.stop()],
    ["forward", () => agent.forwarder.drain(DRAIN_MS)],
    ["forward", () => agent.forwarder.stop()],
    ["dapr", () => agent.client.close()],
    ["dapr", () => agent.verifications.close()],
    ["listeners", () => listeners.close()],
    ["spool", () => agent.spool.close()],
  ];
  for (const [name, step] of steps) {
    try {
      await step();
    } catch (error) {
      log.error("a part of the agent did not end well", { part: name, error: asError(error).message });
    }
  }
  log.notice("stopped", { waiting: agent.spool.stats().events });
}
