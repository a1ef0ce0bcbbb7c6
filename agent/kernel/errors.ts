/**
 * One error class with a code; one table code -> disposition -> exit code and hint. The operator's
 * page (docs/errors.md) is made from this table. Foreign errors are translated once, at their
 * room's edge, by their code, with `cause` kept. Never classify by message text.
 */

/** retry: back off and try again for ever. wait: stop intake, keep running. quarantine: this event
 * only. operator: only a person can mend it. bug: crash and restart. */
export type Disposition = "retry" | "wait" | "quarantine" | "operator" | "bug";

interface ErrorRow {
  readonly disposition: Disposition;
  /** Exit code (sysexits) where the error ends the process; before READY for `retry` rows: none. */
  readonly exit: number | null;
  readonly text: string;
  readonly hint: string;
}

const table = {
  USAGE: {
    disposition: "operator",
    exit: 64,
    text: "The command line is wrong.",
    hint: "See magento-edge-agent --help.",
  },
  CONFIG_INVALID: {
    disposition: "operator",
    exit: 78,
    text: "Settings are missing, unknown or out of range.",
    hint: "Run magento-edge-agent check: it names every fault with its mend.",
  },
  MAPPING_INVALID: {
    disposition: "operator",
    exit: 78,
    text: "The mapping file has faults.",
    hint: "Run magento-edge-agent mapping show; each fault is named by its path.",
  },
  IDENTITY_CHANGED: {
    disposition: "operator",
    exit: 78,
    text: "SHOP_NAME or IDENTITY_NAMESPACE differ from what the state was made with; every id would change.",
    hint: "Set them back, or start with a new STATE_DIR.",
  },
  STATE_CLONED: {
    disposition: "operator",
    exit: null,
    text: "The state was made on another machine: it was copied, or this machine is a clone. The agent stays up, captures and publishes nothing.",
    hint: "If this machine takes over the shop: magento-edge-agent adopt. If it is a copy: stop the agent here and remove its state.",
  },
  SOURCE_UNREACHABLE: {
    disposition: "retry",
    exit: null,
    text: "The database cannot be reached or dropped the connection.",
    hint: "The agent reconnects by itself; look at the database server.",
  },
  SOURCE_AUTH: {
    disposition: "retry",
    exit: 77,
    text: "The database refused the user or its password.",
    hint: "Correct MAGENTO_DB_USER and its password; the agent tries again by itself once it has been ready.",
  },
  SOURCE_RIGHTS: {
    disposition: "retry",
    exit: 77,
    text: "The database user lacks a right.",
    hint: "Run magento-edge-agent check: it prints the GRANT statement.",
  },
  SOURCE_UNSUITABLE: {
    disposition: "operator",
    exit: 78,
    text: "The database's settings do not give a usable binlog.",
    hint: "Run magento-edge-agent check: it prints the configuration lines.",
  },
  SOURCE_UNREADABLE: {
    disposition: "operator",
    exit: 78,
    text: "A binlog event on a followed table cannot be read without loss; the position stays before it.",
    hint: "The log line names the event, its position and the setting that made it.",
  },
  SERVER_ID_TAKEN: {
    disposition: "retry",
    exit: null,
    text: "Another replica uses the agent's server id.",
    hint: "Set MAGENTO_DB_SERVER_ID to a number nobody else uses.",
  },
  SCHEMA_UNKNOWN: {
    disposition: "retry",
    exit: null,
    text: "A table's columns at the time of the event are not known and today's differ.",
    hint: "Set binlog_row_metadata=FULL; the log line names the table.",
  },
  POSITION_LOST: {
    disposition: "operator",
    exit: 78,
    text: "The server no longer has, or never had, the position that the state names.",
    hint: "The log names the case. magento-edge-agent position restart --from=current goes on in a new epoch and tells consumers of the gap.",
  },
  SPOOL_LOCKED: {
    disposition: "operator",
    exit: 75,
    text: "Another process has the state directory open.",
    hint: "Stop the other agent, or give this one its own STATE_DIR.",
  },
  SPOOL_FORMAT: {
    disposition: "operator",
    exit: 78,
    text: "The state was written by a newer version of the agent.",
    hint: "Install that version again, or start with a new STATE_DIR.",
  },
  SPOOL_CORRUPT: {
    disposition: "operator",
    exit: 75,
    text: "The spool is damaged in a way that only a start can heal.",
    hint: "The next start repairs it; what is missing is read again from the binlog.",
  },
  STATE_LOST: {
    disposition: "operator",
    exit: 78,
    text: "The state is damaged, and nothing is left to make it anew from.",
    hint: "Move STATE_DIR away and start anew: what changed meanwhile needs a new first snapshot.",
  },
  SPOOL_FULL: {
    disposition: "wait",
    exit: null,
    text: "The spool is at its byte limit; reading waits.",
    hint: "It goes on by itself when the cluster takes events again; see SPOOL_BYTES_MAX.",
  },
  DISK_FULL: {
    disposition: "wait",
    exit: null,
    text: "The volume is at its free-space floor; reading waits.",
    hint: "Free space on the volume of STATE_DIR; see DISK_FREE_MIN.",
  },
  SPOOL_IO: {
    disposition: "bug",
    exit: 75,
    text: "A write or fsync of the spool failed; the state is re-read after a restart.",
    hint: "Look at the kernel log for disk errors.",
  },
  FORWARD_UNAVAILABLE: {
    disposition: "retry",
    exit: null,
    text: "The cluster's Dapr API cannot take events now.",
    hint: "The spool keeps them; nothing is lost.",
  },
  FORWARD_REJECTED: {
    disposition: "quarantine",
    exit: null,
    text: "Dapr refused this event for its own content.",
    hint: "See magento-edge-agent quarantine ls, and the dead letters.",
  },
  EVENT_TOO_LARGE: {
    disposition: "quarantine",
    exit: null,
    text: "The event is larger than Dapr's body limit.",
    hint: "Use the mapping's oversize, truncate or drop the field.",
  },
  LISTEN_FAILED: {
    disposition: "operator",
    exit: 78,
    text: "A port or socket of the agent cannot be opened.",
    hint: "See METRICS_PORT, HEALTH_PORT and the runtime directory.",
  },
  AGENT_NOT_RUNNING: {
    disposition: "operator",
    exit: 69,
    text: "No agent answers on the control socket.",
    hint: "systemctl status magento-edge-agent",
  },
  CONTROL_RIGHTS: {
    disposition: "operator",
    exit: 77,
    text: "The control socket or the state directory is closed to this user.",
    hint: "Use sudo; for status it is enough to join the group magento-edge-agent.",
  },
  COMMAND_REFUSED: {
    disposition: "operator",
    exit: 1,
    text: "The agent does not do what the command asks; nothing was changed.",
    hint: "The message says why.",
  },
  BUG: {
    disposition: "bug",
    exit: 70,
    text: "The agent itself is at fault.",
    hint: "Please report the log lines before this one.",
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof table;

/** Whether the text is one of the table's codes. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(table, text);
}

export const errorTable: Readonly<Record<ErrorCode, ErrorRow>> = table;

export interface AgentErrorOptions {
  readonly cause?: unknown;
  /** What mends it, where more precise than the table's hint. */
  readonly hint?: string;
  /** Which case of the code it is, in one word, where the code has several. */
  readonly detail?: string;
}

export class AgentError extends Error {
  override readonly name = "AgentError";
  readonly code: ErrorCode;
  readonly hint: string;
  /** Which case of the code, for metrics and status; null where the code says it all. */
  readonly detail: string | null;

  constructor(code: ErrorCode, message: string, options: AgentErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint ?? errorTable[code].hint;
    this.detail = options.detail ?? null;
  }

  get disposition(): Disposition {
    return errorTable[this.code].disposition;
  }
}

/** Any thrown thing as an Error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** Exit code for an error that ends the process. */
export function exitCodeOf(thrown: unknown): number {
  return thrown instanceof AgentError ? (errorTable[thrown.code].exit ?? 75) : 70;
}
