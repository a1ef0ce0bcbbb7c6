/**
 * A volume that can lose its power: a FUSE file system in memory that knows which writes and names
 * were made durable by an fsync, and forgets the others at a cut, or some of them. What it promises
 * and what it may lose stands at the head of powercut/model.go.
 */
import { spawn, type ChildProcessByStdio } from "node:child_process";
import { cpSync, existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { cacheDirectory, directoryHash, keepBuilt } from "../servers/cache.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import { ensureGo } from "../servers/go.ts";
import { withLock } from "../servers/locks.ts";
import { ensureDebianPackages } from "../servers/packages.ts";

const source = join(import.meta.dirname, "powercut");

/** What a cut took away; the numbers are of what no fsync had covered. */
export interface PowerLoss {
  readonly namesWaiting: number;
  readonly namesLost: number;
  readonly filesWaiting: number;
  /** Files of which something is gone. */
  readonly filesChanged: number;
  readonly bytesWaiting: number;
}

export interface PowerCutOptions {
  /** Mean time of an fsync, as on a disk; it varies from none to the double. Default 1 ms. */
  readonly fsyncMs?: number;
}

/** Path of the program, built once from its Go sources into the cache. */
export async function ensurePowerCut(): Promise<string> {
  const binary = join(cacheDirectory("powercut"), directoryHash(source), "powercut");
  if (existsSync(binary)) return binary;
  return withLock("powercut-build", async () => {
    if (!existsSync(binary)) await build(binary);
    return binary;
  });
}

async function build(binary: string): Promise<void> {
  if (!existsSync("/etc/ssl/certs/ca-certificates.crt")) {
    await ensureDebianPackages(["ca-certificates"], "fetching Go modules");
  }
  const go = await ensureGo();
  process.stderr.write(`setup: building the power-cut volume with ${go.what}\n`);
  const work = throwAwayDirectory("powercut-build");
  try {
    cpSync(source, work, { recursive: true });
    const environment = { ...process.env, ...go.env, CGO_ENABLED: "0", GOFLAGS: "-mod=readonly" };
    await ran(join(go.bin, "go"), ["build", "-trimpath", "-buildvcs=false", "-o", "powercut", "."], {
      cwd: work,
      env: { ...environment, PATH: `${go.bin}:${process.env["PATH"] ?? ""}` },
    });
    keepBuilt(join(work, "powercut"), binary);
  } finally {
    removeDirectory(work);
  }
}

function ran(
  command: string,
  args: readonly string[],
  place: { readonly cwd: string; readonly env: NodeJS.ProcessEnv },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...place, stdio: ["ignore", "ignore", "pipe"] });
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString("utf8")));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${command} ended with ${code ?? "a signal"}: ${errors.slice(-1500)}`));
    });
  });
}

export class PowerCutVolume {
  /** Where it is mounted. */
  readonly path: string;
  readonly #directory: string;
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #answers: AsyncIterator<string>;
  readonly #ended: Promise<void>;
  #errors = "";

  private constructor(binary: string, fsyncMs: number) {
    this.#directory = throwAwayDirectory("powercut");
    this.path = join(this.#directory, "volume");
    mkdirSync(this.path);
    // Its standard input ends with this process, however that ends, and then it unmounts.
    this.#process = spawn(binary, [this.path, String(Math.round(fsyncMs * 1000))], {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#process.stdin.on("error", () => undefined);
    this.#process.stderr.on("data", (chunk: Buffer) => (this.#errors += chunk.toString("utf8")));
    this.#answers = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
    this.#ended = new Promise((resolve) => {
      this.#process.once("close", () => resolve());
      this.#process.once("error", () => resolve());
    });
  }

  /** An empty volume. Needs root and /dev/fuse. */
  static async mount(options: PowerCutOptions = {}): Promise<PowerCutVolume> {
    const volume = new PowerCutVolume(await ensurePowerCut(), options.fsyncMs ?? 1);
    await volume.#answer("mounting");
    return volume;
  }

  /**
   * Cuts the power: no call returns any more, `kill` ends whoever used the volume (SIGKILL; it is
   * called once nothing can be promised any more), and the volume comes back as a disk is found
   * after such an end, by the seed.
   */
  async cut(seed: number, kill: () => Promise<unknown>): Promise<PowerLoss> {
    await this.#ask("freeze");
    // The signal is sent before the calls that hang are given up, so nobody sees them fail.
    const killed = kill();
    const loss = lossOf(await this.#ask(`cut ${seed}`));
    await killed;
    await this.#ask("mount");
    return loss;
  }

  /** Unmounts it; everything in it is gone. */
  async remove(): Promise<void> {
    this.#process.stdin.end();
    await this.#ended;
    removeDirectory(this.#directory);
  }

  #ask(words: string): Promise<Record<string, unknown>> {
    this.#process.stdin.write(`${words}\n`);
    return this.#answer(words);
  }

  async #answer(what: string): Promise<Record<string, unknown>> {
    const { value, done } = await this.#answers.next();
    if (done === true)
      throw new Error(`the power-cut volume ended while ${what}: ${this.#errors.slice(-2000)}`);
    const answer: unknown = JSON.parse(value);
    if (!isObject(answer) || "error" in answer) throw new Error(`power-cut volume, ${what}: ${value}`);
    return answer;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function lossOf(answer: Record<string, unknown>): PowerLoss {
  const number = (name: string): number => Number(answer[name]);
  return {
    namesWaiting: number("namesWaiting"),
    namesLost: number("namesLost"),
    filesWaiting: number("filesWaiting"),
    filesChanged: number("filesChanged"),
    bytesWaiting: number("bytesWaiting"),
  };
}
