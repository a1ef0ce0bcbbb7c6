/** Measures what the state directory takes and what its volume has left, for the gate of the intake. */
import type { Clock } from "../kernel/service.ts";
import { freeBytes, measureUsage } from "./limits.ts";
import type { IntakeGate } from "./limits.ts";

const MEASURE_MS = 1_000;
/** Others fill the volume too: its free space is looked at whenever so much was written. */
const FREE_LOOK_BYTES = 2 * 1024 * 1024;

export interface UsageWatchParts {
  readonly stateDir: string;
  readonly gate: IntakeGate;
  readonly clock: Clock;
  /** Batches that wait for room, and the bytes of the next of them. */
  readonly waiting: () => { readonly batches: number; readonly nextBytes: number };
  readonly failed: (cause: unknown) => void;
  /** A measurement has ended: there may be room. */
  readonly measured: () => void;
}

export class UsageWatch {
  readonly #parts: UsageWatchParts;
  #measuring: Promise<void> | null = null;
  #nextMs = 0;

  constructor(parts: UsageWatchParts) {
    this.#parts = parts;
  }

  /** Resolves when no measurement is under way. */
  async settled(): Promise<void> {
    await this.#measuring;
  }

  /** After a write. */
  wrote(): void {
    if (this.#parts.gate.unmeasuredFreeBytes >= FREE_LOOK_BYTES) void this.measure();
  }

  /** By the clock: all the time while something waits, else when something was written. */
  async tick(pressed: boolean): Promise<void> {
    const { gate, clock } = this.#parts;
    if (pressed || (gate.unmeasuredBytes > 0 && clock.monotonicMs() >= this.#nextMs)) await this.measure();
  }

  /** One at a time; whoever asks meanwhile waits for the same one. */
  measure(): Promise<void> {
    this.#measuring ??= this.#measureNow()
      .catch(this.#parts.failed)
      .finally(() => {
        this.#measuring = null;
        this.#parts.measured();
      });
    return this.#measuring;
  }

  async #measureNow(): Promise<void> {
    const { stateDir, gate, clock } = this.#parts;
    const waiting = this.#parts.waiting();
    const bytesBefore = gate.unmeasuredBytes;
    const startMs = clock.monotonicMs();
    if (gate.closed === null && waiting.batches === 0 && startMs < this.#nextMs) {
      gate.freeMeasured(await freeBytes(stateDir));
      return;
    }
    const usage = await measureUsage(stateDir);
    gate.measured(usage, bytesBefore, this.#parts.waiting().nextBytes);
    // Many tables take long to list: then it is done less often.
    const nowMs = clock.monotonicMs();
    this.#nextMs = nowMs + Math.max(MEASURE_MS, (nowMs - startMs) * 20);
  }
}
