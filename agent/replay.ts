/**
 * Replay: what the server's binlog still has is read again and sent with the same ids and sequences.
 * It heals a broker or a consumer that lost data, without keeping delivered data here. The checkpoint
 * goes back, and capture comes forward again at full speed; live changes wait behind it.
 */
import { binlogFileNumber, type Position, type TableEvent, type TransactionPart } from "./change.ts";
import { AgentError } from "./kernel/errors.ts";
import type { EventEncoder, SpoolWriter } from "./ports.ts";
import type { PlaceInTime } from "./source/place-in-time.ts";
import type { Mapping } from "./transform/mapping.ts";

export interface ReplayRequest {
  readonly sinceMs: number;
  /** Null: of all entities. */
  readonly entity: string | null;
}

export interface ReplayBegun {
  /** FILE:POSITION. */
  readonly from: string;
  readonly to: string;
  /** When the file was begun that is read from its start. */
  readonly sinceMs: number;
  /** What of the time asked for is not read, why, and what to do; null where all of it is. */
  readonly missing: string | null;
}

export interface ReplayParts {
  readonly spool: Pick<SpoolWriter, "checkpoint" | "append">;
  readonly mapping: Mapping;
  readonly placeSince: (sinceMs: number, epochMs: number) => Promise<PlaceInTime>;
  readonly filter: ReplayFilter;
}

/**
 * Moves the checkpoint back; capture must be at rest between two transactions. The epoch stays, so
 * it does not go back before that began. Throws COMMAND_REFUSED.
 */
export async function beginReplay(parts: ReplayParts, request: ReplayRequest): Promise<ReplayBegun> {
  const { spool, mapping, filter } = parts;
  const last = spool.checkpoint();
  if (last === null || last.file === "") {
    throw new AgentError("COMMAND_REFUSED", "the state has no position yet");
  }
  const { entity } = request;
  const table = entity === null ? null : mapping.entities.find((one) => one.entity === entity)?.table;
  if (table === undefined) {
    throw new AgentError("COMMAND_REFUSED", `the mapping has no entity "${entity ?? ""}"`, {
      hint: `It has: ${mapping.entities.map((one) => one.entity).join(", ")}.`,
    });
  }
  // An epoch begins at a time in seconds since 1970, or later (change.ts, nextEpoch).
  const { place, createdMs, missing } = await parts.placeSince(request.sinceMs, last.epoch * 1000);
  const { epoch, newestCommitMs, snapshot } = last;
  await spool.append({
    events: [],
    checkpoint: { ...place, epoch, newestCommitMs, ...(snapshot === undefined ? {} : { snapshot }) },
    durable: true,
  });
  filter.begin(table, last);
  return {
    from: `${place.file}:${place.position}`,
    to: `${last.file}:${last.position}`,
    sinceMs: createdMs,
    missing,
  };
}

/**
 * Leaves the events of other entities out until the stream is where it was. Lost in a restart: then
 * they are sent again too, which harms nobody.
 */
export class ReplayFilter {
  #table: string | null = null;
  #until: Position | null = null;

  begin(table: string | null, until: Position): void {
    this.#table = table;
    this.#until = { file: until.file, position: until.position };
  }

  /** The encoder as it is to be used now. */
  over(inner: EventEncoder): EventEncoder {
    const table = this.#table;
    if (table === null) return inner;
    return {
      tables: inner.tables,
      takeSuppressed: () => inner.takeSuppressed(),
      encode: (item, context) => {
        const events = inner.encode(item, context);
        if (item.kind === "chunk" || !this.#isBefore(item)) return events;
        // The last part of a large transaction says how many events all of them made.
        if (item.kind === "transaction" && !(item.isLast && item.firstOrdinal === 0)) return events;
        // A table's reset concerns all that was read of it, and is a control event.
        return events.filter((event) => event.kind === "control" || event.table === table);
      },
    };
  }

  #isBefore({ end }: TransactionPart | TableEvent): boolean {
    const until = this.#until;
    if (until === null) return false;
    const isBefore =
      end.file === until.file
        ? end.position <= until.position
        : binlogFileNumber(end.file) < binlogFileNumber(until.file);
    if (!isBefore) this.#until = null;
    return isBefore;
  }
}
