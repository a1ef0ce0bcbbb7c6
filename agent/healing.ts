/**
 * Heals damage of the spool while the agent runs: the queue's lost part is read again from the
 * binlog, or, where the server no longer has that, a gap event takes its place. Meanwhile the other
 * queues are forwarded, and this one up to the damage.
 */
import type { Checkpoint, OutboundEvent, QueueLane } from "./change.ts";
import { AgentError } from "./kernel/errors.ts";
import { backoffDelayMs, type Clock, type Log } from "./kernel/service.ts";
import type { Damages, QueueDamage } from "./spool/damages.ts";
import type { GapFacts } from "./transform/control.ts";

export interface HealingParts {
  readonly damages: Damages;
  /** Whether the server still has what follows the checkpoint. Rejects while nobody can tell. */
  readonly canResume: (checkpoint: Checkpoint) => Promise<boolean>;
  /** Runs it while nothing is captured; capture then starts again from the spool's checkpoint. */
  readonly atRest: (change: () => Promise<void>) => Promise<void>;
  readonly gapEvent: (facts: GapFacts) => OutboundEvent;
  readonly epoch: () => number;
  /** Before the checkpoint is set to that one; nothing is captured. */
  readonly beforeRewind: (to: Checkpoint) => Promise<void>;
  /** Capture goes back: promises of completeness that were noted are void. */
  readonly rewound: () => void;
  readonly healed: (how: "rewound" | "gap") => void;
  /** Reads the entities of a topic again whose events are lost; null where no rows are read. */
  readonly resync: ((queue: string) => Promise<void>) | null;
  readonly clock: Clock;
  readonly log: Log;
}

const backoff = { firstMs: 500, maxMs: 30_000 } as const;

export class Healing {
  readonly #parts: HealingParts;

  constructor(parts: HealingParts) {
    this.#parts = parts;
  }

  /** Heals what there is and what comes up, until the signal aborts. Rejects when the spool does. */
  async run(signal: AbortSignal): Promise<void> {
    const { damages, clock } = this.#parts;
    let failures = 0;
    while (!signal.aborted) {
      const [damage] = damages.all;
      if (damage === undefined) {
        failures = 0;
        await this.#nextDamage(signal);
      } else if (!(await this.#heal(damage, failures === 0))) {
        failures += 1;
        await clock.sleep(backoffDelayMs(failures, backoff), signal);
      }
    }
  }

  #nextDamage(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        unsubscribe();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const unsubscribe = this.#parts.damages.onFound(done);
      signal.addEventListener("abort", done, { once: true });
      if (signal.aborted || this.#parts.damages.all.length > 0) done();
    });
  }

  /** False: the server cannot be asked now. */
  async #heal(damage: QueueDamage, isFirst: boolean): Promise<boolean> {
    const { queue, seq, rewindTo } = damage;
    const { damages, log, atRest, beforeRewind, rewound, healed } = this.#parts;
    let canRewind = false;
    try {
      canRewind = rewindTo !== null && (await this.#parts.canResume(rewindTo));
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      if (isFirst)
        log.warn("damage of the spool is healed once the database answers", { queue, code: error.code });
      return false;
    }
    if (rewindTo !== null && canRewind) {
      await atRest(async () => {
        await beforeRewind(rewindTo);
        await damages.rewind(damage);
        rewound();
      });
      healed("rewound");
      log.notice("damage of the spool is healed: what followed is read again from the binlog", {
        queue,
        seq,
        from: `${rewindTo.file}:${rewindTo.position}`,
      });
      return true;
    }
    await this.#skip(damage);
    return true;
  }

  async #skip({ queue, lane }: QueueLane): Promise<void> {
    const { damages, gapEvent, epoch, healed, resync, clock, log } = this.#parts;
    const gap = await damages.gap({ queue, lane });
    if (gap === null) return;
    const event = gapEvent({ ...gap, queue, epoch: epoch(), resync: resync !== null, nowMs: clock.wallMs() });
    await damages.skip({ queue, lane }, gap, { ...event, lane });
    healed("gap");
    log.error("events of the spool are lost: the binlog no longer has them; a gap event says so", {
      queue,
      events: gap.last - gap.first + 1,
      from: gap.from === null ? "the start" : `${gap.from.file}:${gap.from.position}`,
      to: gap.to === null ? "unknown" : `${gap.to.file}:${gap.to.position}`,
      hint: resync === null ? "The entities of this topic need a resync." : "Their entities are read again.",
    });
    await resync?.(queue);
  }
}
