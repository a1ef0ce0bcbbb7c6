import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";

const root = join(import.meta.dirname, "..", "..");
const directory = mkdtempSync(join(tmpdir(), "mea-commands-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const state = join(directory, "state");
const cache = join(directory, "compiled");

/** Built here from the source as it is now, so that it is never an old one; it starts far sooner. */
const program = join(directory, "bundle", "magento-edge-agent.cjs");
execFileSync(
  process.execPath,
  [join(root, "build.mjs"), join(root, "agent", "main.ts"), join(directory, "bundle")],
  { stdio: ["ignore", "ignore", "inherit"] },
);

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The program as a child, with an environment of its own. */
function run(words: readonly string[], variables: Readonly<Record<string, string>> = {}): Ran {
  const ran = spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", program, ...words], {
    env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: cache, STATE_DIR: state, ...variables },
    encoding: "utf8",
    timeout: 30_000,
  });
  return { code: ran.status, out: ran.stdout, err: ran.stderr };
}

/** Ports on loopback where nobody listens. */
const nobody = {
  MAGENTO_DB_HOST: "127.0.0.1",
  MAGENTO_DB_PORT: "1",
  DAPR_HTTP_ENDPOINT: "http://127.0.0.1:1",
};

describe("--help", () => {
  it("exits 0 at every level and names commands, options and settings", () => {
    const top = run(["--help"]);
    assert.equal(top.code, 0, top.err);
    for (const word of [
      "run",
      "check",
      "status",
      "mapping show",
      "version",
      "MAGENTO_DB_HOST",
      "SNAPSHOT_MODE",
    ]) {
      assert.ok(top.out.includes(word), word);
    }
    for (const words of [
      ["run"],
      ["check"],
      ["status"],
      ["mapping"],
      ["mapping", "show"],
      ["mapping", "schema"],
      ["version"],
    ]) {
      const help = run([...words, "--help"]);
      assert.equal(help.code, 0, words.join(" "));
      assert.match(help.out, /^usage: magento-edge-agent /);
      assert.equal(help.err, "");
    }
  });
});

describe("a wrong command line", () => {
  it("exits 64 with a suggestion", () => {
    const wrong: ReadonlyArray<readonly [readonly string[], RegExp]> = [
      [["run", "--sinc=stdout"], /did you mean --sink\?/],
      [["chekc"], /did you mean "check"\?/],
      [["check", "--offline=yes"], /--offline takes no value/],
      [["run", "--sink"], /--sink needs a value/],
      [["run", "--sink=kafka"], /only stdout/],
      [["run", "extra"], /found "extra"/],
      [["status", "--wait-healthy=soon"], /no time/],
      [["mapping", "shwo"], /did you mean "mapping show"\?/],
      [["mapping", "schema", "odrer"], /did you mean order\?/],
      [["mapping", "schema"], /which entity\?/],
      [["run", "--log-format=xml"], /text or json/],
      [[], /which command\?/],
    ];
    for (const [words, message] of wrong) {
      const ran = run(words);
      assert.equal(ran.code, 64, `${words.join(" ")}: ${ran.err}`);
      assert.match(ran.err, message);
      assert.equal(ran.out, "");
    }
  });
});

describe("check", () => {
  it("lists every fault of the settings at once and shows no secret", () => {
    const ran = run(["check", "--json"], {
      MAGENTO_DB_PORT: "x",
      MAGENTO_DB_PASS: "geheim",
      BATCH_SIZE: "0",
      SNAPSHOT_MODE: "once",
      SPOOL_SIZE: "1",
    });
    assert.equal(ran.code, 1);
    const report = JSON.parse(ran.out);
    assert.equal(report.ok, false);
    const names = report.findings.filter((one: { severity: string }) => one.severity === "fault");
    assert.deepEqual(
      names.map((one: { name: string }) => one.name),
      ["SPOOL_SIZE", "MAGENTO_DB_PORT", "BATCH_SIZE", "SNAPSHOT_MODE"],
    );
    for (const one of names) assert.ok(one.rule !== "" && one.mend !== "", one.name);
    assert.doesNotMatch(ran.out + ran.err, /geheim/);
  });

  it("names database and Dapr together when neither is there", () => {
    const ran = run(["check"], nobody);
    assert.equal(ran.code, 1);
    assert.match(ran.out, /FAULT {2}database .*127\.0\.0\.1:1/);
    assert.match(ran.out, /FAULT {2}dapr .*ECONNREFUSED/);
    assert.match(ran.out, /2 faults/);
  });

  it("asks nobody with --offline", () => {
    const ran = run(["check", "--offline"], { ...nobody, DISK_FREE_MIN: "1K" });
    assert.equal(ran.code, 0, ran.out);
    assert.match(ran.out, /no faults/);
  });

  it("reports each fault of a mapping file by its path", () => {
    const mapping = join(directory, "mapping.json");
    writeFileSync(
      mapping,
      JSON.stringify({ entities: { customer: { fields: { password_hash: "x", email: "op" } } } }),
    );
    const ran = run(["check", "--offline"], { MAPPING_FILE: mapping, DISK_FREE_MIN: "1K" });
    assert.equal(ran.code, 1);
    assert.match(ran.out, /FAULT {2}mapping .*\$\.entities\.customer\.fields\.password_hash/);
    assert.match(ran.out, /FAULT {2}mapping .*\$\.entities\.customer\.fields\.email/);
  });

  it("reads an environment file as systemd does, and every unknown name in it is a fault", () => {
    const file = join(directory, "agent.env");
    writeFileSync(file, '# settings\nSHOP_NAME="my-shop"\nFOO=1\nexport BAR=2\n');
    const ran = run(["check", "--offline", `--env-file=${file}`]);
    assert.equal(ran.code, 1);
    assert.match(ran.out, /FOO: is no setting/);
    assert.match(ran.out, /line 4: systemd knows no 'export'/);
  });
});

describe("run", () => {
  it("exits 78 on wrong settings, with a line for each fault", () => {
    const ran = run(["run"], { MAGENTO_DB_PORT: "x", BATCH_SIZE: "0" });
    assert.equal(ran.code, 78);
    assert.match(ran.err, /ERROR MAGENTO_DB_PORT=.*code=CONFIG_INVALID\n/);
    assert.match(ran.err, /ERROR BATCH_SIZE=.*code=CONFIG_INVALID\n/);
  });

  it("exits 75 on a first start without a database, and names it", () => {
    const ran = run(["run", "--log-format=json"], { ...nobody, METRICS_PORT: "0", HEALTH_PORT: "0" });
    assert.equal(ran.code, 75, ran.err);
    const last = JSON.parse(ran.err.trim().split("\n").at(-1) ?? "");
    assert.equal(last.code, "SOURCE_UNREACHABLE");
  });

  it("refuses another shop on the same state, with both values", () => {
    const stateDir = join(directory, "identity");
    const variables = { ...nobody, STATE_DIR: stateDir, METRICS_PORT: "0", HEALTH_PORT: "0" };
    assert.equal(run(["run"], { ...variables, SHOP_NAME: "one" }).code, 75);
    const ran = run(["run"], { ...variables, SHOP_NAME: "two" });
    assert.equal(ran.code, 78, ran.err);
    assert.match(ran.err, /SHOP_NAME is "two", the state was made with "one".*code=IDENTITY_CHANGED/);
    assert.equal(run(["run"], { ...variables, SHOP_NAME: "one" }).code, 75);
  });
});

describe("the other commands", () => {
  it("status exits 69 when no agent runs", () => {
    const ran = run(["status", `--socket=${join(directory, "none.sock")}`]);
    assert.equal(ran.code, 69);
    assert.match(ran.err, /^AGENT_NOT_RUNNING: /);
    const waited = run(["status", "--wait-healthy=1ms", `--socket=${join(directory, "none.sock")}`]);
    assert.equal(waited.code, 1);
  });

  it("version tells program, runtime and format on disk", () => {
    const report = JSON.parse(run(["version", "--json"]).out);
    assert.equal(report.schema, "magento-edge-agent/version/1");
    assert.equal(report.node, process.versions.node);
    assert.equal(report.stateFormat, 3);
    assert.match(run(["--version"]).out, /^magento-edge-agent /);
  });

  it("mapping show and mapping schema print what is in effect", () => {
    assert.match(run(["mapping", "show"]).out, /email .*personal/);
    const shown = JSON.parse(run(["mapping", "show", "--json"]).out);
    assert.equal(shown.entities.length, 10);
    const schema = JSON.parse(run(["mapping", "schema", "customer"]).out);
    assert.match(JSON.stringify(schema), /date_of_birth/);
  });
});
