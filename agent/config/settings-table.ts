/**
 * The one table of settings. The type `Settings`, the parser, `--help`, systemd/agent.env.example
 * and docs/settings.md are made from it; a test fails when one of them differs.
 */
import {
  absolutePath,
  anyText,
  byteLimit,
  choice,
  flag,
  hostName,
  httpUrl,
  integer,
  type Kind,
  matching,
  proxyUrl,
  secondsAsMs,
  startPosition,
  uuid,
} from "./value-kinds.ts";

export const settingGroups = [
  "Database",
  "Identity",
  "Dapr",
  "Delivery",
  "State on disk",
  "Position and snapshot",
  "Mapping",
  "Metrics and health",
  "Log",
] as const;

export type SettingGroup = (typeof settingGroups)[number];

/**
 * A secret is read when it is needed, so that a rotated password is seen without a restart. The
 * value never stands in `Settings` itself, so printing settings cannot leak it.
 */
export interface Secret {
  /** Where it comes from, in words; null when it is not set. Never the value. */
  readonly origin: string | null;
  /** The value now, or null when it is not set. */
  read(): string | null;
}

interface RowTexts {
  readonly name: string;
  readonly group: SettingGroup;
  /** Full sentences for the docs, the example file and `--help`. */
  readonly text: string;
}

export interface ValueRow<T> extends RowTexts {
  readonly secret: false;
  readonly kind: Kind<T>;
  /** As it would be written, or null when the setting is unset by default. */
  readonly defaultText: string | null;
  /** What an unset setting means, for the docs. */
  readonly unset: string;
}

export interface SecretRow extends RowTexts {
  readonly secret: true;
  /** Name of the systemd credential that carries it. */
  readonly credential: string;
  readonly unset: string;
}

function setting<T>(kind: Kind<T>, defaultText: string, texts: RowTexts): ValueRow<T> & { optional: false } {
  return { ...texts, secret: false, kind, defaultText, unset: defaultText, optional: false };
}

function optional<T>(kind: Kind<T>, unset: string, texts: RowTexts): ValueRow<T> & { optional: true } {
  return { ...texts, secret: false, kind, defaultText: null, unset, optional: true };
}

function secret(credential: string, texts: RowTexts): SecretRow {
  return { ...texts, secret: true, credential, unset: "none" };
}

/** Default of IDENTITY_NAMESPACE: chosen once, part of every default id, never to be changed. */
export const defaultIdentityNamespace = "18fd94b7-9f51-43a0-bd06-a6a1c5e0ae47";

export const settingsTable = {
  dbHost: optional(hostName, "a socket if one is found, else 127.0.0.1", {
    name: "MAGENTO_DB_HOST",
    group: "Database",
    text: "Host of the shop's MySQL or MariaDB. A set MAGENTO_DB_SOCKET wins over it; it wins over a socket that was found.",
  }),
  dbPort: optional(integer(1, 65_535), "3306", {
    name: "MAGENTO_DB_PORT",
    group: "Database",
    text: "TCP port of the database. Setting it means TCP, as MAGENTO_DB_HOST does.",
  }),
  dbSocket: optional(absolutePath, "looked for in the usual places", {
    name: "MAGENTO_DB_SOCKET",
    group: "Database",
    text: "Unix socket of the database. With socket authentication no password is needed at all.",
  }),
  dbUser: setting(anyText, "magento_edge_agent", {
    name: "MAGENTO_DB_USER",
    group: "Database",
    text: "Database user of the agent. It reads and replicates; it never writes.",
  }),
  dbPassword: secret("magento-db-pass", {
    name: "MAGENTO_DB_PASS",
    group: "Database",
    text: "Password of that user.",
  }),
  dbName: setting(matching(/^[^\s/\\.`]{1,64}$/u, "the name of a database"), "magento_db", {
    name: "MAGENTO_DB_NAME",
    group: "Database",
    text: "The shop's database (schema). No other schema is decoded or stored.",
  }),
  tablePrefix: optional(matching(/^[A-Za-z0-9_$]{1,32}$/, "letters, digits, _ and $"), "none", {
    name: "MAGENTO_TABLE_PREFIX",
    group: "Database",
    text: "Prefix of the shop's tables, as in Magento's app/etc/env.php.",
  }),
  dbServerId: optional(integer(2, 4_294_967_295), "derived from host and shop", {
    name: "MAGENTO_DB_SERVER_ID",
    group: "Database",
    text: "Replica id of the agent; nobody else in the replication topology may use it.",
  }),
  dbTls: setting(choice(["off", "preferred", "verify"]), "preferred", {
    name: "MAGENTO_DB_TLS",
    group: "Database",
    text: "TLS to the database over TCP: off, preferred (used when the server offers it), or verify (required, certificate checked).",
  }),
  dbTlsCa: optional(absolutePath, "the system's authorities", {
    name: "MAGENTO_DB_TLS_CA",
    group: "Database",
    text: "PEM file with the authority that signed the database's certificate, for MAGENTO_DB_TLS=verify.",
  }),
  shopName: setting(
    matching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "letters, digits, '.', '_' and '-', at most 63"),
    "magento",
    {
      name: "SHOP_NAME",
      group: "Identity",
      text: "Name of the shop. It is part of every id, so it is written into the state at the first start and cannot change afterwards.",
    },
  ),
  identityNamespace: setting(uuid, defaultIdentityNamespace, {
    name: "IDENTITY_NAMESPACE",
    group: "Identity",
    text: "Namespace of the UUIDs (version 5) that consumers see, over <shop>/<entity>:<magento_id>. Fixed at the first start, like SHOP_NAME.",
  }),
  daprEndpoint: setting(httpUrl, "http://127.0.0.1:3500", {
    name: "DAPR_HTTP_ENDPOINT",
    group: "Dapr",
    text: "Address of the cluster's Dapr HTTP API. Plain http is accepted only to this machine.",
  }),
  daprApiToken: secret("dapr-api-token", {
    name: "DAPR_API_TOKEN",
    group: "Dapr",
    text: "Token of that API.",
  }),
  daprPubsub: setting(
    matching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$/, "the name of a Dapr component"),
    "pubsub",
    {
      name: "DAPR_PUBSUB",
      group: "Dapr",
      text: "Name of the pub/sub component.",
    },
  ),
  daprAllowInsecure: setting(flag, "false", {
    name: "DAPR_ALLOW_INSECURE",
    group: "Dapr",
    text: "Allows plain http to another machine. Personal data and the token then cross the network readable by anyone on the way.",
  }),
  daprTlsCa: optional(absolutePath, "the system's authorities", {
    name: "DAPR_TLS_CA",
    group: "Dapr",
    text: "PEM file with the authority of the endpoint's certificate. Read again when it changes.",
  }),
  daprTlsCert: optional(absolutePath, "none", {
    name: "DAPR_TLS_CERT",
    group: "Dapr",
    text: "PEM file with the agent's client certificate. Read again when it changes.",
  }),
  daprTlsKey: optional(absolutePath, "none", {
    name: "DAPR_TLS_KEY",
    group: "Dapr",
    text: "PEM file with the key of that certificate.",
  }),
  httpsProxy: optional(proxyUrl, "none", {
    name: "HTTPS_PROXY",
    group: "Dapr",
    text: "Proxy for https to the endpoint.",
  }),
  noProxy: optional(anyText, "none", {
    name: "NO_PROXY",
    group: "Dapr",
    text: "Hosts that are reached without the proxy, separated by commas.",
  }),
  verifyReportsUrl: optional(httpUrl, "nobody is asked: drift is reported at the consumers", {
    name: "VERIFY_REPORTS_URL",
    group: "Dapr",
    text: "Address below which a consumer reports what verify found, as /INSTANCE/GENERATION; the agent then has drifted rows read again by itself. Certificates, proxy and token are those of the Dapr API. Plain http is accepted only to this machine.",
  }),
  maxRetries: setting(integer(1, 100), "3", {
    name: "MAX_RETRIES",
    group: "Delivery",
    text: "Attempts for an event that is refused for its own content, before it becomes a dead letter. An outage is retried for ever and does not count.",
  }),
  batchSize: setting(integer(1, 1000), "100", {
    name: "BATCH_SIZE",
    group: "Delivery",
    text: "Most events in one bulk publish.",
  }),
  syncIntervalMs: setting(secondsAsMs(0, 60), "0.02", {
    name: "SYNC_INTERVAL",
    group: "Delivery",
    text: "Longest wait of a partly filled batch, in seconds.",
  }),
  forwardRateMax: optional(integer(1, 10_000_000), "no limit", {
    name: "FORWARD_RATE_MAX",
    group: "Delivery",
    text: "Most events published in a second, so that draining days does not flatten the consumers.",
  }),
  stateDir: optional(absolutePath, "systemd's STATE_DIRECTORY, else /var/lib/magento-edge-agent", {
    name: "STATE_DIR",
    group: "State on disk",
    text: "Directory of spool, index and quarantine. It holds personal data: mode 0700.",
  }),
  spoolBytesMax: optional(byteLimit(16 * 1024 ** 2), "derived from the volume, printed at start", {
    name: "SPOOL_BYTES_MAX",
    group: "State on disk",
    text: "Most bytes that the state directory may use: a number with suffix K, M or G, or a percentage of the volume. At the limit reading waits; nothing is dropped.",
  }),
  diskFreeMin: optional(byteLimit(0), "derived from the volume, printed at start", {
    name: "DISK_FREE_MIN",
    group: "State on disk",
    text: "Free space that is left to the database, in the same forms. Below it reading waits.",
  }),
  spoolSyncMinMs: setting(integer(0, 10_000), "0", {
    name: "SPOOL_SYNC_MIN_MS",
    group: "State on disk",
    text: "Shortest time between two fsyncs under load, in milliseconds. The disk is shared with the database; 0 means as soon as the last one is done.",
  }),
  snapshotMode: setting(choice(["initial", "never", "always"]), "initial", {
    name: "SNAPSHOT_MODE",
    group: "Position and snapshot",
    text: "Whether existing rows are read beside the stream: initial reads those of each table once for a state (not where START_POSITION names the beginning), also of one that comes into the mapping later, always all of them at every start too, never only what resync asks for. Keys are read for the index of children in each of them.",
  }),
  snapshotRateMax: optional(integer(1, 10_000_000), "derived", {
    name: "SNAPSHOT_RATE_MAX",
    group: "Position and snapshot",
    text: "Most rows that a snapshot or resync reads in a second. Without it they are read as fast as the database answers quickly.",
  }),
  onPositionLost: setting(choice(["resnapshot", "operator"]), "resnapshot", {
    name: "ON_POSITION_LOST",
    group: "Position and snapshot",
    text: "What follows when the server no longer has the agent's position: a new epoch and a new snapshot by itself, or waiting for the operator. It waits in any case where the wrong server may be answering, and with SNAPSHOT_MODE=never.",
  }),
  startPosition: optional(startPosition, "the current end of the binlog", {
    name: "START_POSITION",
    group: "Position and snapshot",
    text: "FILE:POSITION or GTID of a first start without snapshot. Without effect once there is state.",
  }),
  mappingFile: optional(absolutePath, "none", {
    name: "MAPPING_FILE",
    group: "Mapping",
    text: "JSON file that extends or replaces the default mapping. SIGHUP has it read again.",
  }),
  fieldHashKey: secret("field-hash-key", {
    name: "FIELD_HASH_KEY",
    group: "Mapping",
    text: "Key of the mapping's hash option (HMAC). Needed only where a mapping hashes a field.",
  }),
  metricsPort: setting(integer(0, 65_535), "8080", {
    name: "METRICS_PORT",
    group: "Metrics and health",
    text: "Port of /metrics. 0 takes any free port and prints it.",
  }),
  metricsListen: setting(hostName, "127.0.0.1", {
    name: "METRICS_LISTEN",
    group: "Metrics and health",
    text: "Address that /metrics listens on.",
  }),
  healthPort: setting(integer(0, 65_535), "8081", {
    name: "HEALTH_PORT",
    group: "Metrics and health",
    text: "Port of /health and /livez. 0 takes any free port and prints it.",
  }),
  healthListen: setting(hostName, "127.0.0.1", {
    name: "HEALTH_LISTEN",
    group: "Metrics and health",
    text: "Address that /health and /livez listen on.",
  }),
  lagUnhealthySeconds: setting(integer(1, 31_536_000), "30", {
    name: "LAG_UNHEALTHY_SECONDS",
    group: "Metrics and health",
    text: "Seconds from commit to acceptance above which /health says unhealthy.",
  }),
  quarantineMax: setting(integer(1, 1_000_000), "100", {
    name: "QUARANTINE_MAX",
    group: "Delivery",
    text: "Most events in quarantine, refused or too large. A topic that would need more is held until there is room.",
  }),
  quarantineKeepDays: setting(integer(1, 3650), "30", {
    name: "QUARANTINE_KEEP_DAYS",
    group: "Delivery",
    text: "Days after which quarantined events are deleted for good.",
  }),
  logLevel: setting(choice(["debug", "info", "notice", "warn", "error"]), "info", {
    name: "LOG_LEVEL",
    group: "Log",
    text: "Least important lines that are written: debug, info, notice, warn or error.",
  }),
  logFormat: setting(choice(["text", "json"]), "text", {
    name: "LOG_FORMAT",
    group: "Log",
    text: "Form of a log line: text (key=value pairs) or json.",
  }),
} as const;

export type SettingKey = keyof typeof settingsTable;

type ValueOf<R> = R extends SecretRow
  ? Secret
  : R extends ValueRow<infer T> & { optional: infer O }
    ? O extends true
      ? T | null
      : T
    : never;

/** All settings, typed and checked; frozen. */
export type Settings = { readonly [K in SettingKey]: ValueOf<(typeof settingsTable)[K]> };

export type SettingRow = SecretRow | (ValueRow<unknown> & { optional: boolean });

/** Rows in the order of the table. */
export const settingRows: ReadonlyArray<readonly [key: string, row: SettingRow]> =
  Object.entries<SettingRow>(settingsTable);

/** Settings as far as each is right by itself; the others are undefined. */
export type ParsedSettings = { readonly [K in SettingKey]: Settings[K] | undefined };

/** Whether every row was looked at; each value was made by its row's own kind. */
export function isParsed(values: Readonly<Record<string, unknown>>): values is ParsedSettings {
  return settingRows.every(([key]) => key in values);
}

/** Whether there is a value for every row. */
export function isComplete(values: ParsedSettings): values is Settings {
  return Object.values(values).every((value) => value !== undefined);
}
