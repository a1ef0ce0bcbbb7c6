/**
 * The cluster's side of the demo: Redis, daprd and the reference consumer. On a machine that cannot
 * have daprd, the stand-in of its publish API takes its place and the demo says so.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startBroker } from "../e2e/broker.ts";
import { consumerAnswers, ConsumerProcess, launchConsumer } from "../e2e/consumer-process.ts";
import { controlTopic } from "../oracle/history.ts";
import { entities } from "../oracle/entities.ts";
import { ensureDaprd, DaprdUnavailableError } from "../servers/daprd-binary.ts";
import { startDaprStandIn } from "../servers/dapr-stand-in.ts";
import { freePorts } from "../servers/ports.ts";
import { waitUntilReady } from "../servers/processes.ts";

export interface DemoCluster {
  readonly endpoint: string;
  readonly token: string;
  /** SQLite file of the consumer. */
  readonly replicaFile: string;
  /** Said before anything else where this is not the real thing. */
  readonly warning: string | null;
  readonly parts: string;
  cutOff(): Promise<void>;
  reconnect(): Promise<void>;
  /** Resolves when the consumer has applied everything that was accepted. */
  caughtUp(timeoutMs: number): Promise<void>;
  stop(): Promise<void>;
}

/** With `standIn` it does not even look for daprd. */
export async function startDemoCluster(say: (line: string) => void, standIn: boolean): Promise<DemoCluster> {
  if (standIn) return startStandInCluster("it was not looked for (--stand-in)");
  try {
    say("daprd: looking for the built binary; the first build takes about four minutes");
    await ensureDaprd();
  } catch (thrown) {
    if (!(thrown instanceof DaprdUnavailableError)) throw thrown;
    return startStandInCluster(thrown.message);
  }
  return startRealCluster();
}

async function startRealCluster(): Promise<DemoCluster> {
  const broker = await startBroker();
  try {
    const consumer = await ConsumerProcess.start(broker.redis);
    return {
      endpoint: broker.gateway.endpoint,
      token: broker.token,
      replicaFile: consumer.databaseFile,
      warning: null,
      parts: "Redis, the gateway's daprd, the consumer and its daprd",
      // The road into the cluster, as the shop's host sees it. Redis and the consumer live on: a
      // delivery that dies with the consumer's daprd is taken up again only after three minutes.
      cutOff: () => broker.gateway.kill(),
      reconnect: () => broker.gateway.restart(),
      caughtUp: (timeoutMs) => consumer.caughtUp(timeoutMs),
      stop: async () => {
        await consumer.stop();
        await broker.stop();
      },
    };
  } catch (thrown) {
    await broker.stop();
    throw thrown;
  }
}

async function startStandInCluster(reason: string): Promise<DemoCluster> {
  const token = "token-of-the-demo";
  const directory = mkdtempSync(join(tmpdir(), "mea-demo-"));
  const [appPort = 0] = await freePorts(1);
  const topics = entities.map(({ entity, topic }) => ({ topic, route: `/migration/${entity}` }));
  const subscriptions = [...topics, { topic: controlTopic, route: "/migration/control" }];
  const standIn = await startDaprStandIn({ token, appPort, subscriptions });
  const consumer = launchConsumer(directory, { app: appPort, dapr: standIn.port });
  const stop = async (): Promise<void> => {
    await standIn.stop();
    await consumer.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  const accepted = (): number => standIn.delivered.filter((one) => one.topic !== controlTopic).length;
  try {
    await waitUntilReady(consumer, () => consumerAnswers(appPort), 30_000);
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    endpoint: standIn.endpoint,
    token,
    replicaFile: join(directory, "replica.sqlite"),
    warning: `a STAND-IN for Dapr's publish API takes the place of daprd and Redis: ${reason}`,
    parts: "the stand-in of Dapr's API and the consumer",
    cutOff: () => standIn.disconnect(),
    reconnect: () => standIn.reconnect(),
    caughtUp: (timeoutMs) => untilApplied(appPort, accepted, timeoutMs),
    stop,
  };
}

/** The consumer counts what it applied and what was not newer; both together are the deliveries. */
async function untilApplied(appPort: number, accepted: () => number, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (true) {
    const answer = await fetch(`http://127.0.0.1:${appPort}/statistics`);
    const text = await answer.text();
    const count = (name: string): number => Number(new RegExp(`"${name}":(\\d+)`).exec(text)?.[1] ?? 0);
    const done = count("applied") + count("stale");
    if (done >= accepted()) return;
    if (performance.now() > deadline) throw new Error(`the consumer has ${done} of ${accepted()} events`);
    await sleep(100);
  }
}
