/**
 * Limits of the spool: bytes that the state directory may take, and free space that the volume
 * must keep. The disk is the database's.
 */
import { readdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { SpoolObserver } from "../ports.ts";

export interface SpoolLimits {
  /** SPOOL_BYTES_MAX: most bytes that the state directory may take. */
  readonly bytesMax: number;
  /** DISK_FREE_MIN: free bytes that the volume must keep. */
  readonly diskFreeMin: number;
}

export interface Usage {
  readonly directoryBytes: number;
  readonly freeBytes: number;
}

/** What the directory really takes and what its volume has left. */
export async function measureUsage(directory: string): Promise<Usage> {
  return { directoryBytes: await directoryBytes(directory), freeBytes: await freeBytes(directory) };
}

/** What the volume has left for a process that is not root's. One system call. */
export async function freeBytes(directory: string): Promise<number> {
  const volume = await statfs(directory);
  return volume.bavail * volume.bsize;
}

/** Bytes of all files below it. */
export async function directoryBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) bytes += await directoryBytes(path);
    else bytes += await fileBytes(path);
  }
  return bytes;
}

async function fileBytes(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    // A table that compaction removed between the listing and here takes no room.
    return 0;
  }
}

type Closed = "SPOOL_FULL" | "DISK_FULL";

/**
 * Says whether a batch may be taken. Works with the last measurement and what was appended since;
 * closes on a fresh measurement only, and opens again with a distance, so that it does not flap.
 */
export class IntakeGate {
  readonly #limits: SpoolLimits;
  readonly #observer: SpoolObserver;
  /** Kept below the byte limit for acknowledgements, trims, quarantine and compaction. */
  readonly #reserveBytes: number;
  #usage: Usage = { directoryBytes: 0, freeBytes: Infinity };
  /** Written since the directory, and since the volume, was measured. */
  #sinceBytes = 0;
  #freeSinceBytes = 0;
  #closed: Closed | null = null;

  constructor(limits: SpoolLimits, observer: SpoolObserver) {
    this.#limits = limits;
    this.#observer = observer;
    this.#reserveBytes = Math.min(16 * 1024 * 1024, limits.bytesMax / 8);
  }

  get closed(): Closed | null {
    return this.#closed;
  }

  /** Estimated since the last measurement. */
  get usage(): Usage {
    return {
      directoryBytes: this.#usage.directoryBytes + this.#sinceBytes,
      freeBytes: Math.max(0, this.#usage.freeBytes - this.#freeSinceBytes),
    };
  }

  /** Bytes written since the last measurement. */
  get unmeasuredBytes(): number {
    return this.#sinceBytes;
  }

  wrote(bytes: number): void {
    this.#sinceBytes += bytes;
    this.#freeSinceBytes += bytes;
  }

  /** Bytes written since the volume's free space was looked at. */
  get unmeasuredFreeBytes(): number {
    return this.#freeSinceBytes;
  }

  /** The volume's free space, looked at between the measurements of the directory. */
  freeMeasured(bytes: number): void {
    this.#usage = { ...this.#usage, freeBytes: bytes };
    this.#freeSinceBytes = 0;
  }

  /**
   * Whether a batch may be taken now. An empty spool takes any batch, or one that is larger than
   * the limit could never pass; but it does not make room on a volume that others have filled, so
   * there half of the floor is kept nevertheless.
   */
  admits(batchBytes: number, spoolIsEmpty: boolean): boolean {
    if (spoolIsEmpty) {
      return this.#freeAfter(batchBytes) >= this.#limits.diskFreeMin / 2;
    }
    return this.#closed === null && this.#over(batchBytes) === null;
  }

  /**
   * Takes a measurement. `bytesBefore` is what `unmeasuredBytes` was when it began: that much is
   * surely part of it. `waitingBytes` is what wants in.
   */
  measured(usage: Usage, bytesBefore: number, waitingBytes: number): void {
    this.#usage = usage;
    this.#sinceBytes -= bytesBefore;
    this.#freeSinceBytes = 0;
    const over = this.#over(waitingBytes, this.#closed !== null);
    if (over === this.#closed) return;
    this.#closed = over;
    if (over === null) this.#observer.intakeOpened();
    else this.#observer.intakeClosed(over, this.#sentence(over));
  }

  /** `distant`: there must be room beyond the need, as a closed intake asks for before it opens. */
  #over(batchBytes: number, distant = false): Closed | null {
    const { bytesMax, diskFreeMin } = this.#limits;
    const floor = diskFreeMin + (distant ? distanceOf(diskFreeMin) : 0);
    if (this.#freeAfter(batchBytes) < floor) return "DISK_FULL";
    const ceiling = bytesMax - this.#reserveBytes - (distant ? distanceOf(bytesMax) : 0);
    return this.usage.directoryBytes + batchBytes > ceiling ? "SPOOL_FULL" : null;
  }

  #freeAfter(batchBytes: number): number {
    return this.#usage.freeBytes - this.#freeSinceBytes - batchBytes;
  }

  #sentence(code: Closed): string {
    return code === "SPOOL_FULL"
      ? `the state directory takes ${this.#usage.directoryBytes} bytes of ${this.#limits.bytesMax}`
      : `the volume has ${this.#usage.freeBytes} bytes free, its floor is ${this.#limits.diskFreeMin}`;
  }
}

/** How far from a limit a closed intake opens again. */
function distanceOf(limit: number): number {
  return Math.min(64 * 1024 * 1024, limit / 16);
}
