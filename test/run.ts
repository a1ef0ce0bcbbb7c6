/**
 * Runs the tests: `node test/run.ts unit|servers|all|soak [path-part ...]`.
 *
 * The suffix of a file says what it needs: `.test.ts` nothing, `.long.test.ts` nothing but half a minute
 * or more, `.server.test.ts` real servers, `.crash.test.ts` real servers and killed processes,
 * `.soak.test.ts` much time. Words after the
 * mode keep only the files whose path contains one of them. It ends with the runner's own summary.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runTestFiles } from "./test-files.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const modes = ["unit", "servers", "all", "soak"] as const;
type Mode = (typeof modes)[number];

function modeOf(file: string): Exclude<Mode, "all"> {
  if (file.endsWith(".soak.test.ts")) return "soak";
  return /\.(long|server|crash)\.test\.ts$/.test(file) ? "servers" : "unit";
}

function filesOf(mode: Mode, parts: readonly string[]): string[] {
  const files = globSync("test/**/*.test.ts", { cwd: root }).sort();
  const wanted = files.filter((file) => modeOf(file) === mode || (mode === "all" && modeOf(file) !== "soak"));
  return parts.length === 0 ? wanted : wanted.filter((file) => parts.some((part) => file.includes(part)));
}

function run(label: string, command: readonly string[]): number {
  console.log(`\n== ${label}`);
  const [program, ...rest] = command;
  if (program === undefined) return 1;
  return spawnSync(program, rest, { cwd: root, stdio: ["ignore", "inherit", "inherit"] }).status ?? 1;
}

/** Everything the tests of the mode need is installed, built or fetched before the first of them. */
function setUp(mode: Mode): number {
  if (mode === "unit") return 0;
  return (
    run("set up servers", [process.execPath, join(root, "test/setup.ts")]) ||
    run("build the bundle", [process.execPath, join(root, "build.mjs")])
  );
}

async function main(): Promise<number> {
  process.chdir(root);
  const [word = "all", ...parts] = process.argv.slice(2);
  const mode = modes.find((known) => known === word);
  if (mode === undefined) {
    console.error(`unknown mode "${word}"; use one of ${modes.join(", ")}`);
    return 64;
  }
  const chosen = filesOf(mode, parts);
  if (chosen.length === 0) {
    console.error(`no test file matches ${[mode, ...parts].join(" ")}`);
    return 1;
  }
  const prepared = setUp(mode);
  if (prepared !== 0) return prepared;
  // The processes of the test files, and what they start, compile what did not change only once. Agents
  // beside real servers are started as they are shipped, without.
  if (mode === "unit") process.env["NODE_COMPILE_CACHE"] ??= join(root, "node_modules/.cache/compiled");
  // Tests that start servers take turns: two cores, and each measures or waits for real things. The
  // others wait as long as they compute, so that four of them keep two cores at work.
  const concurrency = mode === "unit" ? 4 : 1;
  console.log(`\n== ${chosen.length} test files`);
  return (await runTestFiles(chosen, concurrency)) ? 0 : 1;
}

process.exit(await main());
