/**
 * Whether the server can be followed: every fault at once, each with what mends it. It reads
 * settings and rights only and changes nothing.
 */
import type { FollowedTable } from "../change.ts";
import { type AgentError, type ErrorCode } from "../kernel/errors.ts";
import { type ControlConnection, openControl, textOf } from "./control-connection.ts";
import { type Grants, holds, readGrants } from "./grants.ts";
import { askIfAllowed, readReplicasWithId, readServerFacts, type ServerFacts } from "./server-facts.ts";
import type { SourceSettings } from "./settings.ts";
import { translateError } from "./source-errors.ts";

export interface Fault {
  /** The setting, right or table. */
  readonly name: string;
  /** What it is. */
  readonly value: string;
  /** What it must be. */
  readonly rule: string;
  /** A statement or a configuration line. */
  readonly mend: string;
  /** fault: the agent does not start. advice: it runs, with a drawback. */
  readonly severity: "fault" | "advice";
  readonly code: ErrorCode;
}

export interface Inspection {
  /** Null when the server could not be asked. */
  readonly facts: ServerFacts | null;
  readonly faults: readonly Fault[];
}

const RETENTION_SECONDS_ADVISED = 3 * 86_400;

/** Never throws for what is wrong with the server: that is a fault of the list. */
export async function inspectServer(
  settings: SourceSettings,
  tables: readonly FollowedTable[],
): Promise<Inspection> {
  try {
    await using control = await openControl(settings);
    const facts = await readServerFacts(control);
    const inspector = new Inspector(control, settings, facts);
    await inspector.inspect(tables);
    return { facts, faults: inspector.faults };
  } catch (thrown) {
    const error = translateError(thrown);
    if (error.code === "BUG") throw error;
    return { facts: null, faults: [connectionFault(error, settings)] };
  }
}

function connectionFault(error: AgentError, settings: SourceSettings): Fault {
  const place = settings.socketPath ?? `${settings.host}:${settings.port}`;
  const user = settings.user;
  if (error.code === "SOURCE_AUTH") {
    return {
      name: "MAGENTO_DB_USER",
      value: `${user} at ${place}, refused: ${error.message}`,
      rule: "an account that the server lets in with MAGENTO_DB_PASS",
      mend: `CREATE USER '${user}'@'%' IDENTIFIED BY '...'; or correct the password`,
      severity: "fault",
      code: error.code,
    };
  }
  return {
    name: settings.socketPath === null ? "MAGENTO_DB_HOST" : "MAGENTO_DB_SOCKET",
    value: `${place}: ${error.message}`,
    rule: "a MySQL or MariaDB server that answers",
    mend: error.hint,
    severity: "fault",
    code: error.code,
  };
}

/** `name`, the variable of the server; `want`, what it must be for `isRight` to hold. */
interface VariableRule {
  readonly name: string;
  readonly rule: string;
  readonly mend: string;
  readonly severity: Fault["severity"];
  readonly isRight: (value: string) => boolean;
}

const variableRules: readonly VariableRule[] = [
  must("log_bin", "ON", "log_bin=binlog in [mysqld], and a restart"),
  must("binlog_format", "ROW", "SET GLOBAL binlog_format=ROW; and binlog_format=ROW in [mysqld]"),
  must("binlog_row_image", "FULL", "SET GLOBAL binlog_row_image=FULL; and binlog_row_image=FULL in [mysqld]"),
  must("binlog_transaction_compression", "OFF", "SET GLOBAL binlog_transaction_compression=OFF;"),
  {
    name: "binlog_row_value_options",
    rule: "empty (PARTIAL_JSON writes parts of values)",
    mend: "SET GLOBAL binlog_row_value_options='';",
    severity: "fault",
    isRight: (value) => !value.toUpperCase().includes("PARTIAL_JSON"),
  },
  {
    name: "binlog_storage_engine",
    rule: "empty (MariaDB 12.3 can keep the binlog in pages of InnoDB, which have no positions)",
    mend: "no binlog_storage_engine in [mysqld], and a restart",
    severity: "fault",
    isRight: (value) => value === "",
  },
  {
    ...must("binlog_row_metadata", "FULL", "SET GLOBAL binlog_row_metadata=FULL;"),
    rule: "FULL, so that a changed table can be read at any time",
    severity: "advice",
  },
];

function must(name: string, wanted: string, mend: string): VariableRule {
  return {
    name,
    rule: wanted,
    mend,
    severity: "fault",
    isRight: (value) =>
      value.toUpperCase() === wanted ||
      (wanted === "ON" && value === "1") ||
      (wanted === "OFF" && value === "0"),
  };
}

class Inspector {
  readonly faults: Fault[] = [];
  readonly #control: ControlConnection;
  readonly #settings: SourceSettings;
  readonly #facts: ServerFacts;

  constructor(control: ControlConnection, settings: SourceSettings, facts: ServerFacts) {
    this.#control = control;
    this.#settings = settings;
    this.#facts = facts;
  }

  async inspect(tables: readonly FollowedTable[]): Promise<void> {
    const variables = await this.#variables();
    this.#checkVariables(variables);
    this.#checkRetention(variables);
    this.#checkTls();
    const grants = await this.#checkGrants();
    if (holds(grants, "REPLICATION CLIENT", "BINLOG MONITOR", "SUPER")) await this.#checkReplica(variables);
    await this.#checkServerId(grants);
    await this.#checkTables(tables);
  }

  #fault(
    name: string,
    value: string,
    want: { readonly rule: string; readonly mend: string; readonly code?: ErrorCode },
  ): void {
    this.faults.push({
      name,
      value,
      rule: want.rule,
      mend: want.mend,
      severity: "fault",
      code: want.code ?? "SOURCE_UNSUITABLE",
    });
  }

  #advise(name: string, value: string, want: { readonly rule: string; readonly mend: string }): void {
    this.faults.push({ name, value, ...want, severity: "advice", code: "SOURCE_UNSUITABLE" });
  }

  async #variables(): Promise<ReadonlyMap<string, string>> {
    const rows = await this.#control.query("SHOW GLOBAL VARIABLES");
    return new Map(rows.map((row) => [textOf(row, "Variable_name").toLowerCase(), textOf(row, "Value")]));
  }

  #checkVariables(variables: ReadonlyMap<string, string>): void {
    for (const { name, rule, mend, severity, isRight } of variableRules) {
      const value = variables.get(name);
      // A server that has no such variable has no such fault either; all know log_bin and format.
      if (value === undefined || isRight(value)) continue;
      this.faults.push({
        name,
        value: value === "" ? "empty" : value,
        rule,
        mend,
        severity,
        code: "SOURCE_UNSUITABLE",
      });
    }
    const required = Number(variables.get("slave_connections_needed_for_purge") ?? 0);
    const totalSize = Number(variables.get("max_binlog_total_size") ?? 0);
    if (required > 0) {
      this.#advise("slave_connections_needed_for_purge", String(required), {
        rule: "0, or known: while fewer replicas are connected no binlog is purged, also when the agent is stopped",
        mend: `SET GLOBAL slave_connections_needed_for_purge=0;${totalSize > 0 ? "" : " and watch the disk"}`,
      });
    }
  }

  /** Binlogs that are gone after hours leave no time for an outage. */
  #checkRetention(variables: ReadonlyMap<string, string>): void {
    const seconds = Number(variables.get("binlog_expire_logs_seconds") ?? 0);
    const days = Number(variables.get("expire_logs_days") ?? 0);
    const kept = seconds > 0 ? seconds : days * 86_400;
    if (kept === 0 || kept >= RETENTION_SECONDS_ADVISED) return;
    this.#advise("binlog_expire_logs_seconds", String(kept), {
      rule: "604800 (7 days) or more: an agent that is down longer needs a new snapshot",
      mend: "SET GLOBAL binlog_expire_logs_seconds=604800; (older servers: expire_logs_days=7)",
    });
  }

  #checkTls(): void {
    const { socketPath, tls, host } = this.#settings;
    const isLocal = socketPath !== null || host === "localhost" || host === "::1" || host.startsWith("127.");
    if (isLocal || tls === "off" || this.#facts.encrypted) return;
    this.#advise("MAGENTO_DB_TLS", "preferred, and the server offers no TLS", {
      rule: "an encrypted connection over a network",
      mend: "Set ssl_cert and ssl_key in [mysqld], then MAGENTO_DB_TLS=verify",
    });
  }

  async #checkGrants(): Promise<Grants> {
    const rows = await this.#control.query("SHOW GRANTS");
    const { database, user } = this.#settings;
    const grants = readGrants(
      rows.map((row) => textOf(row, Object.keys(row)[0] ?? "")),
      database,
    );
    const isMariadb = this.#facts.flavour === "mariadb";
    const client = isMariadb ? "BINLOG MONITOR" : "REPLICATION CLIENT";
    const lacking = (right: string, on: string): void =>
      this.#fault(`right ${right}`, "not granted", {
        rule: `granted on ${on}`,
        mend: `GRANT ${right} ON ${on} TO '${user}'@'...';`,
        code: "SOURCE_RIGHTS",
      });
    if (!grants.readsShop) lacking("SELECT", `\`${database}\`.*`);
    if (!holds(grants, "REPLICATION SLAVE")) lacking("REPLICATION SLAVE", "*.*");
    if (!holds(grants, "REPLICATION CLIENT", "BINLOG MONITOR", "SUPER")) lacking(client, "*.*");
    return grants;
  }

  /** A replica must write what it applies into its own binlog. */
  async #checkReplica(variables: ReadonlyMap<string, string>): Promise<void> {
    const name = variables.has("log_replica_updates") ? "log_replica_updates" : "log_slave_updates";
    const writes = variables.get(name) ?? "ON";
    if (writes.toUpperCase() === "ON" || writes === "1") return;
    const rows = await askIfAllowed(this.#control, "SHOW REPLICA STATUS", "SHOW SLAVE STATUS");
    if (rows === null || rows.length === 0) return;
    this.#fault(name, writes, {
      rule: "ON, because this server is a replica",
      mend: `${name}=ON in [mysqld], and a restart`,
    });
  }

  async #checkServerId(grants: Grants): Promise<void> {
    const { serverId } = this.#settings;
    const want = {
      rule: "a number of its own, never 1",
      mend: "Set MAGENTO_DB_SERVER_ID to a number that no server uses",
    };
    if (serverId <= 1 || serverId === this.#facts.serverId) {
      this.#fault(
        "MAGENTO_DB_SERVER_ID",
        `${serverId}${serverId === this.#facts.serverId ? ", the server's own" : ""}`,
        want,
      );
      return;
    }
    if (!holds(grants, "REPLICATION SLAVE", "REPLICATION MASTER ADMIN", "SUPER")) return;
    for (const name of (await readReplicasWithId(this.#control, serverId)) ?? []) {
      // Our own dump of a moment ago may still be listed.
      if (name === "magento-edge-agent") continue;
      this.#fault("MAGENTO_DB_SERVER_ID", `${serverId}, which replica ${name} uses`, {
        ...want,
        code: "SERVER_ID_TAKEN",
      });
    }
  }

  async #checkTables(tables: readonly FollowedTable[]): Promise<void> {
    const { database, tablePrefix } = this.#settings;
    const rows = await this.#control.query(
      "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?",
      [database],
    );
    const present = new Set(rows.map((row) => textOf(row, "name")));
    if (present.size === 0) {
      this.#fault("MAGENTO_DB_NAME", `${database}, which is not there, is empty or may not be read`, {
        rule: "the shop's schema",
        mend: `Set MAGENTO_DB_NAME, or GRANT SELECT ON \`${database}\`.* TO '${this.#settings.user}'@'...';`,
      });
      return;
    }
    for (const { table } of tables) {
      if (present.has(`${tablePrefix}${table}`)) continue;
      this.#advise(`table ${tablePrefix}${table}`, "not there", {
        rule: "there, or its entity stays empty",
        mend: "Check MAGENTO_TABLE_PREFIX; nothing to do when this shop has no such table",
      });
    }
  }
}
