/** `magento-edge-agent check`: everything that must hold before `run`; every fault at once. */
import type { FollowedTable } from "../change.ts";
import { daprSettings, makeTransform, sourceSettings } from "../room-settings.ts";
import {
  controlSockets,
  databaseAddress,
  describeAddress,
  diskLimits,
  stateDirectory,
  volumeOf,
} from "../config/derived.ts";
import { takeSupervisor } from "../config/load.ts";
import type { Settings } from "../config/settings-table.ts";
import { formatBytes } from "../config/value-kinds.ts";
import { DaprClient } from "../forward/dapr-client.ts";
import { ReportClient } from "../forward/report-client.ts";
import { AgentError, asError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import { readForeignKeys } from "../source/foreign-keys.ts";
import { inspectServer } from "../source/preflight.ts";
import { differingKeys } from "../transform/relations.ts";
import { MappingError } from "../transform/mapping-faults.ts";
import type { Mapping } from "../transform/mapping.ts";
import { type Command, type Output, sharedOptions } from "./command.ts";
import { loadFrom, loadMapping, type SettingsSource } from "./load-settings.ts";
import { askStatus } from "./status.ts";
import { indexText } from "./status-report.ts";

export type CheckArea = "settings" | "mapping" | "state" | "database" | "dapr";

/** One thing that was found. Only faults make the check fail. */
export interface Finding {
  readonly area: CheckArea;
  readonly severity: "fault" | "advice" | "info";
  readonly name: string;
  readonly value: string | null;
  readonly rule: string;
  readonly mend: string | null;
}

export const checkCommand: Command = {
  name: "check",
  summary: "Checks settings, mapping, database and Dapr; names every fault with its mend. Exit 0 or 1.",
  positionals: [],
  options: {
    offline: {
      type: "boolean",
      text: "Settings, mapping and disk only; asks neither the database nor Dapr.",
    },
    json: sharedOptions.json,
    "env-file": sharedOptions.envFile,
  },
  run: async (args, output) => {
    const loaded = loadFrom(args, true);
    const findings = await check(loaded, args.flag("offline"));
    const ok = findings.every((finding) => finding.severity !== "fault");
    if (args.flag("json")) {
      output.out(
        `${JSON.stringify({ schema: "magento-edge-agent/check/1", ok, file: loaded.file, findings })}\n`,
      );
    } else print(findings, loaded.file, output);
    return ok ? 0 : 1;
  },
};

async function check(loaded: SettingsSource, offline: boolean): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { name, value, rule, mend } of loaded.faults) {
    findings.push({ area: "settings", severity: "fault", name, value, rule, mend });
  }
  for (const notice of loaded.notices) findings.push(info("settings", "notice", null, notice));
  const { settings } = loaded;
  if (settings === null) {
    findings.push(info("settings", "database, dapr", null, "not asked until the settings are right"));
    return findings;
  }
  const { mapping, faults } = checkMapping(settings);
  findings.push(...faults);
  const online = offline
    ? []
    : [checkDatabase(settings, mapping), checkDapr(settings), checkIndex(settings), checkReports(settings)];
  for (const found of await Promise.all([checkState(settings), ...online])) findings.push(...found);
  return findings;
}

function checkMapping(settings: Settings): { readonly mapping: Mapping | null; readonly faults: Finding[] } {
  try {
    const mapping = loadMapping(settings);
    const name = settings.mappingFile ?? "the default mapping";
    return { mapping, faults: [info("mapping", name, null, `${mapping.entities.length} entities`)] };
  } catch (error) {
    if (error instanceof MappingError) {
      const faults = error.faults.map(({ path, value, rule, mend }): Finding => ({
        area: "mapping",
        severity: "fault",
        name: path,
        value,
        rule,
        mend,
      }));
      return { mapping: null, faults };
    }
    return { mapping: null, faults: [faultOf("mapping", "MAPPING_FILE", settings.mappingFile, error)] };
  }
}

async function checkState(settings: Settings): Promise<Finding[]> {
  const directory = stateDirectory(settings, takeSupervisor());
  try {
    const volume = await volumeOf(directory);
    const limits = diskLimits(settings, volume);
    const findings = [
      info(
        "state",
        directory,
        null,
        `at most ${formatBytes(limits.spoolBytesMax)}, and ${formatBytes(limits.diskFreeMinBytes)} of the volume stay free`,
      ),
    ];
    if (volume.availableBytes < limits.diskFreeMinBytes) {
      findings.push({
        area: "state",
        severity: "fault",
        name: "DISK_FREE_MIN",
        value: `${formatBytes(volume.availableBytes)} free`,
        rule: `must be at least ${formatBytes(limits.diskFreeMinBytes)}, else reading waits`,
        mend: "free space on the volume of STATE_DIR, move STATE_DIR, or lower DISK_FREE_MIN",
      });
    }
    return findings;
  } catch (error) {
    return [faultOf("state", "STATE_DIR", directory, error)];
  }
}

async function checkDatabase(settings: Settings, mapping: Mapping | null): Promise<Finding[]> {
  const address = describeAddress(databaseAddress(settings));
  try {
    const tables =
      mapping === null ? [] : makeTransform(settings, mapping, { instance: "", schemaVersions: {} }).tables;
    const { facts, faults } = await inspectServer(sourceSettings(settings), tables);
    const findings = faults.map(({ name, value, rule, mend, severity }): Finding => ({
      area: "database",
      severity,
      name,
      value,
      rule,
      mend,
    }));
    if (facts !== null) {
      findings.push(...(await checkForeignKeys(settings, tables)));
      const tls = facts.encrypted ? "TLS" : "no TLS";
      findings.unshift(
        info("database", address, null, `${facts.version}, server id ${facts.serverId}, ${tls}`),
      );
    }
    return findings;
  } catch (error) {
    return [faultOf("database", "MAGENTO_DB", address, error)];
  }
}

async function checkForeignKeys(
  settings: Settings,
  tables: readonly FollowedTable[],
): Promise<readonly Finding[]> {
  const followed = tables.map(({ table }) => table);
  const differing = differingKeys(await readForeignKeys(sourceSettings(settings)), followed);
  return differing.map((rule) => ({
    area: "database",
    severity: "advice",
    name: "foreign key",
    value: null,
    rule,
    mend: "Nothing to do where the shop is meant to have it so; rows that it does not delete stay",
  }));
}

/** Of the agent that runs, where one does. */
async function checkIndex(settings: Settings): Promise<Finding[]> {
  try {
    const report = await askStatus(controlSockets(settings, takeSupervisor()).readOnly);
    return [info("state", "index of children", null, indexText(report.index))];
  } catch {
    return [];
  }
}

/** A person waits for the answer: less patience than the forwarder has. */
const PATIENCE = { connectMs: 2500, headersMs: 5000, bodyMs: 5000 } as const;

async function checkDapr(settings: Settings): Promise<Finding[]> {
  const client = new DaprClient({ ...daprSettings(settings), limits: PATIENCE }, systemClock);
  const area = "dapr";
  const endpoint = settings.daprEndpoint;
  const severity = "fault";
  try {
    const { status, runtimeVersion, hasComponent } = await client.describe();
    if (status === 401) {
      const mend = "set the token that the gateway's daprd was started with";
      const value = settings.daprApiToken.origin ?? "not set";
      return [
        { area, severity, name: "DAPR_API_TOKEN", value, rule: "must be the token that Dapr wants", mend },
      ];
    }
    if (status !== 200) {
      return [info(area, endpoint, null, `answers, and tells no facts about itself (${status})`)];
    }
    if (hasComponent === false) {
      const mend = "correct the name, or apply the component to the gateway";
      const rule = "must be a pub/sub component that this Dapr has loaded";
      return [{ area, severity, name: "DAPR_PUBSUB", value: settings.daprPubsub, rule, mend }];
    }
    return [
      info(
        area,
        endpoint,
        null,
        `Dapr ${runtimeVersion ?? "of unknown version"}, component ${settings.daprPubsub}`,
      ),
    ];
  } catch (error) {
    const rule = `must be an address where Dapr answers (${codeOf(error)})`;
    const mend =
      "correct the address, or start the gateway; `run` starts without it and keeps events in the spool";
    return [{ area, severity, name: "DAPR_HTTP_ENDPOINT", value: endpoint, rule, mend }];
  } finally {
    await client.close();
  }
}

/** The agent works without: only drift that verify finds would not be healed by itself. */
async function checkReports(settings: Settings): Promise<Finding[]> {
  const url = settings.verifyReportsUrl;
  if (url === null) return [];
  const client = new ReportClient(url, { ...daprSettings(settings), limits: PATIENCE }, systemClock);
  try {
    const answer = await client.read("check", 0);
    const area = "dapr";
    if (answer.kind !== "unavailable") return [info(area, url, null, "answers; verify asks it for reports")];
    const rule = `must be an address where a consumer reports (${answer.reason})`;
    const mend =
      "correct the address or the token, or start the consumer's listener; cluster/README.md has it";
    return [{ area, severity: "advice", name: "VERIFY_REPORTS_URL", value: url, rule, mend }];
  } finally {
    await client.close();
  }
}

function faultOf(area: CheckArea, name: string, value: string | null, thrown: unknown): Finding {
  const error = asError(thrown);
  const mend = thrown instanceof AgentError ? thrown.hint : null;
  const code = thrown instanceof AgentError ? `${thrown.code}: ` : "";
  return { area, severity: "fault", name, value, rule: `${code}${error.message}`, mend };
}

function info(area: CheckArea, name: string, value: string | null, rule: string): Finding {
  return { area, severity: "info", name, value, rule, mend: null };
}

function codeOf(thrown: unknown): string {
  const error = asError(thrown);
  return "code" in error ? String(error.code) : error.message;
}

const marks = { fault: "FAULT ", advice: "advice", info: "ok    " } as const;

function print(findings: readonly Finding[], file: string | null, output: Output): void {
  output.out(`settings from ${file === null ? "the environment" : `the environment and ${file}`}\n`);
  for (const { area, severity, name, value, rule, mend } of findings) {
    const shown = value === null ? name : `${name}=${JSON.stringify(value)}`;
    output.out(`${marks[severity]} ${area.padEnd(8)} ${shown}: ${rule}\n`);
    if (mend !== null) output.out(`       mend:    ${mend}\n`);
  }
  const faults = findings.filter((finding) => finding.severity === "fault").length;
  output.out(faults === 0 ? "no faults\n" : `${faults} ${faults === 1 ? "fault" : "faults"}\n`);
}
