/**
 * What is derived from settings and host: where the database is, the replica id, directories and
 * the limits on disk. Everything here is printed at start, so that nobody has to guess it.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import type { Supervisor } from "./load.ts";
import type { Settings } from "./settings-table.ts";
import type { ByteLimit } from "./value-kinds.ts";

export type DatabaseAddress =
  | { readonly kind: "socket"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

const usualSockets = [
  "/run/mysqld/mysqld.sock",
  "/var/run/mysqld/mysqld.sock",
  "/var/lib/mysql/mysql.sock",
  "/run/mysql/mysql.sock",
];

/** A set socket wins over a set host, a set host or port over a socket that was found. */
export function databaseAddress(
  settings: Settings,
  exists: (path: string) => boolean = existsSync,
): DatabaseAddress {
  if (settings.dbSocket !== null) return { kind: "socket", path: settings.dbSocket };
  if (settings.dbHost === null && settings.dbPort === null) {
    const found = usualSockets.find((path) => exists(path));
    if (found !== undefined) return { kind: "socket", path: found };
  }
  return { kind: "tcp", host: settings.dbHost ?? "127.0.0.1", port: settings.dbPort ?? 3306 };
}

export function describeAddress(address: DatabaseAddress): string {
  if (address.kind === "socket") return address.path;
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/**
 * The same host and shop give the same id after every start; the range starts at 2^31, far from the
 * small numbers that people give to their servers.
 */
export function databaseServerId(settings: Settings, machine: string = machineIdentity()): number {
  if (settings.dbServerId !== null) return settings.dbServerId;
  const digest = createHash("sha256").update(`magento-edge-agent\0${machine}\0${settings.shopName}`).digest();
  return 2 ** 31 + (digest.readUInt32BE(0) % (2 ** 31 - 1));
}

/** What tells this machine from others: its machine-id, else its host name. */
export function machineIdentity(): string {
  try {
    const id = readFileSync("/etc/machine-id", "utf8").trim();
    if (id !== "") return id;
  } catch {
    // A container may have none; the host name is the next best thing.
  }
  return hostname();
}

export function stateDirectory(settings: Settings, supervisor: Pick<Supervisor, "stateDirectory">): string {
  return settings.stateDir ?? supervisor.stateDirectory ?? "/var/lib/magento-edge-agent";
}

/** Where the two control sockets lie: systemd's runtime directory, else beside the state. */
export interface ControlSockets {
  /** control.sock: status only, for the service's group. */
  readonly readOnly: string;
  /** admin.sock: what changes state or shows row data, for root alone. */
  readonly admin: string;
}

export function controlSockets(
  settings: Settings,
  supervisor: Pick<Supervisor, "runtimeDirectory" | "stateDirectory">,
): ControlSockets {
  return controlSocketsIn(supervisor.runtimeDirectory ?? stateDirectory(settings, supervisor));
}

export function controlSocketsIn(directory: string): ControlSockets {
  return { readOnly: join(directory, "control.sock"), admin: join(directory, "admin.sock") };
}

export interface Volume {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

/** The volume of a directory, which need not be there yet. */
export async function volumeOf(directory: string): Promise<Volume> {
  let path = directory;
  while (!existsSync(path) && dirname(path) !== path) path = dirname(path);
  const stat = await statfs(path);
  return { totalBytes: stat.blocks * stat.bsize, availableBytes: stat.bavail * stat.bsize };
}

export interface DiskLimits {
  readonly spoolBytesMax: number;
  readonly diskFreeMinBytes: number;
}

const GIB = 1024 ** 3;

/**
 * Free-space floor: 5 GiB or 10 % of the volume, whichever is more, but never more than a quarter
 * of a small volume. Spool: a fifth of the volume, at most 100 GiB: days of a busy shop, and still
 * far from what the database needs.
 */
export function diskLimits(settings: Settings, volume: Volume): DiskLimits {
  const total = volume.totalBytes;
  const floor = Math.min(Math.max(5 * GIB, total * 0.1), total * 0.25);
  const spool = Math.min(total * 0.2, 100 * GIB);
  return {
    spoolBytesMax: bytesOf(settings.spoolBytesMax, total) ?? Math.floor(spool),
    diskFreeMinBytes: bytesOf(settings.diskFreeMin, total) ?? Math.floor(floor),
  };
}

function bytesOf(limit: ByteLimit | null, totalBytes: number): number | null {
  if (limit === null) return null;
  return limit.unit === "bytes" ? limit.bytes : Math.floor((totalBytes * limit.percent) / 100);
}
