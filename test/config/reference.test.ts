import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import { parseEnvFile } from "../../agent/config/env-file.ts";
import { loadSettings } from "../../agent/config/load.ts";
import {
  envExample,
  errorsPage,
  exitCodesNotRestarted,
  settingsHelp,
  settingsPage,
} from "../../agent/config/reference.ts";
import { settingRows } from "../../agent/config/settings-table.ts";
import { AgentError, errorTable, exitCodeOf, isErrorCode } from "../../agent/kernel/errors.ts";

const root = join(import.meta.dirname, "..", "..");

function assertGolden(path: string, text: string): void {
  const file = join(root, path);
  if (process.env["UPDATE_GOLDEN"] === "1") {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  assert.equal(
    readFileSync(file, "utf8"),
    text,
    `${path} differs from the table: run the test with UPDATE_GOLDEN=1`,
  );
}

describe("texts made from the tables", () => {
  it("keeps systemd/agent.env.example equal to the table", () => {
    assertGolden("systemd/agent.env.example", envExample());
  });

  it("keeps docs/settings.md equal to the table", () => {
    assertGolden("docs/settings.md", settingsPage());
  });

  it("keeps docs/errors.md equal to the table of errors", () => {
    assertGolden("docs/errors.md", errorsPage());
  });

  it("names every setting in help, example and docs", () => {
    for (const [, row] of settingRows) {
      for (const text of [settingsHelp(), envExample(), settingsPage()])
        assert.ok(text.includes(row.name), row.name);
    }
  });

  it("makes an example that loads without fault, as it is and with every default uncommented", () => {
    assert.deepEqual(loadSettings({}, parseEnvFile(envExample())).faults, []);
    const uncommented = envExample()
      .split("\n")
      .map((line) => (/^#[A-Z]/.test(line) && !line.includes("_FILE=") ? line.slice(1) : line))
      .join("\n");
    assert.ok(parseEnvFile(uncommented).entries.length >= 40);
    assert.deepEqual(loadSettings({}, parseEnvFile(uncommented)).faults, []);
  });
});

describe("exit codes", () => {
  it("are those of the documented table and no others", () => {
    const codes = new Set<number | null>([null, 1, 64, 69, 70, 75, 77, 78]);
    for (const [code, row] of Object.entries(errorTable)) assert.ok(codes.has(row.exit), code);
    for (const code of Object.keys(errorTable)) {
      assert.ok(isErrorCode(code));
      assert.equal(exitCodeOf(new AgentError(code, "x")), errorTable[code].exit ?? 75, code);
    }
    assert.equal(exitCodeOf(new TypeError("x")), 70);
  });

  it("stand in the unit's RestartPreventExitStatus when only an operator can help", () => {
    const unit = readFileSync(join(root, "systemd/magento-edge-agent.service"), "utf8");
    const listed = /^RestartPreventExitStatus=(.*)$/m.exec(unit)?.[1]?.split(" ").map(Number);
    assert.deepEqual(listed, exitCodesNotRestarted);
    const fromTable = new Set<number>();
    for (const row of Object.values(errorTable)) {
      // 1 is what a command answers that was refused, 69 one that found no agent; 70 and 75 are there
      // to be restarted.
      if (row.exit !== null && ![1, 69, 70, 75].includes(row.exit)) fromTable.add(row.exit);
    }
    assert.deepEqual(
      [...fromTable].sort((a, b) => a - b),
      exitCodesNotRestarted,
    );
  });
});

describe("the unit", () => {
  const unit = readFileSync(join(root, "systemd/magento-edge-agent.service"), "utf8");

  it("has no comment after a value, where it would become part of the value", () => {
    for (const line of unit.split("\n")) assert.doesNotMatch(line, /^[A-Z][A-Za-z]*=.*\s#/);
  });

  it("names credentials only in comments: a listed one whose file is missing fails the start", () => {
    assert.doesNotMatch(unit, /^LoadCredential=/m);
    for (const [, row] of settingRows) {
      if (row.secret) assert.match(unit, new RegExp(`^#LoadCredential=${row.credential}:`, "m"));
    }
  });
});
