import { spawn } from "node:child_process";
import { cpSync, existsSync } from "node:fs";
import { join } from "node:path";
import { removeDirectory, throwAwayDirectory } from "./directories.ts";
import { cacheDirectory, directoryHash, keepBuilt } from "./cache.ts";
import { ensureGo, type GoToolchain } from "./go.ts";
import { withLock } from "./locks.ts";
import { ensureDebianPackages } from "./packages.ts";

const recipe = join(import.meta.dirname, "daprd");

/** The real daprd cannot be had on this machine; `cause` says why. Tests fail with it. */
export class DaprdUnavailableError extends Error {
  override readonly name = "DaprdUnavailableError";
  readonly code = "DAPRD_UNAVAILABLE";
}

/**
 * Path of daprd 1.18.3 (less its workflow engine), built from its Go modules by the recipe in
 * daprd/. The binary lies in the cache under the recipe's hash; the first build takes some minutes
 * and says so on standard error. Throws DaprdUnavailableError when it cannot be built.
 */
export async function ensureDaprd(): Promise<string> {
  const binary = join(cacheDirectory("daprd"), directoryHash(recipe), "daprd");
  if (existsSync(binary)) return binary;
  return withLock("daprd-build", async () => {
    if (existsSync(binary)) return binary;
    try {
      await build(binary);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new DaprdUnavailableError(`daprd cannot be built here: ${why}`, { cause });
    }
    return binary;
  });
}

async function build(binary: string): Promise<void> {
  if (!existsSync("/etc/ssl/certs/ca-certificates.crt")) {
    await ensureDebianPackages(["ca-certificates"], "fetching Go modules");
  }
  const go = await ensureGo();
  process.stderr.write(`setup: building daprd 1.18.3 with ${go.what}; 2 to 5 minutes, once\n`);
  const startedMs = performance.now();
  const work = throwAwayDirectory("daprd-build");
  try {
    // The recipe writes beside itself: a copy keeps the checkout clean.
    cpSync(recipe, work, { recursive: true });
    await runRecipe(work, go);
    keepBuilt(join(work, "daprd-binary"), binary);
  } finally {
    removeDirectory(work);
  }
  process.stderr.write(`setup: daprd is built (${seconds(startedMs)} s)\n`);
}

function runRecipe(work: string, go: GoToolchain): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn("bash", [join(work, "build.sh"), join(work, "daprd-binary")], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...go.env, PATH: `${go.bin}:${process.env["PATH"] ?? ""}` },
    });
    const startedMs = performance.now();
    let output = "";
    let modules = 0;
    const collect = (chunk: Buffer): void => {
      const text = chunk.toString("utf8");
      modules += text.split("go: downloading ").length - 1;
      output = (output + text).slice(-10_000);
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    const progress = setInterval(() => {
      process.stderr.write(
        `setup: still building daprd (${seconds(startedMs)} s, ${modules} modules fetched)\n`,
      );
    }, 30_000);
    child.on("error", reject);
    child.on("close", (code) => {
      clearInterval(progress);
      if (code === 0) resolve();
      else reject(new Error(`its build ended with ${code ?? "a signal"}: ${output.slice(-1500)}`));
    });
  });
}

function seconds(startedMs: number): number {
  return Math.round((performance.now() - startedMs) / 1000);
}
