/**
 * The only file that reads process.env. Settings come out typed, checked and frozen; every fault is
 * reported together with its name, value (secrets masked), rule and mend.
 */
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { assert } from "../kernel/assert.ts";
import { AgentError } from "../kernel/errors.ts";
import { type EnvFile, parseEnvFile } from "./env-file.ts";
import { errorCode, openSecret } from "./secrets.ts";
import { foreignNames, ownPrefixes, predecessorNames } from "./names.ts";
import {
  isComplete,
  isParsed,
  type ParsedSettings,
  type Secret,
  type SettingKey,
  type SettingRow,
  type Settings,
  settingRows,
} from "./settings-table.ts";
import { isLoopback } from "./value-kinds.ts";

/** One thing that is wrong with the settings. Values of secrets are masked here already. */
export interface SettingFault {
  readonly name: string;
  readonly value: string | null;
  readonly rule: string;
  readonly mend: string;
}

export interface LoadedSettings {
  /** Null when there are faults. */
  readonly settings: Settings | null;
  readonly faults: readonly SettingFault[];
  /** Full sentences for the log: predecessor names, secrets in poor places. */
  readonly notices: readonly string[];
}

export type Variables = Readonly<Record<string, string | undefined>>;

/** What the supervisor hands to the process. */
export interface Supervisor {
  readonly notifySocket: string | null;
  readonly watchdogUsec: number | null;
  readonly watchdogPid: number | null;
  readonly journalStream: string | null;
  readonly runtimeDirectory: string | null;
  readonly stateDirectory: string | null;
}

/** The process's environment, as systemd or a shell gave it. */
export function processVariables(): Variables {
  return { ...process.env };
}

/** Reads what systemd says about the service, and unsets NOTIFY_SOCKET so that no child inherits it. */
export function takeSupervisor(): Supervisor {
  const { env } = process;
  const supervisor: Supervisor = {
    notifySocket: env["NOTIFY_SOCKET"] ?? null,
    watchdogUsec: wholeNumber(env["WATCHDOG_USEC"]),
    watchdogPid: wholeNumber(env["WATCHDOG_PID"]),
    journalStream: env["JOURNAL_STREAM"] ?? null,
    runtimeDirectory: firstPath(env["RUNTIME_DIRECTORY"]),
    stateDirectory: firstPath(env["STATE_DIRECTORY"]),
  };
  delete env["NOTIFY_SOCKET"];
  return supervisor;
}

/** The file of `--env-file`; a file that cannot be read is an AgentError CONFIG_INVALID. */
export function readEnvFile(path: string): EnvFile {
  try {
    return parseEnvFile(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new AgentError("CONFIG_INVALID", `cannot read the environment file ${path}`, { cause });
  }
}

/**
 * Settings from variables, and from an environment file where one is given; the file wins, as it
 * does under systemd. Unknown names are faults: anywhere in the file, and with one of our prefixes
 * among the variables (there the names of others stand too).
 */
export function loadSettings(variables: Variables, envFile: EnvFile | null = null): LoadedSettings {
  const faults: SettingFault[] = [];
  const notices: string[] = [];
  const merged: Record<string, string | undefined> = { ...variables };
  for (const fault of envFile?.faults ?? []) {
    faults.push({ name: `line ${fault.line}`, value: null, rule: fault.reason, mend: "write NAME=value" });
  }
  for (const entry of envFile?.entries ?? []) merged[entry.name] = entry.value;
  const inFile = new Set(envFile?.entries.map((entry) => entry.name) ?? []);
  checkNames(merged, { inFile, faults, notices });

  const values: Record<string, unknown> = {};
  for (const [key, row] of settingRows) values[key] = valueOf(row, merged, { faults, notices });
  assert(isParsed(values), "every row of the table was read");
  // A rule between settings is asked whatever is wrong with others: all faults at once.
  checkTogether(values, faults);
  const usable = faults.length === 0 && isComplete(values);
  return { settings: usable ? Object.freeze(values) : null, faults, notices };
}

/** One line for a fault; nothing secret in it. */
export function describeFault(fault: SettingFault): string {
  const value = fault.value === null ? "" : `=${JSON.stringify(fault.value)}`;
  return `${fault.name}${value}: ${fault.rule}; ${fault.mend}`;
}

/** All faults as one error for a process that cannot start. */
export function settingsError(faults: readonly SettingFault[]): AgentError {
  const lines = faults.map((fault) => describeFault(fault)).join(" | ");
  const count = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  return new AgentError("CONFIG_INVALID", `${count} in the settings: ${lines}`);
}

interface Findings {
  readonly faults: SettingFault[];
  readonly notices: string[];
}

function valueOf(row: SettingRow, variables: Variables, findings: Findings): unknown {
  const text = nonEmpty(variables[row.name]);
  if (row.secret) return secretOf(row, variables, findings);
  const given = text ?? row.defaultText;
  if (given === null) return null;
  const value = row.kind.parse(given);
  if (value !== undefined) return value;
  findings.faults.push({
    name: row.name,
    value: maskUserInfo(given),
    rule: `must be ${row.kind.rule}`,
    mend:
      row.defaultText === null
        ? `correct it, or remove it (then: ${row.unset})`
        : `correct it, or remove it for the default ${row.defaultText}`,
  });
  return undefined;
}

function secretOf(row: SettingRow & { secret: true }, variables: Variables, findings: Findings): Secret {
  const opened = openSecret({
    name: row.name,
    credential: row.credential,
    credentialsDirectory: nonEmpty(variables["CREDENTIALS_DIRECTORY"]),
    file: nonEmpty(variables[`${row.name}_FILE`]),
    plain: nonEmpty(variables[row.name]),
  });
  if (opened.fault !== null) findings.faults.push(opened.fault);
  if (opened.notice !== null) findings.notices.push(opened.notice);
  return opened.secret;
}

const knownNames: ReadonlySet<string> = new Set(
  settingRows.flatMap(([, row]) => (row.secret ? [row.name, `${row.name}_FILE`] : [row.name])),
);

/** Names that an environment file may carry for the runtime and its libraries. */
const runtimeNames: ReadonlySet<string> = new Set([
  "TZ",
  "LANG",
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
]);

function checkNames(variables: Variables, found: Findings & { readonly inFile: ReadonlySet<string> }): void {
  const predecessors = new Map<string, string>();
  for (const name of Object.keys(variables).sort()) {
    if (knownNames.has(name) || foreignNames.has(name) || variables[name] === undefined) continue;
    const predecessor = predecessorNames.find((one) => one.pattern.test(name));
    if (predecessor !== undefined) predecessors.set(predecessor.name, predecessor.instead);
    else if (isOurs(name) || (found.inFile.has(name) && !runtimeNames.has(name))) {
      const near = nearestName(name, knownNames);
      found.faults.push({
        name,
        value: null,
        rule: "is no setting of this agent",
        mend: near === null ? "remove it" : `did you mean ${near}?`,
      });
    }
  }
  if (predecessors.size > 0) {
    const parts = [...predecessors].map(([name, instead]) => `${name} (replaced by ${instead})`);
    found.notices.push(`settings of the in-cluster predecessor have no effect here: ${parts.join("; ")}`);
  }
}

function isOurs(name: string): boolean {
  return ownPrefixes.some((prefix) => name.startsWith(prefix));
}

/** Rules between settings; each is asked where the settings that it is about are right by themselves. */
function checkTogether(settings: ParsedSettings, faults: SettingFault[]): void {
  checkAddresses(settings, faults);
  const { daprTlsCert, daprTlsKey, metricsListen, metricsPort, healthListen, healthPort } = settings;
  if (
    daprTlsCert !== undefined &&
    daprTlsKey !== undefined &&
    (daprTlsCert === null) !== (daprTlsKey === null)
  ) {
    const missing = daprTlsCert === null ? "DAPR_TLS_CERT" : "DAPR_TLS_KEY";
    faults.push({
      name: missing,
      value: null,
      rule: "must be set, because the other half is",
      mend: `set ${missing}`,
    });
  }
  const samePort = healthPort !== undefined && healthPort !== 0 && metricsPort === healthPort;
  if (samePort && metricsListen !== undefined && metricsListen === healthListen) {
    faults.push({
      name: "HEALTH_PORT",
      value: String(healthPort),
      rule: "must differ from METRICS_PORT on the same address",
      mend: "choose another port",
    });
  }
  checkFiles(settings, faults);
}

function checkAddresses(settings: ParsedSettings, faults: SettingFault[]): void {
  if (settings.daprAllowInsecure !== false) return;
  const { daprEndpoint, verifyReportsUrl } = settings;
  const addresses = [
    ["DAPR_HTTP_ENDPOINT", daprEndpoint],
    ["VERIFY_REPORTS_URL", verifyReportsUrl],
  ] as const;
  for (const [name, value] of addresses) {
    if (value === undefined || value === null) continue;
    const url = new URL(value);
    if (url.protocol !== "http:" || isLoopback(url.hostname)) continue;
    faults.push({
      name,
      value,
      rule: "must be https, because it is another machine",
      mend: "use https://, or accept readable traffic with DAPR_ALLOW_INSECURE=true",
    });
  }
}

const fileSettings: ReadonlyArray<readonly [SettingKey, string]> = [
  ["dbTlsCa", "MAGENTO_DB_TLS_CA"],
  ["daprTlsCa", "DAPR_TLS_CA"],
  ["daprTlsCert", "DAPR_TLS_CERT"],
  ["daprTlsKey", "DAPR_TLS_KEY"],
  ["mappingFile", "MAPPING_FILE"],
];

function checkFiles(settings: ParsedSettings, faults: SettingFault[]): void {
  for (const [key, name] of fileSettings) {
    const path = settings[key];
    if (typeof path !== "string") continue;
    const trouble = troubleWith(path);
    if (trouble === null) continue;
    faults.push({
      name,
      value: path,
      rule: `must name a file that the agent can read (${trouble})`,
      mend: "correct the path, or put the file there, readable for the agent's user",
    });
  }
}

/** Why the file cannot be read, or null when it can. */
function troubleWith(path: string): string | null {
  try {
    if (!statSync(path).isFile()) return "it is no file";
    accessSync(path, constants.R_OK);
    return null;
  } catch (error) {
    return errorCode(error);
  }
}

/** The known name that is nearest by edits, when it is near enough to be a slip. */
export function nearestName(name: string, known: Iterable<string>): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(name.length / 4)) + 1;
  for (const candidate of known) {
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function editDistance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i++) {
    const next = [i];
    for (let j = 1; j <= right.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[right.length] ?? 0;
}

/** A user and password inside an address are not for logs. */
function maskUserInfo(text: string): string {
  return text.replace(/\/\/[^/@]*@/g, "//***@");
}

/** An empty value counts as unset, as `NAME=` in an environment file is meant. */
function nonEmpty(text: string | undefined): string | null {
  return text === undefined || text === "" ? null : text;
}

function wholeNumber(text: string | undefined): number | null {
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : null;
}

/** systemd separates several directories by colons; the first is the one of this service. */
function firstPath(text: string | undefined): string | null {
  return nonEmpty(text?.split(":")[0]);
}
