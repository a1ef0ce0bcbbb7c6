/**
 * Whose state this is. A state remembers its machine; on another one nothing is captured or
 * published until the operator adopts it, so that a clone of the shop's machine cannot write into
 * production (spec.md section 6).
 */
import { randomUUID } from "node:crypto";
import { type Checkpoint, nextEpoch } from "./change.ts";
import { AgentError } from "./kernel/errors.ts";
import { differencesOf, isMachineFacts, type MachineFacts, mergeFacts } from "./machine.ts";
import type { AppendBatch } from "./ports.ts";
import { readIdentity, type StateValues } from "./state-guard.ts";

/** The part of the spool that is needed here. */
export interface AdoptableState {
  readonly meta: StateValues;
  checkpoint(): Checkpoint | null;
  append(batch: AppendBatch): Promise<void>;
}

/**
 * Remembers the machine at the first start and follows its slow changes. Resolves with null when the
 * state belongs to this machine, else with STATE_CLONED, and then nothing was written.
 */
export async function guardMachine(values: StateValues, now: MachineFacts): Promise<AgentError | null> {
  const stored = await values.get("machine");
  if (stored !== undefined && !isMachineFacts(stored))
    throw new AgentError("SPOOL_CORRUPT", "the state's record of its machine is not readable");
  const remembered = stored ?? now;
  const differences = differencesOf(remembered, now);
  if (differences.length > 0) {
    return new AgentError(
      "STATE_CLONED",
      `the state was made on ${remembered.hostName}, and ${now.hostName} is another machine: ${differences.join(", ")}`,
    );
  }
  const merged = mergeFacts(remembered, now);
  if (JSON.stringify(merged) !== JSON.stringify(stored)) await values.put("machine", merged);
  return null;
}

export interface Adopted {
  readonly instance: string;
  /** Null where nothing was captured yet. */
  readonly epoch: number | null;
}

/**
 * Makes the state belong to this machine. It gets an instance of its own, so that consumers can tell
 * two agents of one shop, and a new epoch, so that what it publishes is newer than everything that
 * its origin published. Events that wait in the spool stay: the origin has them too, and sends them
 * with the same ids and sequences. The record of the machine comes last: after a crash in between
 * the state is still not adopted.
 */
export async function adoptState(
  state: AdoptableState,
  machine: MachineFacts,
  nowMs: number,
): Promise<Adopted> {
  const stored = await readIdentity(state.meta);
  if (stored === null) throw new AgentError("COMMAND_REFUSED", "there is no state to adopt yet");
  const checkpoint = state.checkpoint();
  const epoch = checkpoint === null ? null : nextEpoch(checkpoint, nowMs);
  const instance = randomUUID();
  if (checkpoint !== null && epoch !== null) {
    // Reaches the disk with the next record, at the latest.
    await state.append({ events: [], checkpoint: { ...checkpoint, epoch } });
  }
  await state.meta.put("identity", { ...stored, instance });
  await state.meta.put("machine", machine);
  return { instance, epoch };
}

/** A state that waits to be adopted, in a running agent. */
export class Adoption {
  readonly reason: AgentError;
  readonly #adopt: () => Promise<Adopted>;
  readonly #done = Promise.withResolvers<void>();
  #isDone = false;

  constructor(reason: AgentError, adopt: () => Promise<Adopted>) {
    this.reason = reason;
    this.#adopt = adopt;
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** Resolves when the operator has adopted the state; it has to be opened anew then. */
  whenDone(): Promise<void> {
    return this.#done.promise;
  }

  /** Rejects with COMMAND_REFUSED when it was adopted before. */
  async adopt(): Promise<Adopted> {
    if (this.#isDone) throw new AgentError("COMMAND_REFUSED", "the state was adopted a moment ago");
    this.#isDone = true;
    try {
      const adopted = await this.#adopt();
      this.#done.resolve();
      return adopted;
    } catch (error) {
      this.#isDone = false;
      throw error;
    }
  }
}
