/**
 * What damage left: bytes of damaged records, files of a damaged database. Kept for whoever looks
 * into it, within bounds: it holds personal data, and takes room that the spool needs.
 */
import type { SpoolOptions } from "./spool-options.ts";
import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import { directoryBytes } from "./limits.ts";
import type { QueueTag } from "./keys.ts";

/** More than anybody looks at; a damaged disk must not fill itself with evidence. */
const MAX_ENTRIES = 100;
const DAY_MS = 24 * 60 * 60 * 1000;

export interface EvidenceOptions {
  readonly stateDir: string;
  /** All of it takes at most so much. */
  readonly bytesMax: number;
  /** QUARANTINE_KEEP_DAYS. */
  readonly keepDays: number;
  readonly wallMs: () => number;
}

export class Evidence {
  readonly #directory: string;
  readonly #options: EvidenceOptions;

  constructor(options: EvidenceOptions) {
    this.#directory = join(options.stateDir, "evidence");
    this.#options = options;
  }

  /**
   * Keeps the value of a damaged record (null: there is none) and makes the error that names it.
   * The same record is kept once. That the bytes could not be kept does not hide the damage.
   */
  async keep(
    queue: QueueTag & { readonly label: string },
    seq: Seq,
    found: { readonly what: string; readonly value: Buffer | null; readonly cause?: unknown },
  ): Promise<AgentError> {
    if (found.value !== null) await this.#write(`${queue.tag}-${queue.lane}-${seq}.record`, found.value);
    return new AgentError(
      "SPOOL_CORRUPT",
      `Record ${seq} of queue ${queue.label} is damaged: ${found.what}.`,
      {
        cause: found.cause,
      },
    );
  }

  /** Moves a directory here, if it is there. Rejects when it can be neither moved nor removed. */
  async takeDirectory(path: string, name: string): Promise<void> {
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await rename(path, join(this.#directory, `${name}-${this.#options.wallMs()}`));
      await this.tidy();
    } catch {
      // Its place is needed, on a full disk too.
      await rm(path, { recursive: true, force: true });
    }
  }

  /** Removes what is too old, and the oldest of what is too much. */
  async tidy(): Promise<void> {
    const { bytesMax, keepDays, wallMs } = this.#options;
    const found: { readonly path: string; readonly bytes: number; readonly atMs: number }[] = [];
    for (const entry of await readdir(this.#directory, { withFileTypes: true }).catch(() => [])) {
      const path = join(this.#directory, entry.name);
      const { size, ctimeMs } = await stat(path);
      found.push({ path, bytes: entry.isDirectory() ? await directoryBytes(path) : size, atMs: ctimeMs });
    }
    found.sort((left, right) => right.atMs - left.atMs);
    let bytes = 0;
    for (const { path, bytes: own, atMs } of found) {
      bytes += own;
      if (bytes <= bytesMax && atMs >= wallMs() - keepDays * DAY_MS) continue;
      await rm(path, { recursive: true, force: true });
    }
  }

  async #write(name: string, bytes: Buffer): Promise<void> {
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      if ((await readdir(this.#directory)).length >= MAX_ENTRIES) return;
      await writeFile(join(this.#directory, name), bytes, { mode: 0o600 });
    } catch {
      // A full or failing disk: the error that names the record is what counts.
    }
  }
}

/** In the state directory, within a quarter of what that may take. */
export function evidenceOf({ stateDir, limits, quarantineKeepDays, clock }: SpoolOptions): Evidence {
  return new Evidence({
    stateDir,
    bytesMax: limits.bytesMax / 4,
    keepDays: quarantineKeepDays,
    wallMs: () => clock.wallMs(),
  });
}
