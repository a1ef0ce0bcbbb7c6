import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import type { Statistics } from "../../cluster/consumer/applier.ts";
import { writeClusterFiles } from "./cluster-files.ts";
import { startDaprd, type DaprdServer } from "./daprd.ts";
import { freePorts } from "./ports.ts";
import { startProcess, waitUntilReady, type ServerProcess } from "./processes.ts";

const main = join(import.meta.dirname, "..", "..", "cluster", "consumer", "main.ts");

export interface ConsumerServerOptions {
  readonly redisPort: number;
  /** The SQLite file; kept after stop. Default: one that goes with the server. */
  readonly db?: string;
  /** See ClusterFilesOptions. */
  readonly retryMaxInterval?: string;
  /** See ClusterFilesOptions. */
  readonly componentMetadata?: Readonly<Record<string, string>>;
  /** Runs in place of the reference consumer, with the same arguments. */
  readonly program?: string;
  /** More of daprd's options, such as the app health check. */
  readonly daprdArgs?: readonly string[];
}

/** The reference consumer and its daprd, both as processes of their own. */
export interface ConsumerServer {
  readonly db: string;
  readonly daprd: DaprdServer;
  readonly process: ServerProcess;
  /** What GET /statistics says. */
  statistics(): Promise<Statistics>;
  stop(): Promise<void>;
}

/** Starts the consumer and a daprd with cluster/'s own component, subscriptions and retries. */
export async function startConsumerServer(options: ConsumerServerOptions): Promise<ConsumerServer> {
  const directory = throwAwayDirectory("consumer");
  const [appPort = 0, daprHttpPort = 0] = await freePorts(2);
  const db = options.db ?? join(directory, "replica.sqlite");
  const program = startProcess({
    command: process.execPath,
    args: [
      "--disable-warning=ExperimentalWarning",
      options.program ?? main,
      `--app-port=${appPort}`,
      `--dapr-http-port=${daprHttpPort}`,
      `--db=${db}`,
    ],
    logFile: join(directory, "consumer.log"),
  });
  const remove = (): void => removeDirectory(directory);
  try {
    await waitUntilReady(program, () => listens(appPort), 20_000);
    const resourcesDir = writeClusterFiles(join(directory, "resources"), {
      redisPort: options.redisPort,
      role: "consumer",
      ...(options.retryMaxInterval === undefined ? {} : { retryMaxInterval: options.retryMaxInterval }),
      ...(options.componentMetadata === undefined ? {} : { componentMetadata: options.componentMetadata }),
    });
    const daprd = await startDaprd({
      resourcesDir,
      appId: "migration-consumer",
      appPort,
      httpPort: daprHttpPort,
      ...(options.daprdArgs === undefined ? {} : { args: options.daprdArgs }),
    });
    return {
      db,
      daprd,
      process: program,
      statistics: () => readStatistics(appPort),
      stop: async () => {
        await daprd.stop();
        await program.stop();
        remove();
      },
    };
  } catch (thrown) {
    await program.stop();
    remove();
    throw thrown;
  }
}

async function readStatistics(appPort: number): Promise<Statistics> {
  const answer = await fetch(`http://127.0.0.1:${appPort}/statistics`, {
    signal: AbortSignal.timeout(5_000),
  });
  const statistics: Statistics = JSON.parse(await answer.text());
  return statistics;
}

async function listens(port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(2_000) });
    await answer.arrayBuffer();
    return true;
  } catch {
    return false;
  }
}
