/** Where trees of Ubuntu releases come from: it still packs what Debian has left behind. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory } from "./cache.ts";
import type { Archive } from "./debian-tree.ts";
import { withLock } from "./locks.ts";
import { PackagesMissingError } from "./packages.ts";

const url =
  process.arch === "arm64" ? "http://ports.ubuntu.com/ubuntu-ports" : "http://archive.ubuntu.com/ubuntu";

/** The keys that it signs with. Debian does not pack them; the hash says that they are the ones meant. */
const keys = {
  path: "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1build1_all.deb",
  sha256: "c377ccf26964f4c206c05c0bc7adb708e031beb919bb9a0ff63af983d064cd66",
  keyring: "usr/share/keyrings/ubuntu-archive-keyring.gpg",
};

/** Throws PackagesMissingError where the archive cannot be reached or its keys are others. */
export async function ubuntuArchive(): Promise<Archive> {
  const directory = join(cacheDirectory("ubuntu-keys"), keys.sha256.slice(0, 16));
  const archive = { url, keyring: join(directory, keys.keyring) };
  if (existsSync(directory)) return archive;
  return withLock("ubuntu-keys", async () => {
    if (existsSync(directory)) return archive;
    const from = `${url}/${keys.path}`;
    const answer = await fetch(from).catch((error: unknown) => {
      throw new PackagesMissingError(`${from} cannot be reached`, { cause: error });
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    if (sha256 !== keys.sha256)
      throw new PackagesMissingError(
        `${from} answered ${answer.status} and has the hash ${sha256}, not ${keys.sha256}`,
      );
    const partial = `${directory}.partial`;
    rmSync(partial, { recursive: true, force: true });
    writeFileSync(`${partial}.deb`, bytes);
    const done = spawnSync("dpkg-deb", ["-x", `${partial}.deb`, partial], { encoding: "utf8" });
    if (done.status !== 0) throw new Error(`dpkg-deb -x ${partial}.deb failed: ${done.stderr}`);
    rmSync(`${partial}.deb`);
    renameSync(partial, directory);
    return archive;
  });
}
