/** The cluster's edge for tests: a real Redis and a real daprd in front of it, which can be cut off. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

function pubsubComponent(redisPort: number): string {
  return `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: pubsub
spec:
  type: pubsub.redis
  version: v1
  metadata:
    - { name: redisHost, value: "127.0.0.1:${redisPort}" }
    - { name: redisPassword, value: "" }
    - { name: dialTimeout, value: "2s" }
    - { name: readTimeout, value: "3s" }
    - { name: writeTimeout, value: "3s" }
`;
}

/** Starts Redis and the daprd that takes the agent's events. */
export async function startBroker(): Promise<Broker> {
  const token = "token-of-the-test";
  const redis = await startRedis();
  const resourcesDir = mkdtempSync(join(tmpdir(), "mea-gateway-"));
  writeFileSync(join(resourcesDir, "pubsub.yaml"), pubsubComponent(redis.port));
  try {
    const gateway = await startDaprd({ resourcesDir, token });
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
        await redis.stop();
        rmSync(resourcesDir, { recursive: true, force: true });
      },
    };
  } catch (thrown) {
    await redis.stop();
    rmSync(resourcesDir, { recursive: true, force: true });
    throw thrown;
  }
}
