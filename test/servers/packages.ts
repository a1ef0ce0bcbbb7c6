import { spawn, spawnSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { withLock } from "./locks.ts";

/** What a test needs from Debian cannot be had on this machine; the message says what to do. */
export class PackagesMissingError extends Error {
  override readonly name = "PackagesMissingError";
  readonly code = "PACKAGES_MISSING";
}

/** Whether dpkg has each of these packages installed. */
export function missingPackages(packages: readonly string[]): string[] {
  return packages.filter((name) => {
    const answer = spawnSync("dpkg-query", ["-W", "-f=${Status}", name], { encoding: "utf8" });
    return answer.status !== 0 || !answer.stdout.includes("install ok installed");
  });
}

/**
 * Installs those of the Debian (or Ubuntu) packages that are missing, and says on standard error
 * what and why. Services that they bring are not started. Throws PackagesMissingError where there
 * is no apt or the caller is not root.
 */
export async function ensureDebianPackages(packages: readonly string[], why: string): Promise<void> {
  if (missingPackages(packages).length === 0) return;
  await withLock("apt", async () => {
    const missing = missingPackages(packages);
    if (missing.length === 0) return;
    const list = missing.join(" ");
    if (!existsSync("/usr/bin/apt-get")) {
      throw new PackagesMissingError(`${why} needs ${list}; this machine has no apt-get, install it by hand`);
    }
    if (process.getuid?.() !== 0) {
      throw new PackagesMissingError(`${why} needs ${list}; run: sudo apt-get install -y ${list}`);
    }
    process.stderr.write(`setup: installing Debian packages ${list} (${why})\n`);
    const startsDenied = denyServiceStarts();
    try {
      // An old list may name versions that the mirror no longer has. A failing extra source of the
      // machine is no reason to stop: the install itself says whether the lists sufficed.
      await apt(["update"]);
      const installed = await apt(["install", "-y", "--no-install-recommends", ...missing]);
      if (installed.status !== 0) {
        throw new PackagesMissingError(`apt-get install ${list} failed: ${installed.output.slice(-2000)}`);
      }
    } finally {
      if (startsDenied) rmSync(policyFile, { force: true });
    }
  });
}

const policyFile = "/usr/sbin/policy-rc.d";

/** Tests start their own servers; the packages' services would only take memory and ports. */
function denyServiceStarts(): boolean {
  if (existsSync(policyFile)) return false;
  writeFileSync(policyFile, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  return true;
}

function apt(args: readonly string[]): Promise<{ status: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn("apt-get", ["-o", "DPkg::Lock::Timeout=600", "-q", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    });
    let output = "";
    const collect = (chunk: Buffer): void => {
      output += chunk.toString("utf8");
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", reject);
    child.on("close", (code) => resolve({ status: code ?? 1, output }));
  });
}
