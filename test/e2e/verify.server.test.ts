import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import type { VerificationReport } from "../../cluster/consumer/verification-tables.ts";
import { entityNamed } from "../oracle/entities.ts";
import { Random, runSeed } from "../oracle/random.ts";
import type { ShopIdentity } from "../oracle/source-rows.ts";
import { uuidV5 } from "../oracle/uuid.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { type ServerKind, serverKinds, usualKind } from "../servers/matrix.ts";
import { numbersSql } from "../servers/numbers.ts";
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

  static async start(kind: ServerKind): Promise<Scene> {
    const [port = 0] = await freePorts(1);
    const reportsUrl = `http://127.0.0.1:${port}/verifications`;
    const directory = throwAwayDirectory("verify");
    const tokenFile = join(directory, "token");
    writeFileSync(tokenFile, `${token}\n`);
    const stack = await Stack.start({
      kind,
      settings: { VERIFY_REPORTS_URL: reportsUrl, DAPR_API_TOKEN: token },
    });
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
    const only = entities.length === 0 ? undefined : entities.map(entityNamed);
    await this.stack.assertEqual(this.consumer, only);
  }

  async stop(): Promise<void> {
    await this.consumer.stop();
    await this.stack.stop();
    removeDirectory(this.#directory);
  }
}

async function withScene(kind: ServerKind, act: (scene: Scene) => Promise<void>): Promise<void> {
  const scene = await Scene.start(kind);
  try {
    await act(scene);
  } finally {
    await scene.stop();
  }
}

type Key = number | string;

interface Tampered {
  readonly changed: Key;
  readonly deleted: Key;
  /** Never in the source. */
  readonly extra: Key;
  /** Never in the source, under an id that is not that of its key. */
  readonly foreign: Key;
  /** With a sequence that no event of the source will have. */
  readonly ahead: Key;
}

function tampering({ shop, namespace }: ShopIdentity, entity: string, keys: Tampered): string {
  const key = (value: Key): string => (typeof value === "number" ? String(value) : `'${value}'`);
  const idOf = (value: Key): string => uuidV5(namespace, `${shop}/${entity}:${value}`);
  const put = (value: Key, id: string): string => `
    INSERT INTO entities (entity, id, magento_id, sequence, deleted, fields)
      SELECT entity, '${id}', ${key(value)}, sequence, 0, fields FROM entities
      WHERE entity = '${entity}' AND magento_id = ${key(keys.changed)};`;
  return `
    UPDATE entities SET fields = json_set(fields, '$.store_id', 77, '$.qty', 'x')
      WHERE entity = '${entity}' AND magento_id = ${key(keys.changed)};
    DELETE FROM entities WHERE entity = '${entity}' AND magento_id = ${key(keys.deleted)};
    UPDATE entities SET fields = '{}', sequence = '9999999999' || substr(sequence, 11)
      WHERE entity = '${entity}' AND magento_id = ${key(keys.ahead)};
    ${put(keys.extra, idOf(keys.extra))} ${put(keys.foreign, idOf("another"))}`;
}

/** The server answers differently where marks are asked for; the rest is one code. */
const kinds = serverKinds.filter(
  ({ name, flavour, hasGtids }) => name === usualKind.name || (flavour === "mysql" && hasGtids),
);

describe("verify", () => {
  for (const kind of kinds)
    test(`finds what was changed behind the consumer's back under live writes, heals it, and is then clean, on ${kind.name}`, () =>
      withScene(kind, async (scene) => {
        const { stack } = scene;
        const random = new Random(runSeed());
        await stack.agent.start();
        await stack.untilReading();
        await stack.database.query(
          `INSERT INTO customer_entity (entity_id, email) SELECT seq, CONCAT('a', seq) FROM ${numbersSql(900_001, 901_500)};
           INSERT INTO cataloginventory_stock_item (item_id, product_id, stock_id, qty)
             SELECT seq, seq, 7, 1 FROM ${numbersSql(900_001, 900_300)}`,
        );
        await stack.drain();
        await scene.consumer.caughtUp(60_000);
        const ending = new AbortController();
        const { signal } = ending;
        const load = stack.write({ random, connections: 3, transactions: 1_000_000, pauseMs: 15, signal });
        load.catch(() => undefined);
        // The load's writes reach some rows behind its own, and not so far.
        const rows = { changed: 900_110, deleted: 900_120, ahead: 900_130, extra: 999_999, foreign: 999_998 };
        const stock = Object.fromEntries(Object.entries(rows).map(([what, key]) => [what, `${key}:7`]));
        scene.tamper(tampering(stack.identity, "customer", rows));
        scene.tamper(tampering(stack.identity, "stock", { ...rows, ...stock }));
        const verified = (...entities: readonly string[]) =>
          Promise.all(entities.map((entity) => stack.agent.command("verify", entity, "--wait=2m")));
        for (const { code, output } of await verified("customer", "stock")) {
          assert.match(output, /had drifted, and is healed; .*1 missing; 1 changed; 2 extra; 1 ahead/);
          assert.equal(code, 0, output);
        }
        assert.match(
          stack.agent.log(),
          /a verification found drift; the rows are read again.*entity=customer/,
        );
        // Under the same writes, and with what was healed.
        for (const { code, output } of await verified("customer", "stock", "order-item")) {
          assert.match(output, /: no drift; \d+ rows compared/, output);
          assert.equal(code, 0, output);
        }
        assert.equal(
          await stack.agent.metric("edge_agent_verify_drifts_total", 'table="customer_entity"'),
          5,
        );
        assert.ok(((await stack.agent.metric("edge_agent_verify_rows_compared_total")) ?? 0) > 3_000);
        ending.abort();
        await load;
        await scene.assertEqual();
        const { output } = await stack.agent.command("status");
        assert.match(output, /verify {5}stock \(\d+\): no drift/);
      }));

  test("goes on where it was after the agent was killed in the middle of it, and says what the consumer says", () =>
    withScene(usualKind, async (scene) => {
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
