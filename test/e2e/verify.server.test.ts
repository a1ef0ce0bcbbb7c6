import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import type { VerificationReport } from "../../cluster/consumer/verification-tables.ts";
import { describeComparison } from "../oracle/compare.ts";
import { writeRandomly } from "../oracle/dml.ts";
import { entityNamed } from "../oracle/entities.ts";
import { Random, runSeed } from "../oracle/random.ts";
import type { ShopIdentity } from "../oracle/source-rows.ts";
import { uuidV5 } from "../oracle/uuid.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { freePorts } from "../servers/ports.ts";
import { ConsumerProcess } from "./consumer-process.ts";
import { Stack } from "./stack.ts";

const token = "token-of-the-test";

/** A shop, an agent and a consumer that it asks for reports. */
class Scene {
  readonly stack: Stack;
  readonly consumer: ConsumerProcess;
  readonly reportsUrl: string;
  readonly #directory: string;

  private constructor(parts: {
    stack: Stack;
    consumer: ConsumerProcess;
    reportsUrl: string;
    directory: string;
  }) {
    this.stack = parts.stack;
    this.consumer = parts.consumer;
    this.reportsUrl = parts.reportsUrl;
    this.#directory = parts.directory;
  }

  static async start(): Promise<Scene> {
    const [port = 0] = await freePorts(1);
    const reportsUrl = `http://127.0.0.1:${port}/verifications`;
    const directory = throwAwayDirectory("verify");
    const tokenFile = join(directory, "token");
    writeFileSync(tokenFile, `${token}\n`);
    const stack = await Stack.start({ settings: { VERIFY_REPORTS_URL: reportsUrl, DAPR_API_TOKEN: token } });
    try {
      const reports = [`--reports-listen=127.0.0.1:${port}`, `--reports-token-file=${tokenFile}`];
      const consumer = await ConsumerProcess.start(stack.broker.redis, ["--verify-grace=0.4", ...reports]);
      return new Scene({ stack, consumer, reportsUrl, directory });
    } catch (thrown) {
      await stack.stop();
      removeDirectory(directory);
      throw thrown;
    }
  }

  /** Changes the consumer's tables behind its back. */
  tamper(sql: string): void {
    const replica = new DatabaseSync(this.consumer.databaseFile);
    replica.exec("PRAGMA busy_timeout = 5000");
    replica.exec(sql);
    replica.close();
  }

  async report(instance: string, generation: number): Promise<VerificationReport> {
    const answer = await fetch(`${this.reportsUrl}/${instance}/${generation}`, {
      headers: { "dapr-api-token": token },
    });
    assert.equal(answer.status, 200);
    const report: VerificationReport = JSON.parse(await answer.text());
    return report;
  }

  async assertEqual(...entities: readonly string[]): Promise<void> {
    await this.stack.untilEmpty();
    await this.stack.drain();
    await this.consumer.caughtUp(120_000);
    const replica = this.consumer.replica();
    const compared = await this.stack.compare(
      replica,
      entities.length === 0 ? undefined : entities.map(entityNamed),
    );
    replica.close();
    assert.ok(compared.equal, describeComparison(compared));
  }

  async stop(): Promise<void> {
    await this.consumer.stop();
    await this.stack.stop();
    removeDirectory(this.#directory);
  }
}

async function withScene(act: (scene: Scene) => Promise<void>): Promise<void> {
  const scene = await Scene.start();
  try {
    await act(scene);
  } finally {
    await scene.stop();
  }
}

/** One row changed, one deleted, and one put there that the source never had. */
function tampering(
  { shop, namespace }: ShopIdentity,
  entity: string,
  [changed, deleted, extra]: readonly [number | string, number | string, number | string],
): string {
  const key = (value: number | string): string => (typeof value === "number" ? String(value) : `'${value}'`);
  const id = uuidV5(namespace, `${shop}/${entity}:${extra}`);
  return `
    UPDATE entities SET fields = json_set(fields, '$.store_id', 77, '$.qty', 'x')
      WHERE entity = '${entity}' AND magento_id = ${key(changed)};
    DELETE FROM entities WHERE entity = '${entity}' AND magento_id = ${key(deleted)};
    INSERT INTO entities (entity, id, magento_id, sequence, deleted, fields)
      SELECT entity, '${id}', ${key(extra)}, sequence, 0, fields FROM entities
      WHERE entity = '${entity}' AND magento_id = ${key(changed)};`;
}

describe("verify", () => {
  test("finds what was changed behind the consumer's back under live writes, heals it, and is then clean", () =>
    withScene(async (scene) => {
      const { stack } = scene;
      const random = new Random(runSeed());
      const { database } = stack.identity;
      await stack.agent.start();
      await stack.untilReading();
      const numbers = (from: number, to: number): string => `SELECT seq FROM seq_${from}_to_${to}`;
      await stack.database.query(
        `INSERT INTO customer_entity (entity_id, email) SELECT seq, CONCAT('a', seq) FROM (${numbers(900_001, 901_500)}) AS n;
         INSERT INTO cataloginventory_stock_item (item_id, product_id, stock_id, qty)
           SELECT seq, seq, 7, 1 FROM (${numbers(900_001, 900_300)}) AS n`,
      );
      await stack.drain();
      await scene.consumer.caughtUp(60_000);
      const ending = new AbortController();
      const load = writeRandomly({
        connect: () => stack.database.connection({ database }),
        database,
        prefix: stack.identity.prefix,
        random,
        connections: 3,
        transactions: 1_000_000,
        pauseMs: 15,
        signal: ending.signal,
      });
      load.catch(() => undefined);
      // The load's writes reach some rows behind its own, and not so far.
      scene.tamper(tampering(stack.identity, "customer", [900_110, 900_120, 999_999]));
      scene.tamper(tampering(stack.identity, "stock", ["900110:7", "900120:7", "999999:7"]));
      const verified = (...entities: readonly string[]) =>
        Promise.all(entities.map((entity) => stack.agent.command("verify", entity, "--wait=2m")));
      for (const { code, output } of await verified("customer", "stock")) {
        assert.match(output, /had drifted, and is healed; .*1 missing; 1 changed; 1 extra/);
        assert.equal(code, 0, output);
      }
      assert.match(stack.agent.log(), /a verification found drift; the rows are read again.*entity=customer/);
      // Under the same writes, and with what was healed.
      for (const { code, output } of await verified("customer", "stock", "order-item")) {
        assert.match(output, /: no drift; \d+ rows compared/, output);
        assert.equal(code, 0, output);
      }
      assert.equal(await stack.agent.metric("edge_agent_verify_drifts_total", 'table="customer_entity"'), 3);
      assert.ok(((await stack.agent.metric("edge_agent_verify_rows_compared_total")) ?? 0) > 3_000);
      ending.abort();
      await load;
      await scene.assertEqual();
      const { output } = await stack.agent.command("status");
      assert.match(output, /verify {5}stock \(\d+\): no drift/);
    }));

  test("goes on where it was after the agent was killed in the middle of it, and says what the consumer says", () =>
    withScene(async (scene) => {
      const { stack } = scene;
      await stack.agent.start({ SNAPSHOT_RATE_MAX: "400" });
      await stack.untilReading();
      await stack.database.query(
        "INSERT INTO customer_entity (entity_id, email) SELECT seq, CONCAT('a', seq) FROM seq_1_to_2000",
      );
      await stack.drain();
      await scene.consumer.caughtUp(60_000);
      scene.tamper("UPDATE entities SET fields = '{}' WHERE entity = 'customer' AND magento_id IN (3, 1900)");
      const asked = await stack.agent.command("verify", "customer");
      assert.equal(asked.code, 0, asked.output);
      await stack.agent.until(
        "some rows were read",
        async () => ((await stack.agent.metric("edge_agent_snapshot_rows")) ?? 0) > 300,
        30_000,
        20,
      );
      await stack.agent.kill();
      await stack.agent.start();
      await stack.agent.until(
        "the drift is healed",
        async () => (await stack.agent.metric("edge_agent_verify_open")) === 0,
        60_000,
      );
      const { verifications, instance } = JSON.parse((await stack.agent.command("status", "--json")).output);
      // Numbers before it went to the scans of keys.
      const { generation, outcome, resyncs } = verifications[0];
      assert.deepEqual([outcome, resyncs], ["healed", [generation + 1]]);
      const report = await scene.report(instance, generation);
      assert.deepEqual(
        report.drifts.map(({ magento_id, kind }) => [magento_id, kind]),
        [
          [3, "changed"],
          [1900, "changed"],
        ],
      );
      assert.equal((await scene.report(instance, generation + 2)).compared, 2);
      assert.equal((await fetch(`${scene.reportsUrl}/${instance}/${generation}`)).status, 401);
      await scene.assertEqual("customer");
    }));
});
