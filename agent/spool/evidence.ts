/** Raw bytes of damaged records, kept for whoever looks into it. */
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Seq } from "../change.ts";
import { AgentError } from "../kernel/errors.ts";
import type { QueueTag } from "./keys.ts";

/** More than anybody looks at; a damaged disk must not fill itself with evidence. */
const MAX_FILES = 100;

export class Evidence {
  readonly #directory: string;

  constructor(stateDir: string) {
    this.#directory = join(stateDir, "evidence");
  }

  /**
   * Keeps the value of a damaged record (null: there is none) and makes the error that names it.
   * The same record is kept once. That the bytes could not be kept does not hide the damage.
   */
  async keep(
    queue: QueueTag & { readonly name: string },
    seq: Seq,
    found: { readonly what: string; readonly value: Buffer | null; readonly cause?: unknown },
  ): Promise<AgentError> {
    if (found.value !== null) await this.#write(`${queue.tag}-${queue.lane}-${seq}.record`, found.value);
    return new AgentError(
      "SPOOL_CORRUPT",
      `Record ${seq} of queue ${queue.name} is damaged: ${found.what}.`,
      {
        cause: found.cause,
      },
    );
  }

  async #write(name: string, bytes: Buffer): Promise<void> {
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      if ((await readdir(this.#directory)).length >= MAX_FILES) return;
      await writeFile(join(this.#directory, name), bytes, { mode: 0o600 });
    } catch {
      // A full or failing disk: the error that names the record is what counts.
    }
  }
}
