/**
 * Names of environment variables that are no settings: the predecessor's, those of others, and the
 * prefixes by which a slip is told from a stranger's variable.
 */

/** Names of the in-cluster predecessor: accepted, without effect, named in one log line. */
export const predecessorNames: ReadonlyArray<{
  readonly pattern: RegExp;
  readonly name: string;
  readonly instead: string;
}> = [
  {
    pattern: /^MICRO_DB_[A-Z0-9_]+$/,
    name: "MICRO_DB_*",
    instead: "nothing: the agent keeps its state in STATE_DIR and writes to no service database",
  },
  {
    pattern: /^KAFKA_BOOTSTRAP_SERVERS$/,
    name: "KAFKA_BOOTSTRAP_SERVERS",
    instead: "DAPR_HTTP_ENDPOINT and DAPR_PUBSUB: events go through Dapr",
  },
  {
    pattern: /^DEBEZIUM_PASS$/,
    name: "DEBEZIUM_PASS",
    instead: "MAGENTO_DB_PASS, or socket authentication: the agent reads the binlog itself",
  },
];

/** Names with these beginnings are ours: one that the table does not know is a fault. */
export const ownPrefixes: readonly string[] = [
  "MAGENTO_",
  "DAPR_",
  "SPOOL_",
  "SNAPSHOT_",
  "VERIFY_",
  "IDENTITY_",
  "MAPPING_",
  "METRICS_",
  "HEALTH_",
  "QUARANTINE_",
  "FORWARD_",
  "FIELD_HASH_",
  "LAG_UNHEALTHY_",
  "DISK_FREE_",
  "STATE_DIR_",
  "START_POSITION_",
  "ON_POSITION_",
  "SHOP_",
  "SYNC_",
  "BATCH_",
  "MAX_RETR",
  "LOG_LEVEL_",
  "LOG_FORMAT_",
];

/** Names that Dapr's own tools put into a process's environment; not ours, without effect. */
export const foreignNames: ReadonlySet<string> = new Set([
  "DAPR_HTTP_PORT",
  "DAPR_GRPC_PORT",
  "DAPR_GRPC_ENDPOINT",
  "DAPR_METRICS_PORT",
  "DAPR_PROFILE_PORT",
  "DAPR_HOST_IP",
  "DAPR_APP_ID",
  "DAPR_REDIS_HOST",
  "DAPR_NETWORK",
  "DAPR_TRUST_ANCHORS",
  "DAPR_CERT_CHAIN",
  "DAPR_CERT_KEY",
]);
