/**
 * Volumes of a few megabytes that can be filled, freed and made to fail, mounted where a state
 * directory will be. Needs the right to mount.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ensureDebianPackages } from "../servers/packages.ts";

const MB = 1024 * 1024;

export class SmallVolume {
  readonly path: string;
  readonly #image: string | null;

  private constructor(path: string, image: string | null) {
    this.path = path;
    this.#image = image;
  }

  /** In memory: quick, and full when it is full. */
  static inMemory(path: string, megabytes: number): SmallVolume {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m,mode=700`, "tmpfs", path]);
    return new SmallVolume(path, null);
  }

  /** A real ext4, which can be made read-only under open files as the kernel does after a disk error. */
  static async ext4(path: string, megabytes: number): Promise<SmallVolume> {
    await ensureDebianPackages(["e2fsprogs"], "a small ext4 volume");
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const image = `${path}.image`;
    writeFileSync(image, "");
    truncateSync(image, megabytes * MB);
    execFileSync("mkfs.ext4", ["-q", "-F", image]);
    const volume = new SmallVolume(path, image);
    volume.mount();
    return volume;
  }

  freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Others take all but so many bytes. */
  fill(freeMegabytes: number): void {
    const bytes = this.freeBytes() - freeMegabytes * MB;
    execFileSync("fallocate", ["-l", String(bytes), join(this.path, "of-others")]);
  }

  /** The others give it back. */
  free(): void {
    rmSync(join(this.path, "of-others"));
  }

  /** From now on every write fails with EROFS, also to open files; reads go on. Of ext4 only. */
  failReadOnly(): void {
    execFileSync("mount", ["-o", "remount,abort", this.path], { stdio: "ignore" });
  }

  /** Mounts an ext4 that is not mounted, after a check that mends what its failure left. */
  mount(): void {
    if (this.#image === null) return;
    try {
      execFileSync("fsck.ext4", ["-p", "-f", this.#image], { stdio: "ignore" });
    } catch {
      // 1 is "mended"; what it could not mend the mount will refuse.
    }
    execFileSync("mount", ["-o", "loop", this.#image, this.path]);
  }

  unmount(): void {
    execFileSync("umount", [this.path]);
  }

  /** Gone, also under open files. Idempotent. */
  remove(): void {
    try {
      execFileSync("umount", ["-l", this.path], { stdio: "ignore" });
    } catch {
      // It is not mounted.
    }
    if (this.#image !== null) rmSync(this.#image, { force: true });
  }
}
