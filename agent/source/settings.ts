/** What the source room needs to know; made by main from the table of settings. */
export interface SourceSettings {
  readonly host: string;
  readonly port: number;
  /** A Unix socket wins over host and port. */
  readonly socketPath: string | null;
  readonly user: string;
  /** Asked at every connect, so that a rotated password is taken up without a restart. */
  readonly password: () => string;
  /** The shop's schema; no other is decoded. */
  readonly database: string;
  /** "" for none. */
  readonly tablePrefix: string;
  /** Replica id of the agent, unique in the topology. */
  readonly serverId: number;
  /** Over TCP only: `preferred` uses TLS where the server offers it, `verify` demands and checks it. */
  readonly tls: "off" | "preferred" | "verify";
  /** Path of a PEM file with the authority, read at every connect; null for the system's. */
  readonly tlsCa: string | null;
  /** `file:position` or a GTID position, for a start without checkpoint; null for the current end. */
  readonly startPosition: string | null;
}
