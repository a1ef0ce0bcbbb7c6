/** The reference consumer as a process of its own, with its own daprd, as it runs in the cluster. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Applier } from "../../cluster/consumer/applier.ts";
import { entities } from "../oracle/entities.ts";
import { controlTopic } from "../oracle/history.ts";
import { writeClusterFiles } from "../servers/cluster-files.ts";
import { startDaprd, type DaprdServer } from "../servers/daprd.ts";
import { freePorts } from "../servers/ports.ts";
import { startProcess, waitUntilReady, type ServerProcess } from "../servers/processes.ts";
import type { RedisServer } from "../servers/redis.ts";

const root = join(import.meta.dirname, "..", "..");

/** The consumer alone; its tables are replica.sqlite in the directory, its daprd is the caller's business. */
export function launchConsumer(
  directory: string,
  ports: { readonly app: number; readonly dapr: number },
  moreArguments: readonly string[] = [],
): ServerProcess {
  const main = join(root, "cluster", "consumer", "main.ts");
  const where = ["--app-port", String(ports.app), "--dapr-http-port", String(ports.dapr)];
  return startProcess({
    command: process.execPath,
    args: [
      "--disable-warning=ExperimentalWarning",
      main,
      ...where,
      "--db",
      join(directory, "replica.sqlite"),
      ...moreArguments,
    ],
    logFile: join(directory, "consumer.log"),
    cwd: root,
  });
}

export class ConsumerProcess {
  readonly databaseFile: string;
  readonly #directory: string;
  readonly #redis: RedisServer;
  readonly #process: ServerProcess;
  readonly #sidecar: DaprdServer;

  private constructor(parts: {
    directory: string;
    redis: RedisServer;
    process: ServerProcess;
    sidecar: DaprdServer;
  }) {
    this.#directory = parts.directory;
    this.databaseFile = join(parts.directory, "replica.sqlite");
    this.#redis = parts.redis;
    this.#process = parts.process;
    this.#sidecar = parts.sidecar;
  }

  static async start(redis: RedisServer, moreArguments: readonly string[] = []): Promise<ConsumerProcess> {
    const directory = mkdtempSync(join(tmpdir(), "mea-consumer-"));
    const [appPort = 0, httpPort = 0] = await freePorts(2);
    const consumer = launchConsumer(directory, { app: appPort, dapr: httpPort }, moreArguments);
    try {
      // DaprServer waits for its sidecar, and the sidecar for the consumer's port: both at once.
      const sidecar = await startDaprd({
        resourcesDir: writeClusterFiles(join(directory, "resources"), {
          redisPort: redis.port,
          role: "consumer",
        }),
        appId: "migration-consumer",
        appPort,
        httpPort,
      });
      await waitUntilReady(consumer, () => consumerAnswers(appPort), 30_000);
      return new ConsumerProcess({ directory, redis, process: consumer, sidecar });
    } catch (thrown) {
      const log = consumer.log().slice(-2000);
      await consumer.kill();
      rmSync(directory, { recursive: true, force: true });
      throw new Error(`the consumer did not start; its log ends:\n${log}`, { cause: thrown });
    }
  }

  /** Events that Redis has and the consumer has not answered for yet, over all entity topics. */
  async waiting(): Promise<number> {
    let waiting = 0;
    for (const topic of [...entities.map((one) => one.topic), controlTopic])
      waiting += await waitingOf(this.#redis, topic);
    return waiting;
  }

  /** Resolves when everything that was published has been applied. */
  async caughtUp(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (let left = await this.waiting(); left > 0; left = await this.waiting()) {
      if (performance.now() > deadline)
        throw new Error(`the consumer still lacks ${left} events after ${timeoutMs} ms`);
      await sleep(100);
    }
  }

  /** The replica as it stands on disk; the caller closes it. */
  replica(): Applier {
    return new Applier(this.databaseFile, {});
  }

  log(): string {
    return this.#process.log();
  }

  async stop(): Promise<void> {
    await this.#sidecar.stop();
    await this.#process.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Whether the consumer on that port can take deliveries. */
export async function consumerAnswers(port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(2_000) });
    return answer.ok;
  } catch {
    return false;
  }
}

/** Not yet handed out, plus handed out and unanswered. A stream that nobody wrote to has neither. */
async function waitingOf(redis: RedisServer, topic: string): Promise<number> {
  if ((await redis.streamLength(topic)) === 0) return 0;
  const groups = await redis.command("XINFO", "GROUPS", topic);
  if (!Array.isArray(groups)) return 1;
  for (const group of groups) {
    if (!Array.isArray(group)) continue;
    const facts = new Map<string, unknown>();
    for (let at = 0; at + 1 < group.length; at += 2) facts.set(String(group[at]), group[at + 1]);
    if (facts.get("name") === "migration-consumer")
      return Number(facts.get("pending")) + Number(facts.get("lag"));
  }
  return 1;
}
