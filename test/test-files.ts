/**
 * Test files, each in a process of its own, and every test of them counted: a process that ends
 * before it has reported all of its tests fails the run, whatever its exit code says.
 */
import { join, resolve } from "node:path";
import { finished } from "node:stream/promises";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { pathToFileURL } from "node:url";

const TEST_TIMEOUT_MS = 900_000;
const blockingOutput = pathToFileURL(join(import.meta.dirname, "blocking-output.ts")).href;

/** Prints the report, with the summary at its end. True when all tests of all files passed. */
export async function runTestFiles(files: readonly string[], concurrency: number): Promise<boolean> {
  await import(blockingOutput);
  const tests = run({
    files,
    concurrency,
    timeout: TEST_TIMEOUT_MS,
    execArgv: [
      "--disable-warning=ExperimentalWarning",
      "--import",
      blockingOutput,
      // A test that failed before it stopped its servers must not hold the whole run up.
      "--test-force-exit",
    ],
  });
  const unreported = new Map(files.map((file) => [resolve(file), file]));
  const counted = { inFiles: 0, here: 0, passed: false };
  tests.on("test:summary", ({ file, success, counts }) => {
    if (file === undefined) {
      counted.here = counts.tests;
      counted.passed = success;
    } else {
      unreported.delete(file);
      counted.inFiles += counts.tests;
    }
  });
  const report = tests.pipe(new spec());
  report.pipe(process.stdout);
  await finished(report);
  for (const file of unreported.values())
    console.error(`${file} ended before all of its tests were reported`);
  const lost = counted.inFiles - counted.here;
  if (lost > 0) console.error(`${lost} tests were run and not reported`);
  return counted.passed && unreported.size === 0 && lost <= 0;
}
