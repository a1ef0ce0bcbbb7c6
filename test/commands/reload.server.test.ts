/** SIGHUP on a running agent: the mapping file is read again, and nothing of the stream is lost by it. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AgentProcess } from "../e2e/agent-process.ts";
import { type DaprStandIn, startDaprStandIn } from "../servers/dapr-stand-in.ts";
import type { DatabaseServer } from "../servers/database.ts";
import { startMariadb } from "../servers/mariadb.ts";

let database: DatabaseServer;
let dapr: DaprStandIn;
let agent: AgentProcess;
let directory: string;
let mappingFile: string;

interface Told {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

const groups = { keys: ["customer_group_id"], fields: { customer_group_code: "code" } };
/** One field less, and a table more. */
const larger = { entities: { customer: { fields: { dob: null } }, customer_group: groups } };

before(async () => {
  database = await startMariadb();
  await database.loadMagento();
});
after(() => database.stop());

beforeEach(async () => {
  dapr = await startDaprStandIn({ token: "right" });
  directory = mkdtempSync(join(tmpdir(), "mea-reload-"));
  mappingFile = join(directory, "mapping.json");
  await database.query("USE magento_db; TRUNCATE customer_entity; TRUNCATE customer_group");
  const { user, password } = await database.createAgentUser();
  agent = await AgentProcess.prepare({
    settings: {
      MAGENTO_DB_SOCKET: database.socket,
      MAGENTO_DB_USER: user,
      MAGENTO_DB_PASS: password,
      DAPR_HTTP_ENDPOINT: dapr.endpoint,
      DAPR_API_TOKEN: "right",
      DISK_FREE_MIN: "1M",
      SPOOL_BYTES_MAX: "16M",
      MAPPING_FILE: mappingFile,
    },
  });
  writeFileSync(mappingFile, "{}");
});
afterEach(async () => {
  await agent.remove();
  await dapr.stop();
  rmSync(directory, { recursive: true, force: true });
});

function delivered(type: string): Told[] {
  return dapr.delivered.map(({ event }): Told => JSON.parse(event)).filter((one) => one.type === type);
}

function reload(mapping: unknown): void {
  writeFileSync(mappingFile, typeof mapping === "string" ? mapping : JSON.stringify(mapping));
  process.kill(agent.pid, "SIGHUP");
}

async function status(): Promise<Readonly<Record<string, Record<string, unknown>>>> {
  const { output } = await agent.command("status", "--json");
  return JSON.parse(output);
}

async function streaming(): Promise<void> {
  await agent.until("streaming", async () => (await status())["source"]?.["state"] === "streaming", 30_000);
}

async function saysInLog(text: RegExp): Promise<void> {
  await agent.until(`the log says ${text.source}`, async () => text.test(agent.log()), 30_000);
}

test("a faulty mapping file is one line in the log, and the mapping in use stays", async () => {
  await agent.start();
  await streaming();
  reload('{"entities": {"customer": {"fields": {"password_hash": "x", "email": "op"}}}}');
  await saysInLog(/the new mapping is refused; the one in use stays/);
  const lines = agent
    .log()
    .split("\n")
    .filter((line) => line.includes("is refused"));
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? "", /code=MAPPING_INVALID.*password_hash.*\$\.entities\.customer\.fields\.email/);
  reload("{");
  await saysInLog(/is refused.*is not JSON/);
  reload("{}");
  await saysInLog(/is the one in use/);
  await database.query("USE magento_db; INSERT INTO customer_entity (email) VALUES ('a@example.com')");
  await agent.until("delivered", async () => delivered("magento.customer.created").length === 1, 30_000);
  assert.equal(delivered("magento.customer.created")[0]?.data["schema_version"], 1);
  assert.deepEqual(delivered("magento.schema.changed"), []);
});

test("a new mapping is announced and taken up under load, no change is lost by it, and a new table is read", async () => {
  await database.query("USE magento_db; INSERT INTO customer_group (customer_group_code) VALUES ('retail')");
  await agent.start();
  await streaming();
  const COUNT = 400;
  let written = 0;
  const writing = (async () => {
    while (written < COUNT) {
      await database.query(
        `USE magento_db; INSERT INTO customer_entity (entity_id, email) VALUES (${++written}, 'x@example.com')`,
      );
      if (written === COUNT / 4) reload(larger);
    }
  })();
  await saysInLog(/the new mapping is in use .*added=customer_group changed=customer$/m);
  await writing;
  await database.query(
    "USE magento_db; INSERT INTO customer_group (customer_group_code) VALUES ('wholesale')",
  );
  await agent.until(
    "all delivered",
    async () =>
      delivered("magento.customer_group.created").length === 1 &&
      delivered("magento.customer.created").length >= COUNT,
    60_000,
  );
  const created = delivered("magento.customer.created");
  assert.deepEqual(
    created.map(({ data }) => data["magento_id"]),
    Array.from({ length: COUNT }, (_, index) => index + 1),
  );
  const versions = created.map(({ data }) => data["schema_version"]);
  const first = versions.indexOf(2);
  assert.ok(first > 0 && versions.every((version, index) => version === (index < first ? 1 : 2)));
  assert.ok(created.every(({ data }, index) => "date_of_birth" in data === index < first));
  const changes = delivered("magento.schema.changed").map(({ data }) => [
    data["entity"],
    data["schema_version"],
  ]);
  assert.deepEqual(Object.fromEntries(changes), { customer: 2, customer_group: 1 });
  const { mapping } = await status();
  assert.equal(mapping?.["isNextWaiting"], false);
  assert.match(agent.log(), /what was sent before has the old form until a resync/);
  await agent.until(
    "the rows that the new table had are delivered",
    async () => delivered("magento.customer_group.read").some(({ data }) => data["code"] === "retail"),
    30_000,
  );
  assert.ok(delivered("magento.customer.read").every(({ data }) => data["schema_version"] === 1));
});

test("inside a large transaction the mapping that began it ends it, also after a kill", async () => {
  await agent.start();
  await streaming();
  dapr.setToken("wrong for now");
  // The spool compresses what it can.
  const text = "TO_BASE64(RANDOM_BYTES(180))";
  const customers = (from: number): string =>
    `INSERT INTO customer_entity (entity_id, email, firstname, lastname, middlename)
     SELECT ${from} + seq, ${text}, ${text}, ${text}, ${text} FROM seq_1_to_10000`;
  const someGroups = "INSERT INTO customer_group (customer_group_code) SELECT seq FROM seq_1_to_3000";
  // The rows of the table that the new mapping adds would shift every ordinal behind them.
  const steps = [customers(0), someGroups, customers(10_000), someGroups, customers(20_000), someGroups];
  await database.query(`USE magento_db; BEGIN; ${steps.join("; ")}; COMMIT`);
  await agent.until(
    "the spool is full inside of the transaction",
    async () => (await status())["intakeClosed"]?.["code"] === "SPOOL_FULL",
    60_000,
  );
  reload(larger);
  await saysInLog(/the new mapping waits for the end of a large transaction/);
  assert.equal((await status())["mapping"]?.["isNextWaiting"], true);
  assert.match(
    (await agent.command("status")).output,
    /a newer one waits for the end of a large transaction/,
  );
  await agent.kill();
  await agent.start();
  await saysInLog(/the new mapping waits for the end of a large transaction/);
  await sleep(200);
  assert.equal((await status())["mapping"]?.["isNextWaiting"], true);
  dapr.setToken("right");
  await agent.until(
    "the new mapping is in use",
    async () => /the new mapping is in use/.test(agent.log()),
    90_000,
  );
  await database.query(`USE magento_db; INSERT INTO customer_group (customer_group_code) VALUES ('late');
    INSERT INTO customer_entity (entity_id, email) VALUES (99999, 'late@example.com')`);
  await agent.until(
    "the last change is delivered",
    async () => delivered("magento.customer.created").some(({ data }) => data["magento_id"] === 99_999),
    90_000,
  );
  const created = delivered("magento.customer.created");
  const ofTransaction = created.filter(({ data }) => data["magento_id"] !== 99_999);
  assert.ok(ofTransaction.every(({ data }) => data["schema_version"] === 1));
  // A repeat after the kill is the same event; two changes never share a sequence.
  const sequences = new Map(ofTransaction.map(({ data }) => [data["magento_id"], data["sequence"]]));
  assert.equal(sequences.size, 30_000);
  assert.equal(new Set(sequences.values()).size, 30_000);
  assert.ok(ofTransaction.every(({ data }) => sequences.get(data["magento_id"]) === data["sequence"]));
  assert.equal(created.find(({ data }) => data["magento_id"] === 99_999)?.data["schema_version"], 2);
  await agent.until(
    "the group behind the transaction",
    async () => delivered("magento.customer_group.created").length > 0,
    30_000,
  );
  assert.deepEqual(
    delivered("magento.customer_group.created").map(({ data }) => data["code"]),
    ["late"],
  );
});
