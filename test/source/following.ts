/** A source that is pulled in the background against a real server, and small tables to follow. */
import type {
  Checkpoint,
  FollowedTable,
  RowChange,
  SourceItem,
  TransactionPart,
} from "../../agent/change.ts";
import { type LogFields, systemClock } from "../../agent/kernel/service.ts";
import { packRows } from "../../agent/packed-rows.ts";
import { type BinlogSource, createBinlogSource } from "../../agent/source/binlog-source.ts";
import type { SnapshotParts, SourceLimits } from "../../agent/source/source-parts.ts";
import type { SourceSettings } from "../../agent/source/settings.ts";
import type { DatabaseServer } from "../servers/database.ts";
import type { KindOptions, ServerKind } from "../servers/matrix.ts";

export const tables: readonly FollowedTable[] = [
  { table: "thing", columns: ["id", "name", "gone"], keyColumns: [0] },
  { table: "other", columns: ["id"], keyColumns: [0] },
  { table: "document", columns: ["id", "doc"], keyColumns: [0] },
];

export const create = `CREATE DATABASE IF NOT EXISTS shop; USE shop;
  DROP TABLE IF EXISTS thing, other, noise, plain;
  CREATE TABLE thing (id int PRIMARY KEY, skipped text, name varchar(50));
  CREATE TABLE other (id int PRIMARY KEY);
  CREATE TABLE noise (id int AUTO_INCREMENT PRIMARY KEY, v text);
  CREATE TABLE plain (id int) ENGINE=MyISAM`;

export interface Followed {
  readonly source: BinlogSource;
  readonly items: SourceItem[];
  readonly oddities: string[];
  readonly logged: string[];
  failure: unknown;
  until(done: (items: readonly SourceItem[]) => boolean, timeoutMs?: number): Promise<void>;
  stop(): Promise<void>;
}

export interface FollowOptions {
  readonly after?: Checkpoint | null;
  readonly settings?: Partial<SourceSettings>;
  readonly limits?: Partial<SourceLimits>;
  readonly silenceLookMs?: number;
  readonly snapshots?: SnapshotParts;
  readonly tables?: readonly FollowedTable[];
  /** Runs between two pulls. */
  readonly onBatch?: () => Promise<void>;
}

let server: DatabaseServer;
let nextServerId = 5_000;

export function settingsOf(changes: Partial<SourceSettings> = {}): SourceSettings {
  nextServerId += 1;
  return {
    host: "127.0.0.1",
    port: server.port,
    socketPath: null,
    user: "magento_edge_agent",
    password: () => "agent-password",
    database: "shop",
    tablePrefix: "",
    serverId: nextServerId,
    tls: "off",
    tlsCa: null,
    startPosition: null,
    ...changes,
  };
}

export function sourceOf(
  settings: SourceSettings,
  limits: Partial<SourceLimits> = {},
  silenceLookMs = 20_000,
  more: Pick<FollowOptions, "snapshots" | "tables"> = {},
) {
  const oddities: string[] = [];
  const logged: string[] = [];
  const say = (message: string, fields: LogFields = {}): void => {
    logged.push("reason" in fields ? `${message}: ${String(fields["reason"])}` : message);
  };
  const source = createBinlogSource({
    settings,
    tables: more.tables ?? tables,
    ...(more.snapshots === undefined ? {} : { snapshots: more.snapshots }),
    limits: { heartbeatMs: 500, ...limits },
    silenceLookMs,
    clock: systemClock,
    log: { debug: say, info: say, notice: say, warn: say, error: say },
    observer: {
      connected: () => undefined,
      disconnected: () => undefined,
      bytesRead: () => undefined,
      oddity: (what) => oddities.push(what),
    },
  });
  return { source, oddities, logged };
}

const all = new Set<Followed>();

/** For `afterEach`: a test that failed leaves none behind. */
export async function stopAll(): Promise<void> {
  for (const followed of all) await followed.stop();
}

/** Pulls in the background until stopped. */
export function follow(options: FollowOptions = {}): Followed {
  const { source, oddities, logged } = sourceOf(
    settingsOf(options.settings),
    options.limits,
    options.silenceLookMs,
    options,
  );
  const items: SourceItem[] = [];
  const ending = new AbortController();
  let wake = (): void => undefined;
  const run = async (): Promise<void> => {
    try {
      for await (const batch of source.batches(options.after ?? null, ending.signal)) {
        items.push(...batch.map(kept));
        wake();
        await options.onBatch?.();
      }
    } catch (thrown) {
      followed.failure = thrown;
    }
    wake();
  };
  const followed: Followed = {
    source,
    items,
    oddities,
    logged,
    failure: null,
    until: async (done, timeoutMs = 60_000) => {
      const deadline = Date.now() + timeoutMs;
      while (!done(items)) {
        if (followed.failure !== null) throw followed.failure;
        if (Date.now() > deadline)
          throw new Error(`not seen in time; got ${items.length} items, ${logged.join("; ")}`);
        await new Promise<void>((resolve) => {
          wake = resolve;
          setTimeout(resolve, 200);
        });
      }
    },
    stop: async () => {
      ending.abort();
      all.delete(followed);
      // A test that failed while it held the pull must not hold the end up too.
      await Promise.race([running, systemClock.sleep(2_000)]);
    },
  };
  all.add(followed);
  const running = run();
  return followed;
}

export function rows(items: readonly SourceItem[]): string[] {
  const text = (values: readonly unknown[]): string =>
    values
      .slice(0, 2)
      .map((value) => (typeof value === "string" || typeof value === "number" ? value : ""))
      .join(":");
  const brief = ({ kind, row, old }: RowChange): string =>
    `${kind[0]} ${text(row)}${old === null ? "" : ` was ${text(old)}`}`;
  return items.flatMap((item) => (item.kind === "transaction" ? item.changes.map(brief) : []));
}

/** Waits until the source stands where the server does, with everything before it taken. */
export async function caughtUp(followed: Followed): Promise<void> {
  const { file, position } = await followed.source.currentPosition();
  await followed.until((items) => {
    const last = items.at(-1)?.checkpoint;
    return last !== undefined && last.partial === null && last.file === file && last.position >= position;
  });
}

export async function following(options: FollowOptions = {}): Promise<Followed> {
  const followed = follow(options);
  await followed.until((items) => items.length > 0);
  return followed;
}

/** Starts the server that everything here works with from now on. */
export async function useServer(kind: ServerKind, options: KindOptions = {}): Promise<DatabaseServer> {
  server = await kind.start(options);
  await startAfresh();
  return server;
}

/** For `beforeEach`: session, tables and user as they were, whatever the test before left. */
export async function startAfresh(tablesSql = create): Promise<void> {
  await server.newSession();
  await server.query(tablesSql);
  await server.createAgentUser({ database: "shop" });
}

/** Parts without what differs by when they were read. */
export function bare(items: readonly SourceItem[]): unknown[] {
  return items
    .filter((item): item is TransactionPart => item.kind === "transaction")
    .map((part) => ({ ...part, checkpoint: { ...part.checkpoint, epoch: 0 } }));
}

/** Ids of the connections that stream; "Binlog Dump GTID" is one, too. */
export async function dumps(): Promise<string[]> {
  const connections = await server.query("SHOW PROCESSLIST");
  return connections
    .filter((row) => String(row["Command"]).startsWith("Binlog Dump"))
    .map((row) => String(row["Id"]));
}

/** Resolves when the connections that streamed are gone: a KILL alone only asks them to end. */
export async function killDumps(): Promise<void> {
  const killed = await dumps();
  for (const id of killed) {
    try {
      await server.query(`KILL ${id}`);
    } catch (thrown) {
      // It has ended between the two questions.
      if (!(thrown instanceof Error && "code" in thrown && thrown.code === "ER_NO_SUCH_THREAD")) throw thrown;
    }
  }
  await eventually("the killed dumps are gone", async () => {
    const left = new Set(await dumps());
    return killed.every((id) => !left.has(id));
  });
}

/** Polls; the limit is for machines that are slow, no measure of anything. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not seen in time: ${what}`);
    await systemClock.sleep(50);
  }
}

/** The rows of a chunk are good until the next items are pulled; tests look at them later. */
function kept(item: SourceItem): SourceItem {
  return item.kind === "chunk" ? { ...item, rows: packRows(item.rows.width, item.rows) } : item;
}
