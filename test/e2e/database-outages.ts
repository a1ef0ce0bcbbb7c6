/** What happens to the connection to the database, with everything real: the agent stays up and goes on by itself. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { DumpConnection } from "../../agent/source/dump-connection.ts";
import { startTcpProxy, type TcpProxy } from "../faults/tcp-proxy.ts";
import { writeRandomly } from "../oracle/dml.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import type { ServerKind } from "../servers/matrix.ts";
import { Stack } from "./stack.ts";

const agentUser = "magento_edge_agent@'%'";
const SERVER_ID = 4_711;

/** Faults of the network are the same for every server; what the server itself says is not. */
export const outagesOfTheServer = [
  "server killed",
  "password rotated",
  "grant revoked",
  "server id taken",
] as const;
export const databaseOutages = ["black hole", ...outagesOfTheServer, "half-open connection"] as const;
export type DatabaseOutage = (typeof databaseOutages)[number];

interface Fault {
  readonly told: RegExp;
  readonly begin: () => Promise<void>;
  readonly end: () => Promise<void>;
}

/** Declares the tests: each outage once, then equality. */
export function declareDatabaseOutages(kind: ServerKind, outages: readonly DatabaseOutage[]): void {
  describe(`the database away, on ${kind.name}`, () => {
    const random = new Random(runSeed());
    const table: string[] = [];
    let road: Road;

    before(async () => {
      road = await Road.start(kind, random);
    });

    after(async () => {
      console.log([`| ${kind.name} | told as | reading again, s |`, "|---|---|---|", ...table].join("\n"));
      await road.stop();
    });

    for (const outage of outages) {
      test(`${outage}: the agent stays up, says why, forwards meanwhile and reads on by itself`, async () => {
        const { told, seconds } = await road.suffer(outage);
        table.push(`| ${outage} | ${told} | ${seconds.toFixed(1)} |`);
      });
    }

    test("after all of them replica and source are equal", async () => {
      const proof = await road.stack.prove(random);
      console.log(`${proof.events} deliveries of ${proof.distinct} events`);
    });
  });
}

interface DatabaseHealth {
  readonly status: string;
  readonly message: string;
}

class Road {
  readonly stack: Stack;
  readonly #proxy: TcpProxy;
  readonly #daprWay: TcpProxy;
  readonly #directory: string;
  readonly #random: Random;
  #intruder: DumpConnection | null = null;
  #writes = 0;

  private constructor(parts: {
    stack: Stack;
    proxy: TcpProxy;
    daprWay: TcpProxy;
    directory: string;
    random: Random;
  }) {
    this.stack = parts.stack;
    this.#proxy = parts.proxy;
    this.#daprWay = parts.daprWay;
    this.#directory = parts.directory;
    this.#random = parts.random;
  }

  static async start(kind: ServerKind, random: Random): Promise<Road> {
    const directory = throwAwayDirectory("database-outage");
    const passwordFile = join(directory, "password");
    writeFileSync(passwordFile, "agent-password", { mode: 0o600 });
    const ways: TcpProxy[] = [];
    const way = async (port: number): Promise<number> => {
      const proxy = await startTcpProxy({ port });
      ways.push(proxy);
      return proxy.port;
    };
    const stack = await Stack.start({
      kind,
      wayToDatabase: way,
      wayToDapr: way,
      settings: {
        MAGENTO_DB_PASS: undefined,
        MAGENTO_DB_PASS_FILE: passwordFile,
        MAGENTO_DB_SERVER_ID: String(SERVER_ID),
      },
    });
    const [proxy = assert.fail(), daprWay = assert.fail()] = ways;
    const road = new Road({ stack, proxy, daprWay, directory, random });
    await stack.agent.start();
    await stack.untilReading();
    await road.#write();
    await stack.drain();
    return road;
  }

  async stop(): Promise<void> {
    this.#intruder?.close();
    await this.stack.stop();
    await this.#proxy.stop();
    await this.#daprWay.stop();
    removeDirectory(this.#directory);
  }

  async suffer(outage: DatabaseOutage): Promise<{ readonly told: string; readonly seconds: number }> {
    return outage === "half-open connection"
      ? await this.#halfOpen()
      : await this.#await(outage, this.#fault(outage));
  }

  #fault(outage: Exclude<DatabaseOutage, "half-open connection">): Fault {
    const { database, identity } = this.stack;
    const proxy = this.#proxy;
    const faults: Record<Exclude<DatabaseOutage, "half-open connection">, Fault> = {
      "black hole": {
        told: /no packet|ETIMEDOUT|timeout|ECONN/i,
        begin: () => proxy.become({ kind: "black-hole" }),
        end: () => proxy.become({ kind: "pass" }),
      },
      "server killed": {
        told: /ECONN|lost|closed|ended/i,
        begin: () => database.kill(),
        end: async () => {
          await database.restart();
          await database.query(`USE ${identity.database}`);
        },
      },
      "password rotated": this.#rotated(),
      "grant revoked": this.#revoked(),
      "server id taken": {
        told: /same server|server id 4711 is used by replica/i,
        begin: () => this.#intrude(),
        end: async () => this.#intruder?.close(),
      },
    };
    return faults[outage];
  }

  #rotated(): Fault {
    return {
      told: /denied/i,
      begin: async () => {
        await this.stack.database.query(`ALTER USER ${agentUser} IDENTIFIED BY 'rotated'`);
        this.#proxy.cut();
      },
      end: async () => writeFileSync(join(this.#directory, "password"), "rotated", { mode: 0o600 }),
    };
  }

  #revoked(): Fault {
    return {
      told: /denied/i,
      begin: async () => {
        await this.stack.database.query(`REVOKE REPLICATION SLAVE ON *.* FROM ${agentUser}`);
        this.#proxy.cut();
      },
      end: async () => {
        await this.stack.database.query(`GRANT REPLICATION SLAVE ON *.* TO ${agentUser}`);
      },
    };
  }

  /** Another client that comes with the agent's id: the server ends the older one's dump. */
  async #intrude(): Promise<void> {
    const [status = assert.fail()] = await this.stack.database.query(
      this.stack.database.flavour === "mysql" ? "SHOW BINARY LOG STATUS" : "SHOW MASTER STATUS",
    );
    const intruder = new DumpConnection(
      {
        connection: { socketPath: this.stack.database.socket, user: "root" },
        serverId: SERVER_ID,
        start: { kind: "position", file: String(status["File"]), position: Number(status["Position"]) },
        heartbeatMs: 1000,
      },
      { event: () => undefined, failed: (error) => console.log(`the other client: ${error.message}`) },
    );
    this.#intruder = intruder;
    intruder.open();
  }

  async #write(): Promise<void> {
    const { database, identity } = this.stack;
    this.#writes += 1;
    await writeRandomly({
      connect: () => database.connection({ database: identity.database }),
      database: identity.database,
      prefix: identity.prefix,
      random: this.#random.fork(this.#writes),
      connections: 2,
      transactions: 60,
    });
  }

  readonly #isReading = async (): Promise<boolean> =>
    (await this.stack.agent.metric("edge_agent_source_connected")) === 1;

  async #databaseHealth(): Promise<DatabaseHealth> {
    const report: { checks: { magento_database: DatabaseHealth } } = JSON.parse(
      (await this.stack.agent.health()) ?? "{}",
    );
    return report.checks.magento_database;
  }

  /**
   * The fault comes while events wait for the cluster, so that it can be seen that forwarding goes on
   * without the database; then it ends, and reading goes on.
   */
  async #await(name: string, { told, begin, end }: Fault) {
    const { agent } = this.stack;
    const pid = agent.pid;
    const logFrom = agent.log().length;
    await this.#daprWay.become({ kind: "refuse" });
    await this.#write();
    await this.stack.untilSpooled(30, 30_000);
    await begin();
    await agent.until(`the loss is seen: ${name}`, async () => !(await this.#isReading()), 40_000);
    const health = await this.#databaseHealth();
    assert.equal(health.status, "unhealthy");
    assert.equal(await agent.healthStatus(), 503);
    await this.#daprWay.become({ kind: "pass" });
    await agent.until(
      "what was spooled is forwarded without the database",
      async () => (await agent.metric("edge_agent_spool_events")) === 0,
      30_000,
    );
    await agent.until("it says why", async () => told.test((await this.#databaseHealth()).message), 30_000);
    await end();
    const endMs = performance.now();
    await agent.until(`reading goes on after: ${name}`, this.#isReading, 60_000, 20);
    const seconds = (performance.now() - endMs) / 1000;
    await this.#write();
    await this.stack.drain();
    assert.ok((await agent.metric("edge_agent_source_disconnects_total")) !== 0);
    await agent.until("health is good again", async () => (await agent.healthStatus()) === 200, 30_000);
    assert.equal(agent.pid, pid);
    const log = agent.log().slice(logFrom);
    assert.match(log, /the database's stream is interrupted/);
    assert.equal(log.split("the database's stream goes on").length - 1, 1, "one line at the end");
    const [, code = "-"] = [...log.matchAll(/code=(SOURCE_\w+|SERVER_ID_TAKEN)/g)].at(-1) ?? [];
    return { told: code, seconds };
  }

  /** Found and replaced, with what was written meanwhile. */
  async #halfOpen() {
    const { agent } = this.stack;
    const connects = async (): Promise<number> =>
      (await agent.metric("edge_agent_source_connects_total")) ?? Number.NaN;
    const connected = await connects();
    await this.#proxy.become({ kind: "half-open" });
    const startMs = performance.now();
    await this.#write();
    await agent.until("it connects again", async () => (await connects()) > connected, 60_000);
    const seconds = (performance.now() - startMs) / 1000;
    await this.#proxy.become({ kind: "pass" });
    await this.stack.drain();
    return { told: "SOURCE_UNREACHABLE", seconds };
  }
}
