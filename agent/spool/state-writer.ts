/** Adds what the spool remembers beside its records to each write that changes it (state.ts). */
import type { Checkpoint } from "../change.ts";
import type { Clock } from "../kernel/service.ts";
import type { Group } from "./group-commit.ts";
import type { Marks } from "./marks.ts";
import type { Queues } from "./queue.ts";
import type { RecordEncoder } from "./record.ts";
import type { Segments } from "./segments.ts";
import { cursorsKey, marksKey, progressKey, queuesKey, segmentsKey } from "./state.ts";
import type { CursorsRecord, MarksRecord, ProgressRecord, QueuesRecord } from "./state.ts";
import type { Trim } from "./trim.ts";

export interface StateWriterParts {
  readonly queues: Queues;
  readonly segments: Segments;
  readonly marks: Marks;
  readonly encoder: RecordEncoder;
  readonly clock: Clock;
  /** Which state this is (state.ts). */
  readonly stateId: () => number;
  /** Null until the state is open. */
  readonly trim: () => Trim | null;
}

export class StateWriter {
  readonly #parts: StateWriterParts;
  /** Acknowledgements were made that are not on disk. */
  cursorsDirty = false;

  constructor(parts: StateWriterParts) {
    this.#parts = parts;
  }

  /** The last change of a group before it is written. */
  addTo(group: Group): void {
    const { queues, segments, marks, clock } = this.#parts;
    if (queues.namesChanged) {
      queues.namesChanged = false;
      const record: QueuesRecord = { names: queues.all.map(({ tag, lane, name }) => [tag, lane, name]) };
      this.#put(group, queuesKey, record);
    }
    if (segments.changed) {
      segments.changed = false;
      this.#put(group, segmentsKey, segments.record(queues.all));
    }
    if (group.checkpoint !== null) {
      this.#putProgress(group, group.checkpoint);
      const nowMs = clock.monotonicMs();
      if (marks.isDue(group.checkpoint, nowMs)) {
        marks.add(group.checkpoint, nowMs);
        group.marks = true;
      }
    }
    if (group.marks) {
      const record: MarksRecord = { marks: marks.all };
      this.#put(group, marksKey, record);
    }
    // Marks go only as far back as something waits, by the cursors of that moment. Older cursors beside
    // newer marks, which damage can leave, would name events as lost that were delivered.
    if (this.cursorsDirty || group.marks || (this.#parts.trim()?.backlog ?? 0) > 0) this.#putCursors(group);
  }

  #putProgress(group: Group, checkpoint: Checkpoint): void {
    const record: ProgressRecord = {
      stateId: this.#parts.stateId(),
      checkpoint,
      ends: this.#parts.queues.all.map((queue) => [
        queue.tag,
        queue.lane,
        queue.assigned,
        queue.appendedBytes,
        queue.barrierAt,
        queue.unboundThrough,
      ]),
    };
    this.#put(group, progressKey, record);
  }

  #putCursors(group: Group): void {
    const trim = this.#parts.trim();
    trim?.addDeletes(group.batch);
    this.cursorsDirty = false;
    const record: CursorsRecord = {
      stateId: this.#parts.stateId(),
      acked: this.#parts.queues.all.map(({ tag, lane, acked, ackedBytes }) => [tag, lane, acked, ackedBytes]),
      uncompactedSinceMs: trim?.uncompactedSinceMs ?? null,
    };
    this.#put(group, cursorsKey, record);
  }

  #put(group: Group, key: Buffer, record: unknown): void {
    const value = this.#parts.encoder.json(key, record);
    group.batch.put(key, value);
    group.bytes += value.length;
  }
}
