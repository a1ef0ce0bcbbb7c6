/**
 * The whole road for tests: a database with Magento's tables, the agent as a process, daprd and Redis.
 * Each part can be killed and started again. What was delivered is read back from Redis.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Applier } from "../../cluster/consumer/applier.ts";
import { entityEvent } from "../../cluster/consumer/event.ts";
import { compareReplica, describeComparison, type Comparison } from "../oracle/compare.ts";
import { type DmlCounts, type DmlSettings, writeRandomly } from "../oracle/dml.ts";
import { entities, type EntitySpec } from "../oracle/entities.ts";
import {
  checkHistory,
  deadLetters,
  readHistory,
  shuffledWithDoubles,
  type DeliveredEvent,
} from "../oracle/history.ts";
import type { Random } from "../oracle/random.ts";
import type { Replica } from "../oracle/replica.ts";
import type { ShopIdentity } from "../oracle/source-rows.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { type KindOptions, type ServerKind, usualKind } from "../servers/matrix.ts";
import { AgentProcess, type AgentForm } from "./agent-process.ts";
import type { ConsumerProcess } from "./consumer-process.ts";
import { startBroker, type Broker, type BrokerOptions, type Way } from "./broker.ts";
import type { MemoryCgroup } from "./memory.ts";

export interface StackOptions {
  /** Default: the usual kind. */
  readonly kind?: ServerKind;
  readonly database?: KindOptions;
  readonly prefix?: string;
  /** More settings of the agent, or others than the stack's. */
  readonly settings?: Readonly<Record<string, string | undefined>>;
  readonly form?: AgentForm;
  /** Another program in the agent's place. */
  readonly program?: string;
  readonly nodeOptions?: readonly string[];
  readonly cgroup?: MemoryCgroup;
  /** The agent's STATE_DIR, when it has to lie somewhere special. */
  readonly stateDir?: string;
  /** Without daprd and Redis: the agent finds nobody at its endpoint. */
  readonly brokerless?: boolean;
  readonly broker?: BrokerOptions;
  /** Between the agent and daprd; default none. */
  readonly wayToDapr?: Way;
  /** Between the agent and the database, over TCP then; default the socket. */
  readonly wayToDatabase?: Way;
}

/** A loopback port on which nothing listens: every connection is refused at once. */
export const nobody = "http://127.0.0.1:9";

export class Stack {
  readonly agent: AgentProcess;
  readonly identity: ShopIdentity;
  readonly #broker: Broker | null;
  #database: DatabaseServer;
  #markers = 0;

  private constructor(parts: {
    database: DatabaseServer;
    agent: AgentProcess;
    broker: Broker | null;
    identity: ShopIdentity;
  }) {
    this.#database = parts.database;
    this.agent = parts.agent;
    this.#broker = parts.broker;
    this.identity = parts.identity;
  }

  /** Starts the servers and prepares the agent, which the caller starts. */
  static async start(options: StackOptions = {}): Promise<Stack> {
    const identity: ShopIdentity = {
      shop: "test-shop",
      namespace: "0b6ac3f4-0b5e-4d6e-9d4e-5a1f6f0a6c11",
      database: "magento_db",
      prefix: options.prefix ?? "",
    };
    const database = await (options.kind ?? usualKind).start(options.database);
    let broker: Broker | null = null;
    try {
      await database.loadMagento({ prefix: identity.prefix });
      // MariaDB's tables of numbers (seq_1_to_9) are only found where some database is selected.
      await database.query(`USE \`${identity.database}\``);
      const user = await database.createAgentUser();
      broker = options.brokerless === true ? null : await startBroker(options.broker);
      const databasePort = await options.wayToDatabase?.(database.port);
      const daprPort = broker === null ? undefined : await options.wayToDapr?.(broker.gateway.httpPort);
      const agent = await AgentProcess.prepare({
        ...(options.form === undefined ? {} : { form: options.form }),
        ...(options.program === undefined ? {} : { program: options.program }),
        ...(options.nodeOptions === undefined ? {} : { nodeOptions: options.nodeOptions }),
        ...(options.cgroup === undefined ? {} : { cgroup: options.cgroup }),
        ...(options.stateDir === undefined ? {} : { stateDir: options.stateDir }),
        settings: {
          ...(databasePort === undefined
            ? { MAGENTO_DB_SOCKET: database.socket }
            : { MAGENTO_DB_HOST: "127.0.0.1", MAGENTO_DB_PORT: String(databasePort) }),
          MAGENTO_DB_USER: user.user,
          MAGENTO_DB_PASS: user.password,
          MAGENTO_DB_NAME: identity.database,
          MAGENTO_TABLE_PREFIX: identity.prefix === "" ? undefined : identity.prefix,
          SHOP_NAME: identity.shop,
          IDENTITY_NAMESPACE: identity.namespace,
          DAPR_HTTP_ENDPOINT:
            daprPort === undefined ? (broker?.gateway.endpoint ?? nobody) : `http://127.0.0.1:${daprPort}`,
          DAPR_API_TOKEN: broker?.token,
          SNAPSHOT_MODE: "never",
          // The machine that runs tests may be fuller than a shop's volume is allowed to be.
          DISK_FREE_MIN: "100M",
          SPOOL_BYTES_MAX: "8G",
          ...options.settings,
        },
      });
      return new Stack({ database, agent, broker, identity });
    } catch (thrown) {
      await broker?.stop();
      await database.stop();
      throw thrown;
    }
  }

  /** The shop's database. */
  get database(): DatabaseServer {
    return this.#database;
  }

  get mariadb(): DatabaseServer {
    return this.#database;
  }

  /** Another server is the shop's database from now on, and stops with the stack; the one before is the caller's. */
  async failedOver(database: DatabaseServer): Promise<void> {
    this.#database = database;
    await database.query(`USE \`${this.identity.database}\``);
  }

  get broker(): Broker {
    if (this.#broker === null) throw new Error("this stack was started without a broker");
    return this.#broker;
  }

  async stop(): Promise<void> {
    this.#tellOfCrash();
    await this.agent.remove();
    await this.#broker?.stop();
    await this.database.stop();
  }

  /** A server that died under the test's own load is no finding about the agent: say so, with its words. */
  #tellOfCrash(): void {
    const file = join(this.database.datadir, "..", "server.log");
    const log = existsSync(file) ? readFileSync(file, "utf8") : "";
    const at = log.search(/got signal|Assertion .* failed/);
    if (at >= 0) console.log(`the database server crashed:\n${log.slice(Math.max(0, at - 500), at + 3000)}`);
  }

  /** Writes one more row into each table and waits until all of them were delivered and nothing waits. */
  async drain(timeoutMs = 60_000): Promise<void> {
    const marks = await this.#mark();
    const missing = new Map(marks);
    const isDone = async (): Promise<boolean> => {
      for (const [topic, words] of missing) if (await this.#stands(topic, words)) missing.delete(topic);
      return missing.size === 0 && (await this.agent.metric("edge_agent_spool_events")) === 0;
    };
    try {
      await this.agent.until("the last row of each table was delivered and nothing waits", isDone, timeoutMs);
    } catch (thrown) {
      throw new Error(`not delivered: ${[...missing].join("; ")}`, { cause: thrown });
    }
  }

  /** One row of its own in each table; the words by which its event is found in the stream. */
  async #mark(): Promise<ReadonlyMap<string, string>> {
    this.#markers += 1;
    // Downwards: upwards they would meet the rows that auto-increment puts behind the first of them.
    const number = 3_000_000_000 - this.#markers;
    const name = `marker-${this.#markers}`;
    const table = (plain: string): string =>
      `\`${this.identity.database}\`.\`${this.identity.prefix}${plain}\``;
    await this.database.query("SET SESSION sql_mode = ''");
    const marks = new Map<string, string>();
    for (const spec of entities) {
      marks.set(spec.topic, `"magento_id":${number}`);
      const key = spec.table === "sales_order_item" ? "item_id" : spec.keyColumns[0];
      const sql = `INSERT INTO ${table(spec.table)} SET ${key} = ${number}`;
      if (spec.entity === "stock") {
        marks.set(spec.topic, `"magento_id":"${number}:9"`);
        await this.database.query(
          `INSERT INTO ${table(spec.table)} SET item_id = ${number}, product_id = ${number}, stock_id = 9`,
        );
      } else if (spec.entity === "source-item") {
        marks.set(spec.topic, `"magento_id":"marker:${name}"`);
        await this.database.query(
          `INSERT INTO ${table(spec.table)} SET source_item_id = ${number}, source_code = 'marker', sku = '${name}'`,
        );
      } else if (spec.entity === "coupon")
        await this.database.query(`${sql}, code = '${name}', rule_id = ${number}`);
      else await this.database.query(sql);
    }
    return marks;
  }

  async #stands(topic: string, words: string): Promise<boolean> {
    // Requests are under way side by side, so the last event need not be the last entry.
    const newest = await this.broker.redis.newestEntries(topic, 1000);
    return newest.some((entry) => entry.fields["data"]?.includes(words) === true);
  }

  /** Everything that Redis has taken, in its order, topic by topic. */
  history(): Promise<DeliveredEvent[]> {
    return readHistory(this.broker.redis);
  }

  /** Random transactions (oracle/dml.ts) on the shop's tables. */
  write(options: Omit<DmlSettings, "connect" | "database" | "prefix">): Promise<DmlCounts> {
    const { database, prefix } = this.identity;
    return writeRandomly({
      ...options,
      database,
      prefix,
      connect: () => this.database.connection({ database }),
    });
  }

  /** Waits until everything was delivered and taken; throws with what differs between consumer and source. */
  async assertEqual(consumer: ConsumerProcess, only?: readonly EntitySpec[]): Promise<void> {
    await this.untilEmpty();
    await this.drain();
    await consumer.caughtUp(120_000);
    const replica = consumer.replica();
    const compared = await this.compare(replica, only);
    replica.close();
    assert.ok(compared.equal, describeComparison(compared));
  }

  async compare(replica: Replica, only?: readonly EntitySpec[]): Promise<Comparison> {
    const connection = await this.database.connection();
    try {
      const { identity } = this;
      return await compareReplica({
        connection,
        identity,
        replica,
        ...(only === undefined ? {} : { entities: only }),
      });
    } finally {
      await connection.end();
    }
  }

  /**
   * The promise in full: the history is sound, no dead letters, and a replica made from it equals the
   * source, delivered as it was and again shuffled with 30 % doubled. Throws with what differs.
   */
  async prove(random: Random, only?: readonly EntitySpec[]): Promise<Proof> {
    const history = await this.history();
    const report = checkHistory(history);
    const faults = report.problems.slice(0, 20);
    const letters = await deadLetters(this.broker.redis);
    if (letters > 0) faults.push(`${letters} dead letters`);
    const straight = await this.compare(replicaOf(history), only);
    if (!straight.equal) faults.push(`as delivered:\n${describeComparison(straight)}`);
    const shuffled = await this.compare(replicaOf(shuffledWithDoubles(random, history, 0.3)), only);
    if (!shuffled.equal) faults.push(`shuffled and doubled:\n${describeComparison(shuffled)}`);
    if (faults.length > 0) throw new Error(`replica and source differ\n${faults.join("\n")}`);
    return { events: report.events, distinct: report.distinct, comparison: straight };
  }

  /** Waits until the spool holds at least so many events. */
  async untilSpooled(events: number, timeoutMs: number): Promise<void> {
    await this.agent.until(
      `${events} events wait in the spool`,
      async () => ((await this.agent.metric("edge_agent_spool_events")) ?? 0) >= events,
      timeoutMs,
    );
  }

  /**
   * Waits until nothing waits in the spool. Before `drain`, where rows of a snapshot may wait: its
   * last row overtakes them, and would soon be no more among the newest of its stream.
   */
  async untilEmpty(timeoutMs = 60_000): Promise<void> {
    await this.agent.until(
      "nothing waits in the spool",
      async () => (await this.agent.metric("edge_agent_spool_events")) === 0,
      timeoutMs,
    );
  }

  /** The end of the database's binlog, FILE:POSITION. */
  async databaseEnd(): Promise<string> {
    const isMysql = this.database.flavour === "mysql";
    const [row] = await this.database.query(isMysql ? "SHOW BINARY LOG STATUS" : "SHOW MASTER STATUS");
    return `${String(row?.["File"])}:${String(row?.["Position"])}`;
  }

  /** Waits until the agent has taken everything that the database has written by now. */
  async untilTaken(timeoutMs = 60_000): Promise<void> {
    const end = await this.databaseEnd();
    await this.agent.until(
      "the agent has taken everything",
      async () => (await this.agent.command("status")).output.includes(end),
      timeoutMs,
      500,
    );
  }

  /** Waits until the agent has taken everything, and has read the rows that this asked for. */
  async untilAllRead(): Promise<void> {
    await this.untilTaken();
    await this.untilRowsRead();
  }

  /** Purges all binlog files but the newest. The dump of a stopped agent holds its file until the server has noticed. */
  async purgeBinlogs(): Promise<void> {
    const [newest = ""] = (await this.databaseEnd()).split(":");
    for (let files = 2; files > 1; files = (await this.database.query("SHOW BINARY LOGS")).length) {
      await this.database.query(`PURGE BINARY LOGS TO '${newest}'`);
      await sleep(50);
    }
  }

  /** Waits until nothing is being read from tables, nor waits to be. */
  async untilRowsRead(timeoutMs = 120_000): Promise<void> {
    await this.agent.until(
      "all rows were read",
      async () => (await this.agent.metric("edge_agent_snapshot_jobs")) === 0,
      timeoutMs,
    );
  }

  /** Waits until the agent has captured so many events since its start. */
  async untilCaptured(events: number, timeoutMs: number): Promise<void> {
    await this.agent.until(
      `${events} events were captured`,
      async () => ((await this.agent.metric("edge_agent_events_captured_total")) ?? 0) >= events,
      timeoutMs,
    );
  }

  /** Waits until the agent reads the binlog. */
  async untilReading(timeoutMs = 30_000): Promise<void> {
    await this.agent.until(
      "the agent reads the binlog",
      async () => (await this.agent.metric("edge_agent_source_connected")) === 1,
      timeoutMs,
      30,
    );
    await sleep(50);
  }
}

export interface Proof {
  readonly events: number;
  readonly distinct: number;
  readonly comparison: Comparison;
}

/** The reference consumer's state after applying the events in the given order. */
export function replicaOf(history: Iterable<DeliveredEvent>): Applier {
  const applier = new Applier(":memory:", personalFields);
  applier.inTransaction(() => {
    for (const { data } of history) applier.applyEntity(entityEvent(data));
  });
  return applier;
}

const personalFields = Object.fromEntries(
  entities.map((spec) => [
    spec.entity,
    spec.fields.filter((field) => field.personal).map((field) => field.field),
  ]),
);
