/** The cluster's edge for tests: a real Redis and a real daprd in front of it, which can be cut off. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gatewayConfigFile, writeClusterFiles } from "../servers/cluster-files.ts";
import { startDaprd, type DaprdServer } from "../servers/daprd.ts";
import { startRedis, type RedisServer } from "../servers/redis.ts";

export interface Broker {
  readonly redis: RedisServer;
  readonly gateway: DaprdServer;
  readonly token: string;
  /** daprd's component file; with `hotReload` a change of it takes effect while daprd runs. */
  readonly componentFile: string;
  /** Both gone at once (kill -9), as when a site loses its power. */
  cutOff(): Promise<void>;
  /** Both back: Redis first, since daprd ends without it. */
  reconnect(): Promise<void>;
  stop(): Promise<void>;
}

/** Given the port of a server, the port under which its client is to reach it: that of a proxy. */
export type Way = (port: number) => Promise<number>;

export interface BrokerOptions {
  /** The way between daprd and Redis; default none, daprd connects to Redis itself. */
  readonly way?: Way;
  /** Lets daprd watch its component file and take changes without a restart. */
  readonly hotReload?: boolean;
  /** More of daprd's command line; read at each start, so that a restart may have others. */
  readonly daprdArgs?: readonly string[];
}

/** Starts Redis and the daprd that takes the agent's events, with the files of cluster/. */
export async function startBroker(options: BrokerOptions = {}): Promise<Broker> {
  const token = "token-of-the-test";
  const directory = mkdtempSync(join(tmpdir(), "mea-gateway-"));
  const redis = await startRedis();
  const clean = async (): Promise<void> => {
    await redis.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const redisPort = (await options.way?.(redis.port)) ?? redis.port;
    const resourcesDir = writeClusterFiles(join(directory, "resources"), { redisPort, role: "gateway" });
    const gateway = await startDaprd({
      resourcesDir,
      configFile: options.hotReload === true ? hotReloadConfig(directory) : gatewayConfigFile,
      token,
      ...(options.daprdArgs === undefined ? {} : { args: options.daprdArgs }),
    });
    return {
      redis,
      gateway,
      token,
      componentFile: join(resourcesDir, "pubsub-redis.yaml"),
      cutOff: async () => {
        await Promise.all([gateway.kill(), redis.kill()]);
      },
      reconnect: async () => {
        await redis.restart();
        await gateway.restart();
      },
      stop: async () => {
        await gateway.stop();
        await clean();
      },
    };
  } catch (thrown) {
    await clean();
    throw thrown;
  }
}

/** The gateway's own Configuration with the one feature added. */
function hotReloadConfig(directory: string): string {
  const file = join(directory, "configuration.yaml");
  const features = "  features:\n    - name: HotReload\n      enabled: true\n";
  writeFileSync(file, readFileSync(gatewayConfigFile, "utf8") + features);
  return file;
}
