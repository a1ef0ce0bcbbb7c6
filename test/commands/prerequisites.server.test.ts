/** What the database must give: `check` names all of it at once, `run` does not start without it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { DatabaseServer } from "../servers/database.ts";
import { serverKinds } from "../servers/matrix.ts";

const main = join(import.meta.dirname, "..", "..", "agent", "main.ts");
const directory = mkdtempSync(join(tmpdir(), "mea-prerequisites-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let server: DatabaseServer;

function agent(words: readonly string[]) {
  const ran = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", main, ...words], {
    env: {
      PATH: process.env["PATH"] ?? "",
      MAGENTO_DB_HOST: "127.0.0.1",
      MAGENTO_DB_PORT: String(server.port),
      MAGENTO_DB_PASS: "agent-password",
      DAPR_HTTP_ENDPOINT: "http://127.0.0.1:9",
      STATE_DIR: join(directory, "state"),
      RUNTIME_DIRECTORY: directory,
      METRICS_PORT: "0",
      HEALTH_PORT: "0",
      DISK_FREE_MIN: "1K",
    },
    encoding: "utf8",
    timeout: 60_000,
  });
  return { code: ran.status, out: ran.stdout, err: ran.stderr };
}

interface Finding {
  readonly area: string;
  readonly severity: string;
  readonly name: string;
  readonly rule: string;
  readonly mend: string | null;
}

/** Names of what `check` calls faults of the database; each has its mend. */
function databaseFaults(): string[] {
  const ran = agent(["check", "--json"]);
  assert.equal(ran.code, 1, ran.err);
  const report: { findings: Finding[] } = JSON.parse(ran.out);
  const faults = report.findings.filter(({ area, severity }) => area === "database" && severity === "fault");
  for (const { name, rule, mend } of faults) assert.ok(rule !== "" && (mend ?? "") !== "", name);
  return faults.map(({ name }) => name).sort();
}

/** `run` ends before READY with this code, and its log has a line with the mend for each of the names. */
function assertRefused(code: 77 | 78, names: readonly string[]): void {
  const ran = agent(["run"]);
  assert.equal(ran.code, code, ran.err);
  for (const name of names) {
    assert.ok(
      ran.err.split("\n").some((line) => line.includes(`ERROR ${name} is `) && line.includes("mend: ")),
      `${name}: ${ran.err}`,
    );
  }
  assert.doesNotMatch(ran.err, /agent-password/);
}

/** One of each kind: what differs between versions is in the tests of the source. */
const kinds = serverKinds.filter(
  ({ flavour }, at) => serverKinds.findIndex((one) => one.flavour === flavour) === at,
);

for (const kind of kinds)
  describe(kind.name, () => {
    before(async () => {
      server = await kind.start();
      await server.loadMagento();
      await server.createAgentUser();
    });
    after(() => server.stop());

    it("MIXED and STATEMENT format and row image MINIMAL are named by check, and run ends with 78", async () => {
      assert.deepEqual(databaseFaults(), []);
      await server.query("SET GLOBAL binlog_format=MIXED, GLOBAL binlog_row_image=MINIMAL");
      assert.deepEqual(databaseFaults(), ["binlog_format", "binlog_row_image"]);
      assertRefused(78, ["binlog_format", "binlog_row_image"]);
      await server.query("SET GLOBAL binlog_format=STATEMENT, GLOBAL binlog_row_image=NOBLOB");
      assert.deepEqual(databaseFaults(), ["binlog_format", "binlog_row_image"]);
      await server.query("SET GLOBAL binlog_format=ROW, GLOBAL binlog_row_image=FULL");
      assert.deepEqual(databaseFaults(), []);
    });

    it("missing rights are named by check with their statements, and run ends with 77", async () => {
      await server.createAgentUser({ grants: ["SELECT ON `magento_db`.`sales_order`"] });
      const monitor = kind.flavour === "mysql" ? "REPLICATION CLIENT" : "BINLOG MONITOR";
      const rights = [`right ${monitor}`, "right REPLICATION SLAVE", "right SELECT"];
      assert.deepEqual(databaseFaults(), rights.toSorted());
      assertRefused(77, rights);
      await server.createAgentUser();
    });

    it("a wrong password is named by check, and run ends with 77", async () => {
      await server.createAgentUser({ password: "another" });
      assert.deepEqual(databaseFaults(), ["MAGENTO_DB_USER"]);
      assertRefused(77, ["MAGENTO_DB_USER"]);
      await server.createAgentUser();
    });
  });
