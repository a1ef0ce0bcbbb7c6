/** The cluster's edge for tests: a real Redis and a real daprd in front of it, which can be cut off. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gatewayConfigFile, writeClusterFiles } from "../servers/cluster-files.ts";
import { startDaprd, type DaprdServer } from "../servers/daprd.ts";
import { startRedis, type RedisServer } from "../servers/redis.ts";

export interface Broker {
  readonly redis: RedisServer;
  readonly gateway: DaprdServer;
  readonly token: string;
  /** Both gone at once (kill -9), as when a site loses its power. */
  cutOff(): Promise<void>;
  /** Both back: Redis first, since daprd ends without it. */
  reconnect(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts Redis and the daprd that takes the agent's events, with the files of cluster/. */
export async function startBroker(): Promise<Broker> {
  const token = "token-of-the-test";
  const directory = mkdtempSync(join(tmpdir(), "mea-gateway-"));
  const redis = await startRedis();
  const clean = async (): Promise<void> => {
    await redis.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const gateway = await startDaprd({
      resourcesDir: writeClusterFiles(directory, { redisPort: redis.port, role: "gateway" }),
      configFile: gatewayConfigFile,
      token,
    });
    return {
      redis,
      gateway,
      token,
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
