/**
 * The whole road with a fault tool at every joint, for the campaign of outages:
 *
 *     agent -> network (TCP) -> api (HTTP, scripted) -> daprd -> brokerNetwork (TCP) -> Redis
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startDaprProxy, type DaprProxy } from "../faults/dapr-proxy.ts";
import { startTcpProxy, type TcpProxy } from "../faults/tcp-proxy.ts";
import { writeRandomly } from "../oracle/dml.ts";
import type { Random } from "../oracle/random.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { sumOf } from "./agent-process.ts";
import { Stack } from "./stack.ts";

/** Rows of these tables are changed over and over; each change is one event. */
const piled = [
  { table: "catalog_product_entity", key: "entity_id", column: "sku" },
  { table: "customer_entity", key: "entity_id", column: "email" },
  { table: "sales_order", key: "entity_id", column: "increment_id" },
  { table: "salesrule_coupon", key: "coupon_id", column: "code" },
] as const;
const firstKey = 70_000_000;

interface Tools {
  readonly network: TcpProxy;
  readonly api: DaprProxy;
  readonly brokerNetwork: TcpProxy;
  readonly directory: string;
}

/** What `status --json` says of a hold. */
export interface HeldTopic {
  readonly topic: string;
  readonly code: string;
  readonly message: string;
}

export class OutageRoad {
  readonly stack: Stack;
  readonly network: TcpProxy;
  readonly api: DaprProxy;
  readonly brokerNetwork: TcpProxy;
  readonly #directory: string;
  #token: string;
  #round = 0;
  #touches = 0;

  private constructor(stack: Stack, tools: Tools) {
    this.stack = stack;
    this.network = tools.network;
    this.api = tools.api;
    this.brokerNetwork = tools.brokerNetwork;
    this.#directory = tools.directory;
    this.#token = stack.broker.token;
  }

  /** Starts everything; the agent reads, and `rows` rows for `pileUp` lie in the tables, delivered. */
  static async start(rows: number): Promise<OutageRoad> {
    const directory = throwAwayDirectory("outage");
    const tools: { -readonly [K in keyof Tools]?: Tools[K] } = { directory };
    const stack = await Stack.start({
      broker: {
        hotReload: true,
        way: async (port) => (tools.brokerNetwork = await startTcpProxy({ port })).port,
      },
      wayToDapr: async (port) => {
        tools.api = await startDaprProxy(`http://127.0.0.1:${port}`);
        tools.network = await startTcpProxy({ port: tools.api.port });
        return tools.network.port;
      },
      settings: { DAPR_API_TOKEN: undefined, DAPR_API_TOKEN_FILE: join(directory, "token") },
    });
    const { network, api, brokerNetwork } = tools;
    if (network === undefined || api === undefined || brokerNetwork === undefined)
      throw new Error("the stack did not ask for its ways");
    const road = new OutageRoad(stack, { network, api, brokerNetwork, directory });
    road.handToken();
    await stack.agent.start();
    await stack.untilReading();
    await stack.mariadb.query("SET SESSION sql_mode = ''");
    for (const { table, key, column } of piled) {
      await stack.mariadb.query(
        `INSERT INTO magento_db.${table} (${key}, ${column}) SELECT ${firstKey} + seq, CONCAT('r0-', seq) FROM seq_1_to_${Math.ceil(rows / piled.length)}`,
      );
    }
    await stack.drain();
    return road;
  }

  async stop(): Promise<void> {
    await this.stack.stop();
    await this.network.stop();
    await this.api.stop();
    await this.brokerNetwork.stop();
    removeDirectory(this.#directory);
  }

  /** daprd wants another token from now on, which the agent does not have. */
  async rotateToken(): Promise<void> {
    this.#token += "+";
    await this.stack.broker.gateway.restart(this.#token);
  }

  /** Puts daprd's token into the file where the agent looks for it. */
  handToken(): void {
    writeFileSync(join(this.#directory, "token"), this.#token, { mode: 0o600 });
  }

  /** Changes every row once, so that as many events pile up, with small transactions among them. */
  async pileUp(random: Random): Promise<void> {
    const { mariadb, identity } = this.stack;
    this.#round += 1;
    const small = writeRandomly({
      connect: () => mariadb.connection({ database: identity.database }),
      database: identity.database,
      prefix: identity.prefix,
      random,
      connections: 2,
      transactions: 20,
    });
    for (const { table, key, column } of piled) {
      await mariadb.query(
        `UPDATE magento_db.${table} SET ${column} = CONCAT('r${this.#round}-', ${key}) WHERE ${key} > ${firstKey} AND ${key} < 2 * ${firstKey}`,
      );
    }
    await small;
  }

  /** Changes one row, so that there is something to accept. */
  async touch(): Promise<void> {
    this.#touches += 1;
    const [{ table, key, column }] = piled;
    await this.stack.mariadb.query(
      `UPDATE magento_db.${table} SET ${column} = 'touched-${this.#touches}' WHERE ${key} > ${firstKey} ORDER BY ${key} LIMIT 1`,
    );
  }

  /** Events that the agent saw accepted since its start. */
  async accepted(): Promise<number> {
    for (;;) {
      const metrics = await this.stack.agent.metrics();
      if (metrics !== null) return sumOf(metrics, "sync_total", 'status="success"');
      await sleep(20);
    }
  }

  async held(): Promise<HeldTopic[]> {
    const { output } = await this.stack.agent.command("status", "--json");
    const report: { held: HeldTopic[] } = JSON.parse(output);
    return report.held;
  }

  /** Asks daprd itself, past every tool, whether it would take the topic; publishes nothing. */
  async daprTakes(topic: string): Promise<boolean> {
    const { gateway } = this.stack.broker;
    try {
      const answer = await fetch(
        `${gateway.endpoint}/v1.0/publish/bulk/pubsub/${topic}?metadata.rawPayload=true`,
        {
          method: "POST",
          headers: { "content-type": "application/json", "dapr-api-token": this.#token },
          body: "[]",
          signal: AbortSignal.timeout(2_000),
        },
      );
      await answer.arrayBuffer();
      return answer.status === 204;
    } catch {
      return false;
    }
  }
}

/** Polls until the condition holds; for what no process of its own stands behind. */
export async function eventually(
  what: string,
  holds: () => Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not seen in ${timeoutMs} ms: ${what}`);
    await sleep(20);
  }
}
