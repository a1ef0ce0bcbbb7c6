import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { databaseAddress, databaseServerId, diskLimits } from "../../agent/config/derived.ts";
import { describeFault, loadSettings, nearestName, settingsError } from "../../agent/config/load.ts";
import { foreignNames, ownPrefixes } from "../../agent/config/names.ts";
import { parseEnvFile } from "../../agent/config/env-file.ts";
import { DEFAULT_IDENTITY_NAMESPACE } from "../../agent/transform/identity.ts";
import { settingRows, type Settings } from "../../agent/config/settings-table.ts";

const directory = mkdtempSync(join(tmpdir(), "mea-config-"));
after(() => rmSync(directory, { recursive: true, force: true }));

function settingsOf(variables: Record<string, string>): Settings {
  const loaded = loadSettings(variables);
  assert.deepEqual(loaded.faults, []);
  assert.ok(loaded.settings);
  return loaded.settings;
}

function faultNames(variables: Record<string, string>): string[] {
  return loadSettings(variables).faults.map((fault) => fault.name);
}

describe("the table of settings", () => {
  it("gives every setting its default when nothing is set", () => {
    const settings = settingsOf({});
    assert.equal(settings.dbUser, "magento_edge_agent");
    assert.equal(settings.dbName, "magento_db");
    assert.equal(settings.daprEndpoint, "http://127.0.0.1:3500");
    assert.equal(settings.syncIntervalMs, 20);
    assert.equal(settings.batchSize, 100);
    assert.equal(settings.snapshotMode, "initial");
    assert.equal(settings.startPosition, null);
    assert.equal(settings.dbPassword.read(), null);
  });

  it("is frozen", () => {
    const settings = settingsOf({});
    assert.throws(() => Object.assign(settings, { dbUser: "root" }), TypeError);
  });

  it("has a default that its own rule accepts, for every row that has one", () => {
    for (const [key, row] of settingRows) {
      if (row.secret || row.defaultText === null) continue;
      assert.notEqual(row.kind.parse(row.defaultText), undefined, `${key}: ${row.defaultText}`);
    }
  });

  it("uses each name once and writes each text as sentences", () => {
    const names = settingRows.map(([, row]) => row.name);
    assert.equal(new Set(names).size, names.length);
    for (const [, row] of settingRows) assert.match(row.text, /\.$/, row.name);
  });

  it("takes no name of Dapr's own for a setting", () => {
    for (const [, row] of settingRows) assert.equal(foreignNames.has(row.name), false, row.name);
  });

  it("refuses what breaks its rule, for every row, all in one report with name, value, rule and mend", () => {
    const missing = join(directory, "not-there");
    const bad: Record<string, readonly string[]> = {
      MAGENTO_DB_HOST: ["db host", "1.2.3", "db:3306", "-db"],
      MAGENTO_DB_PORT: ["0", "65536", "70000", "3306.5", "0x10", "-1", "http"],
      MAGENTO_DB_SOCKET: ["mysqld.sock", "./mysqld.sock"],
      MAGENTO_DB_USER: ["a\nb", "a\u007fb"],
      MAGENTO_DB_NAME: ["a/b", "a b", "a.b", "`a`", "x".repeat(65)],
      MAGENTO_TABLE_PREFIX: ["a-b", "a b", "p;", "x".repeat(33)],
      MAGENTO_DB_SERVER_ID: ["0", "1", "4294967296", "-2"],
      MAGENTO_DB_TLS: ["maybe", "OFF", "required"],
      MAGENTO_DB_TLS_CA: ["ca.pem", missing, directory],
      SHOP_NAME: ["my shop", "-shop", "a/b", "x".repeat(64)],
      IDENTITY_NAMESPACE: ["not-a-uuid", "123e4567e89b42d3a456426614174000"],
      DAPR_HTTP_ENDPOINT: ["ftp://x", "dapr:3500", "http://a?b=c", "http://me:pass@a", "http://"],
      DAPR_PUBSUB: ["a b", "-a", "a/b"],
      DAPR_ALLOW_INSECURE: ["yes", "1", "TRUE"],
      DAPR_TLS_CA: ["ca.pem", missing, directory],
      DAPR_TLS_CERT: ["cert.pem", missing, directory],
      DAPR_TLS_KEY: ["key.pem", missing, directory],
      HTTPS_PROXY: ["proxy:3128", "socks5://proxy"],
      VERIFY_REPORTS_URL: ["reports.example.com", "https://reports.example.com/?all"],
      NO_PROXY: ["a\tb"],
      MAX_RETRIES: ["0", "101", "three"],
      BATCH_SIZE: ["0", "1001", "-1", "1e2"],
      SYNC_INTERVAL: ["1e3", "-1", "60.1", "20ms"],
      FORWARD_RATE_MAX: ["0", "10000001", "fast"],
      STATE_DIR: ["relative/path", "~/state"],
      SPOOL_BYTES_MAX: ["10X", "1M", "16777215", "0%", "96%", "-1G", "1T"],
      DISK_FREE_MIN: ["99%", "-1", "some"],
      SPOOL_SYNC_MIN_MS: ["-1", "10001", "0.5"],
      SNAPSHOT_MODE: ["Initial", "sometimes"],
      SNAPSHOT_RATE_MAX: ["0", "all"],
      ON_POSITION_LOST: ["ignore", "RESNAPSHOT"],
      START_POSITION: ["mariadb-bin.000001", "mariadb-bin.000001:3", "0-1", "now"],
      MAPPING_FILE: ["mapping.json", missing, directory],
      METRICS_PORT: ["http", "65536", "-1"],
      METRICS_LISTEN: ["0.0.0", "any host"],
      HEALTH_PORT: ["http", "65536", "-1"],
      HEALTH_LISTEN: ["0.0.0", "any host"],
      LAG_UNHEALTHY_SECONDS: ["0", "31536001", "1m"],
      QUARANTINE_MAX: ["0", "1000001"],
      QUARANTINE_KEEP_DAYS: ["0", "3651", "30d"],
      LOG_LEVEL: ["loud", "INFO", "warning"],
      LOG_FORMAT: ["xml", "JSON"],
    };
    const secrets = settingRows.filter(([, row]) => row.secret).map(([, row]) => `${row.name}_FILE`);
    const names = settingRows.filter(([, row]) => !row.secret).map(([, row]) => row.name);
    // A new setting needs its line here.
    assert.deepEqual(new Set(Object.keys(bad)), new Set(names));
    const most = Math.max(...Object.values(bad).map((values) => values.length));
    for (let round = 0; round < most; round += 1) {
      const variables: Record<string, string> = { MAGENTO_NOT_KNOWN: "geheim" };
      for (const [name, values] of Object.entries(bad)) variables[name] = values[round % values.length] ?? "";
      for (const name of secrets) variables[name] = missing;
      const { settings, faults } = loadSettings(variables);
      assert.equal(settings, null);
      const expected = [...names, ...secrets, "MAGENTO_NOT_KNOWN"];
      assert.deepEqual(faults.map(({ name }) => name).sort(), expected.sort());
      for (const { name, value, rule, mend } of faults) {
        const shown = name === "MAGENTO_NOT_KNOWN" ? null : variables[name]?.replace("me:pass", "***");
        assert.equal(value, shown, name);
        assert.match(rule, name === "MAGENTO_NOT_KNOWN" ? /^is no setting/ : /^must /);
        assert.ok(mend.length > 5, name);
      }
      assert.doesNotMatch(JSON.stringify(faults), /geheim/);
    }
  });

  it("names a file that cannot be read, and rules between settings, beside values out of range", () => {
    const names = faultNames({
      BATCH_SIZE: "0",
      DAPR_HTTP_ENDPOINT: "http://dapr.example.com",
      DAPR_TLS_CERT: directory,
      HEALTH_PORT: "8080",
      MAPPING_FILE: join(directory, "not-there"),
    });
    assert.deepEqual(names, [
      "BATCH_SIZE",
      "DAPR_HTTP_ENDPOINT",
      "DAPR_TLS_KEY",
      "HEALTH_PORT",
      "DAPR_TLS_CERT",
      "MAPPING_FILE",
    ]);
  });

  it("reads byte sizes with K, M, G and percent, and seconds with fractions", () => {
    const settings = settingsOf({ SPOOL_BYTES_MAX: "1.5G", DISK_FREE_MIN: "12%", SYNC_INTERVAL: ".5" });
    assert.deepEqual(settings.spoolBytesMax, { unit: "bytes", bytes: 1.5 * 1024 ** 3 });
    assert.deepEqual(settings.diskFreeMin, { unit: "percent", percent: 12 });
    assert.equal(settings.syncIntervalMs, 500);
  });

  it("reads both forms of a start position", () => {
    const file = settingsOf({ START_POSITION: "mariadb-bin.000042:5000000000" }).startPosition;
    assert.deepEqual(file, { kind: "file", file: "mariadb-bin.000042", position: 5_000_000_000 });
    const mariadb = settingsOf({ START_POSITION: "0-1-100,1-1-7" }).startPosition;
    assert.deepEqual(mariadb, { kind: "gtid", gtidSet: "0-1-100,1-1-7" });
    const mysql = settingsOf({ START_POSITION: "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-77" }).startPosition;
    assert.equal(mysql?.kind, "gtid");
  });
});

describe("faults", () => {
  it("are all reported at once, each with name, value, rule and mend", () => {
    const loaded = loadSettings({
      MAGENTO_DB_PORT: "x",
      MAGENTO_DB_PASSWORD: "geheim",
      SPOOL_SIZE: "1",
      BATCH_SIZE: "0",
      DAPR_HTTP_ENDPOINT: "http://dapr.example.com:3500",
    });
    assert.equal(loaded.settings, null);
    const text = settingsError(loaded.faults).message;
    assert.match(text, /^5 faults in the settings: /);
    assert.match(text, /MAGENTO_DB_PORT="x": must be a whole number from 1 to 65535; /);
    assert.match(text, /MAGENTO_DB_PASSWORD: is no setting of this agent; did you mean MAGENTO_DB_PASS\?/);
    assert.match(text, /SPOOL_SIZE: is no setting/);
    assert.match(text, /BATCH_SIZE="0"/);
    assert.doesNotMatch(text, /geheim/);
  });

  it("name rules between settings even when another name is unknown", () => {
    const names = faultNames({
      DAPR_HTTP_ENDPOINT: "http://dapr.example.com",
      DAPR_TLS_CERT: "/nowhere/cert.pem",
      HEALTH_PORT: "8080",
      MAGENTO_X: "1",
    });
    assert.deepEqual(names, [
      "MAGENTO_X",
      "DAPR_HTTP_ENDPOINT",
      "DAPR_TLS_KEY",
      "HEALTH_PORT",
      "DAPR_TLS_CERT",
    ]);
  });

  it("let plain http pass to this machine, and to others only on request", () => {
    for (const name of ["DAPR_HTTP_ENDPOINT", "VERIFY_REPORTS_URL"]) {
      for (const host of ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"]) {
        assert.deepEqual(faultNames({ [name]: `http://${host}:3500` }), []);
      }
      assert.deepEqual(faultNames({ [name]: "http://127.evil.example" }), [name]);
      assert.deepEqual(faultNames({ [name]: "http://a.example", DAPR_ALLOW_INSECURE: "true" }), []);
      assert.deepEqual(faultNames({ [name]: "https://a.example/prefix/" }), []);
    }
  });

  it("are raised by unknown names with each of our prefixes, and by no stranger's", () => {
    for (const prefix of ownPrefixes)
      assert.deepEqual(faultNames({ [`${prefix}ZZZ`]: "1" }), [`${prefix}ZZZ`]);
    assert.deepEqual(faultNames({ PATH: "/bin", HOME: "/", DAPR_HTTP_PORT: "3500", LOGNAME: "me" }), []);
  });

  it("mask a user and password inside an address", () => {
    const fault = loadSettings({ DAPR_HTTP_ENDPOINT: "http://me:geheim@host" }).faults[0];
    assert.ok(fault);
    assert.doesNotMatch(describeFault(fault), /geheim/);
  });

  it("name a near miss and leave the far ones alone", () => {
    assert.equal(nearestName("MAGENTO_DB_HOTS", ["MAGENTO_DB_HOST", "SHOP_NAME"]), "MAGENTO_DB_HOST");
    assert.equal(nearestName("zzz", ["run", "check"]), null);
  });
});

describe("predecessor names", () => {
  it("are accepted and named in one line with what replaces them", () => {
    const loaded = loadSettings({
      MICRO_DB_HOST: "h",
      MICRO_DB_PASS: "geheim",
      KAFKA_BOOTSTRAP_SERVERS: "k:9092",
      DEBEZIUM_PASS: "geheim",
    });
    assert.deepEqual(loaded.faults, []);
    assert.equal(loaded.notices.length, 1);
    for (const name of ["MICRO_DB_*", "KAFKA_BOOTSTRAP_SERVERS", "DEBEZIUM_PASS", "DAPR_PUBSUB"]) {
      assert.ok(loaded.notices[0]?.includes(name), name);
    }
    assert.doesNotMatch(JSON.stringify(loaded), /geheim/);
  });
});

describe("secrets", () => {
  const secretFile = join(directory, "pass");

  it("come from a credential before a file before the plain variable", () => {
    const credentials = mkdtempSync(join(directory, "cred-"));
    writeFileSync(secretFile, "from-file\n", { mode: 0o600 });
    const variables = {
      MAGENTO_DB_PASS: "plain",
      MAGENTO_DB_PASS_FILE: secretFile,
      CREDENTIALS_DIRECTORY: credentials,
    };
    assert.equal(settingsOf({ MAGENTO_DB_PASS: "plain" }).dbPassword.read(), "plain");
    assert.equal(settingsOf(variables).dbPassword.read(), "from-file");
    writeFileSync(join(credentials, "magento-db-pass"), "from-credential");
    assert.equal(settingsOf(variables).dbPassword.read(), "from-credential");
  });

  it("never appear when settings or their faults are printed", () => {
    const loaded = loadSettings({ MAGENTO_DB_PASS: "geheim-1", DAPR_API_TOKEN: "geheim-2", BATCH_SIZE: "x" });
    assert.doesNotMatch(JSON.stringify(loaded), /geheim/);
    const settings = settingsOf({ MAGENTO_DB_PASS: "geheim-1", FIELD_HASH_KEY: "geheim-3" });
    assert.doesNotMatch(JSON.stringify(settings), /geheim/);
    assert.match(settings.dbPassword.origin ?? "", /variable MAGENTO_DB_PASS/);
  });

  it("are refused in a world-readable file, with the command that mends it", () => {
    writeFileSync(secretFile, "x");
    chmodSync(secretFile, 0o644);
    const loaded = loadSettings({ DAPR_API_TOKEN_FILE: secretFile });
    assert.equal(loaded.faults[0]?.name, "DAPR_API_TOKEN_FILE");
    assert.match(loaded.faults[0]?.mend ?? "", /^chmod o-rwx/);
  });

  it("are a fault when their file is missing", () => {
    assert.deepEqual(faultNames({ MAGENTO_DB_PASS_FILE: join(directory, "gone") }), ["MAGENTO_DB_PASS_FILE"]);
  });

  it("are read again when their file changes, and stay while it is away", async () => {
    const path = join(directory, "token");
    writeFileSync(path, "one", { mode: 0o600 });
    const secret = settingsOf({ DAPR_API_TOKEN_FILE: path }).daprApiToken;
    assert.equal(secret.read(), "one");
    writeFileSync(path, "second", { mode: 0o600 });
    await new Promise((resolve) => setTimeout(resolve, 1050));
    assert.equal(secret.read(), "second");
    rmSync(path);
    await new Promise((resolve) => setTimeout(resolve, 1050));
    assert.equal(secret.read(), "second");
  });
});

describe("an environment file", () => {
  it("makes every unknown name a fault, and wins over the environment", () => {
    const file = parseEnvFile("MAGENTO_DB_NAME=shop\nFOO=1\nTZ=UTC\n");
    const loaded = loadSettings({ MAGENTO_DB_NAME: "other" }, file);
    assert.deepEqual(
      loaded.faults.map((fault) => fault.name),
      ["FOO"],
    );
    assert.equal(
      loadSettings({ MAGENTO_DB_NAME: "o" }, parseEnvFile("MAGENTO_DB_NAME=shop")).settings?.dbName,
      "shop",
    );
  });

  it("reports lines that systemd would pass over", () => {
    const loaded = loadSettings({}, parseEnvFile("no equals sign\nexport SHOP_NAME=x\n"));
    assert.deepEqual(
      loaded.faults.map((fault) => fault.name),
      ["line 1", "line 2"],
    );
  });
});

describe("what is derived", () => {
  it("prefers a set socket, then a set host or port, then a found socket", () => {
    const found = (): boolean => true;
    const both = settingsOf({ MAGENTO_DB_SOCKET: "/x.sock", MAGENTO_DB_HOST: "db" });
    assert.deepEqual(databaseAddress(both, found), { kind: "socket", path: "/x.sock" });
    assert.deepEqual(databaseAddress(settingsOf({ MAGENTO_DB_HOST: "db" }), found), {
      kind: "tcp",
      host: "db",
      port: 3306,
    });
    assert.deepEqual(databaseAddress(settingsOf({ MAGENTO_DB_PORT: "3307" }), found), {
      kind: "tcp",
      host: "127.0.0.1",
      port: 3307,
    });
    assert.equal(databaseAddress(settingsOf({}), found).kind, "socket");
    assert.deepEqual(
      databaseAddress(settingsOf({}), () => false),
      { kind: "tcp", host: "127.0.0.1", port: 3306 },
    );
  });

  it("gives one host and shop the same server id, others another, always from 2^31 to 2^32-1", () => {
    const ids = new Set<number>();
    for (let index = 0; index < 500; index++) {
      const settings = settingsOf({ SHOP_NAME: `shop${index}` });
      const id = databaseServerId(settings, "machine");
      assert.equal(id, databaseServerId(settings, "machine"));
      assert.ok(id >= 2 ** 31 && id <= 2 ** 32 - 1, String(id));
      ids.add(id);
    }
    assert.ok(ids.size > 495);
  });

  it("keeps limits sane on every size of volume", () => {
    const settings = settingsOf({});
    const GIB = 1024 ** 3;
    for (const gib of [0.5, 1, 4, 10, 20, 50, 100, 1000, 20_000]) {
      const { spoolBytesMax, diskFreeMinBytes } = diskLimits(settings, {
        totalBytes: gib * GIB,
        availableBytes: 0,
      });
      assert.ok(spoolBytesMax + diskFreeMinBytes < gib * GIB * 0.5, `${gib} GiB`);
      assert.ok(diskFreeMinBytes >= Math.min(5 * GIB, gib * GIB * 0.25) - 1, `${gib} GiB`);
    }
    const set = settingsOf({ SPOOL_BYTES_MAX: "10%", DISK_FREE_MIN: "1G" });
    const limits = diskLimits(set, { totalBytes: 100 * GIB, availableBytes: 0 });
    assert.deepEqual(limits, { spoolBytesMax: 10 * GIB, diskFreeMinBytes: GIB });
  });
});

describe("the default namespace", () => {
  it("is the one that the transform room computes ids with", () => {
    assert.equal(settingsOf({}).identityNamespace, DEFAULT_IDENTITY_NAMESPACE);
  });
});
