/**
 * Kills an agent by SIGKILL again and again, at random times and at chosen moments, and counts which
 * moments the kills met. What each round does depends on the seed, the round's number and how long a
 * start takes, so a run can be taken up at any round.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Random } from "../oracle/random.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";
import type { ServerProcess } from "../servers/processes.ts";
import {
  moments,
  momentsFile,
  momentsNow,
  orderFile,
  watchVariable,
  type KillOrder,
  type Moment,
} from "./moments.ts";

/** How one round ends. */
export interface KillPlan {
  /** The kill from inside, where a moment was chosen. */
  readonly order: KillOrder | null;
  /** The kill from outside, so long after the start; also when the ordered moment never comes. */
  readonly afterMs: number;
}

const root = join(import.meta.dirname, "..", "..");

/** Ordered kills wait at most so long for their moment, where a start takes no longer than is typical. */
const patienceMs = 1_000;
/** From the launch until the binlog is read, on a machine with nothing else to do. */
const typicalStartMs = 600;

/** The plan of a round: half of the kills come at random times, the others at each moment in turn. */
export function planOf(seed: number, round: number): KillPlan {
  const random = new Random(seed).fork(round);
  if (random.chance(0.5)) return { order: null, afterMs: random.int(10, 800) };
  const moment = random.pick(moments);
  const isLong = moment === "program starts" || moment === "spool opens" || moment === "position is proven";
  const count = isLong ? 1 : random.int(1, moment === "compaction" ? 3 : 30);
  return {
    order: { moment, count, delayUs: random.chance(0.4) ? 0 : random.int(0, isLong ? 30_000 : 3_000) },
    afterMs: patienceMs,
  };
}

export class KillScheduler {
  readonly #seed: number;
  readonly #directory = throwAwayDirectory("kills");
  readonly #met = new Map<Moment, number>(moments.map((moment) => [moment, 0]));
  #kills = 0;
  #idle = 0;
  #stretch = 1;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Bundles the watched agent; gives the program and what its environment needs. */
  prepare(): { readonly program: string; readonly settings: Readonly<Record<string, string>> } {
    const entry = join(import.meta.dirname, "watched-agent-main.ts");
    const bundle = join(this.#directory, "bundle");
    execFileSync(process.execPath, [join(root, "build.mjs"), entry, bundle], { stdio: "pipe" });
    this.#arm(null);
    return {
      program: join(bundle, "magento-edge-agent.cjs"),
      settings: { [watchVariable]: this.#directory },
    };
  }

  /**
   * So long a start takes here. Where it takes longer than is typical, all kills come later in that
   * measure: else most would only ever meet the start.
   */
  measured(startMs: number): void {
    this.#stretch = Math.max(1, startMs / typicalStartMs);
  }

  /** Starts the agent and kills it as the round's plan says. Throws when it ended in another way. */
  async round(number: number, launch: () => ServerProcess): Promise<void> {
    const plan = planOf(this.#seed, number);
    this.#arm(plan.order);
    const agent = launch();
    const killing = setTimeout(() => agent.signal("SIGKILL"), plan.afterMs * this.#stretch);
    const { code, signal } = await agent.exited;
    clearTimeout(killing);
    this.#count();
    // Whoever starts the agent outside a round finds no order.
    this.#arm(null);
    if (signal === "SIGKILL") return;
    throw new Error(`round ${number}: the agent ended by itself with ${code ?? signal}:\n${tailOf(agent)}`);
  }

  #arm(order: KillOrder | null): void {
    writeFileSync(join(this.#directory, orderFile), JSON.stringify(order));
    writeFileSync(join(this.#directory, momentsFile), "");
  }

  #count(): void {
    const met = momentsNow(readFileSync(join(this.#directory, momentsFile)));
    this.#kills += 1;
    if (met.length === 0) this.#idle += 1;
    for (const moment of met) this.#met.set(moment, (this.#met.get(moment) ?? 0) + 1);
  }

  /** Moments that no kill has met. */
  missed(): Moment[] {
    return moments.filter((moment) => this.#met.get(moment) === 0);
  }

  /** Moment by moment, how many kills met it; one kill can meet several. */
  table(): string {
    const lines = [...this.#met].map(([moment, kills]) => `${moment.padEnd(28)}${String(kills).padStart(6)}`);
    return [
      ...lines,
      `${"none of these".padEnd(28)}${String(this.#idle).padStart(6)}`,
      `${this.#kills} kills`,
    ].join("\n");
  }

  remove(): void {
    removeDirectory(this.#directory);
  }
}

function tailOf(agent: ServerProcess): string {
  return agent.log().slice(-3000);
}
