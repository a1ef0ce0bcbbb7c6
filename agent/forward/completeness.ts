/**
 * Up to where the source's commits are delivered: the promise that a heartbeat makes.
 *
 * With each durable append it notes the checkpoint together with the newest record of every queue.
 * The checkpoint is complete once every queue is acknowledged up to what was noted, never earlier.
 * Only live lanes count: bulk lanes hold what was read from tables, and no commit that is not in a live lane.
 */
import type { Checkpoint, Seq } from "../change.ts";
import type { QueueState } from "../ports.ts";

type QueuePlace = Pick<QueueState, "queue" | "lane" | "acked" | "last">;

/** What a heartbeat may claim. All null before the first complete checkpoint. */
export interface CompleteUpTo {
  readonly completeUpToMs: number | null;
  readonly file: string | null;
  readonly position: number | null;
  readonly gtidSet: string | null;
}

interface Mark {
  checkpoint: Checkpoint;
  readonly lastSeqs: ReadonlyMap<string, Seq>;
}

const MARKS_MAX = 512;
const nothing: CompleteUpTo = { completeUpToMs: null, file: null, position: null, gtidSet: null };

export class Completeness {
  #marks: Mark[] = [];
  #complete: CompleteUpTo = nothing;

  /**
   * Notes a durable append: `states` is the spool's state right after it (a state from before it
   * would promise too much). A part of a transaction promises nothing and is passed over.
   */
  appended(checkpoint: Checkpoint, states: readonly QueuePlace[]): void {
    if (checkpoint.partial !== null) return;
    const queues = states.filter(isLive);
    const newest = this.#marks.at(-1);
    if (newest !== undefined && isSame(newest.lastSeqs, queues)) {
      newest.checkpoint = checkpoint;
      return;
    }
    const lastSeqs = new Map<string, Seq>();
    for (const state of queues) lastSeqs.set(state.queue, state.last);
    // A long outage makes the marks coarser, not more: the newest one stays exact.
    if (this.#marks.length >= MARKS_MAX) this.#marks = this.#marks.filter((_, index) => index % 2 === 1);
    this.#marks.push({ checkpoint, lastSeqs });
  }

  /** Capture starts again from an earlier checkpoint: what was noted of later ones is void. */
  restarted(): void {
    this.#marks = [];
  }

  /** What is complete, given what each queue has acknowledged by now. */
  upTo(states: readonly QueuePlace[]): CompleteUpTo {
    const acked = new Map<string, Seq>();
    for (const state of states.filter(isLive)) acked.set(state.queue, state.acked);
    let done = 0;
    while (done < this.#marks.length && isComplete(this.#marks[done], acked)) done++;
    const reached = this.#marks[done - 1];
    if (reached !== undefined) {
      this.#complete = factsOf(reached.checkpoint);
      // The last reached mark stays while it is the newest, so that progress without events can
      // still move its checkpoint.
      this.#marks.splice(0, done === this.#marks.length ? done - 1 : done);
    }
    return this.#complete;
  }
}

function isLive({ lane }: QueuePlace): boolean {
  return lane === "live";
}

function isSame(lastSeqs: ReadonlyMap<string, Seq>, queues: readonly QueuePlace[]): boolean {
  if (lastSeqs.size !== queues.length) return false;
  for (const state of queues) if (lastSeqs.get(state.queue) !== state.last) return false;
  return true;
}

function isComplete(mark: Mark | undefined, acked: ReadonlyMap<string, Seq>): boolean {
  if (mark === undefined) return false;
  for (const [queue, last] of mark.lastSeqs) {
    // A queue that is gone was trimmed away whole.
    if ((acked.get(queue) ?? last) < last) return false;
  }
  return true;
}

function factsOf(checkpoint: Checkpoint): CompleteUpTo {
  return {
    // Commit times are often whole seconds: others of the same time may still come.
    completeUpToMs: checkpoint.newestCommitMs - 1,
    // Right after a failover only the GTIDs are known.
    file: checkpoint.file === "" ? null : checkpoint.file,
    position: checkpoint.file === "" ? null : checkpoint.position,
    gtidSet: checkpoint.gtidSet,
  };
}
