import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

const here = import.meta.dirname;
/**
 * Without the context a test runner would take itself for the process of a test file. Files that are
 * gone after the test have no place in a cache that stays.
 */
const env = { ...process.env, NODE_TEST_CONTEXT: undefined, NODE_COMPILE_CACHE: undefined };

/** Runs files with these texts as the tests of the project are run. */
function runFiles(texts: Readonly<Record<string, string>>): {
  readonly status: number | null;
  output: string;
} {
  const directory = mkdtempSync(join(tmpdir(), "test-files-"));
  try {
    const files = Object.entries(texts).map(([name, text]) => {
      const file = join(directory, name);
      writeFileSync(file, `import { test } from "node:test";\n${text}`);
      return file;
    });
    const main = join(directory, "main.mjs");
    writeFileSync(
      main,
      `import { runTestFiles } from ${JSON.stringify(join(here, "test-files.ts"))};
       process.exit((await runTestFiles(${JSON.stringify(files)}, 2)) ? 0 : 1);`,
    );
    const { status, stdout, stderr } = spawnSync(process.execPath, [main], {
      env,
      encoding: "utf8",
      maxBuffer: 1 << 28,
    });
    return { status, output: `${stdout}${stderr}` };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const passes = 'test("passes", () => {});';

test("what a process of a test run writes arrives whole, however late it is read", async () => {
  const bytes = 8 * 1024 * 1024;
  const script = `process.stdout.write(Buffer.alloc(${bytes}, "x")); process.exit();`;
  const child = spawn(process.execPath, ["--import", join(here, "blocking-output.ts"), "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(child, "close");
  let read = 0;
  child.stdout.on("data", (data: Buffer) => {
    read += data.length;
  });
  child.stdout.pause();
  await sleep(500);
  child.stdout.resume();
  await closed;
  assert.equal(read, bytes);
});

test("every test of every file is counted, in files with a thousand of them", () => {
  const thousand = 'for (let n = 0; n < 1000; n += 1) test(`${n} ${"long ".repeat(50)}`, () => {});';
  const { status, output } = runFiles({ "a.mjs": thousand, "b.mjs": thousand, "c.mjs": passes });
  assert.equal(status, 0, output.slice(-2000));
  assert.match(output, /tests 2001$/m);
});

test("a file that ends before its last test, and says that all is well, fails the run", () => {
  const ends = `${passes} test("ends", () => process.exit(0)); test("is never run", () => {});`;
  const { status, output } = runFiles({ "whole.mjs": passes, "cut.mjs": ends });
  assert.equal(status, 1);
  assert.match(output, /cut\.mjs ended before all of its tests were reported/);
  assert.doesNotMatch(output, /whole\.mjs ended/);
});

test("a failed test fails the run", () => {
  const { status, output } = runFiles({
    "a.mjs": passes,
    "b.mjs": 'test("fails", () => { throw new Error("no") });',
  });
  assert.equal(status, 1);
  assert.match(output, /^ℹ fail 1$/m);
});
