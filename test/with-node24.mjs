// Starts a script of this repository on Node 24, whatever Node the machine has (18 or newer).
// It installs node_modules when they are missing, so `npm test` works on a fresh clone.
// Plain JavaScript and built-in modules only: it runs before anything is installed.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const arch = process.arch === "arm64" ? "arm64" : "x64";
const node24 = join(root, "node_modules", `node-linux-${arch}`, "bin", "node");
const marker = join(root, "node_modules", ".package-lock.json");

/** node_modules is stale when the lock file is newer than what npm wrote of its last install. */
function needsInstall() {
  if (!existsSync(node24) || !existsSync(marker)) return true;
  return statSync(join(root, "package-lock.json")).mtimeMs > statSync(marker).mtimeMs + 1000;
}

if (needsInstall()) {
  console.error("setup: installing npm packages (npm ci)");
  const installed = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", 2, 2],
  });
  if (installed.status !== 0 || !existsSync(node24)) {
    console.error(`setup: npm ci failed, or Node 24 for linux-${arch} is not among the packages (${node24})`);
    process.exit(1);
  }
}

const [script, ...rest] = process.argv.slice(2);
if (script === undefined) {
  console.error("usage: node test/with-node24.mjs SCRIPT [ARGUMENT ...]");
  process.exit(64);
}
const flags = ["--disable-warning=ExperimentalWarning"];
const child = spawn(node24, [...flags, join(root, script), ...rest], { stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(signal === null ? (code ?? 1) : 128));
