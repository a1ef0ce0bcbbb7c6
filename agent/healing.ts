/**
 * Heals damage of the spool while the agent runs: the queue's lost part is read again from the
 * binlog, or, where the server no longer has that, a gap event takes its place. Meanwhile the other
 * queues are forwarded, and this one up to the damage.
 */
import type { Checkpoint, OutboundEvent, QueueLane, SnapshotProgress } from "./change.ts";
import { assert } from "./kernel/assert.ts";
import { AgentError } from "./kernel/errors.ts";
import { backoffDelayMs, type Clock, type Log } from "./kernel/service.ts";
import type { ReadAgain } from "./reading-anew.ts";
import type { Damages, QueueDamage } from "./spool/damages.ts";
import type { GapFacts } from "./transform/control.ts";

export interface HealingParts {
  readonly damages: Damages;
  readonly checkpoint: () => Checkpoint | null;
  /** Whether the server still has what follows the checkpoint. Rejects while nobody can tell. */
  readonly canResume: (checkpoint: Checkpoint) => Promise<boolean>;
  /** Runs it while nothing is captured; capture then starts again from the spool's checkpoint. */
  readonly atRest: (change: () => Promise<void>) => Promise<void>;
  readonly gapEvent: (facts: GapFacts) => OutboundEvent;
  /** Before the checkpoint is set to that one; nothing is captured. */
  readonly beforeRewind: (to: Checkpoint) => Promise<void>;
  /** Capture goes back: promises of completeness that were noted are void. */
  readonly rewound: () => void;
  readonly healed: (how: "rewound" | "gap") => void;
  /** What is to be read once events of that topic are lost. */
  readonly afterLossOf: (topic: string, progress: SnapshotProgress | undefined) => ReadAgain;
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

  /** The gap event and what is read to make up for it go to disk together: no crash comes between them. */
  async #skip({ queue, lane }: QueueLane): Promise<void> {
    const { damages, checkpoint, gapEvent, afterLossOf, atRest, healed, clock, log } = this.#parts;
    await atRest(async () => {
      const gap = await damages.gap({ queue, lane });
      const now = checkpoint();
      if (gap === null) return;
      assert(now !== null, "what lies in a queue is covered by a checkpoint");
      const { progress, isHealing } = afterLossOf(queue, now.snapshot);
      const facts = { ...gap, queue, epoch: now.epoch, resync: isHealing, nowMs: clock.wallMs() };
      const event: OutboundEvent = { ...gapEvent(facts), lane };
      await damages.skip({ queue, lane }, gap, { event, checkpoint: { ...now, snapshot: progress } });
      healed("gap");
      log.error("events of the spool are lost: the binlog no longer has them; a gap event says so", {
        queue,
        events: gap.last - gap.first + 1,
        from: gap.from === null ? "the start" : `${gap.from.file}:${gap.from.position}`,
        to: gap.to === null ? "unknown" : `${gap.to.file}:${gap.to.position}`,
        hint: isHealing
          ? "What was sent to this topic is read again."
          : "What was sent to this topic needs a resync (with --to-topic, if that brought it here).",
      });
    });
  }
}
