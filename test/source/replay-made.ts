/** Feeds made binlog events to a reader as a server would, with the second reading of large groups. */
import type { Checkpoint, FollowedTable, SourceItem, TransactionIdentity } from "../../agent/change.ts";
import { BinlogReader } from "../../agent/source/binlog-reader.ts";
import type { PartLimits } from "../../agent/source/group-rows.ts";
import type { RawPart } from "../../agent/source/group-sink.ts";
import { PartDecoder } from "../../agent/source/part-decoder.ts";
import { planStart } from "../../agent/source/start-position.ts";
import { FollowedNames } from "../../agent/source/followed-names.ts";
import { TableShapes } from "../../agent/source/table-shapes.ts";
import { type BinlogMaker, dumpHead } from "./binlog-maker.ts";

export const followed: readonly FollowedTable[] = [
  { table: "a", columns: ["id"], keyColumns: [0] },
  { table: "b", columns: ["id", "v"], keyColumns: [0] },
];

export const wide: PartLimits = { bytes: 1 << 20, rows: 10_000 };

export function checkpointAt(file: string, position: number): Checkpoint {
  return {
    formatVersion: 2,
    epoch: 1,
    file,
    position,
    resumePosition: position,
    gtidSet: "",
    serverId: 1,
    serverUuid: null,
    lastTransaction: null,
    partial: null,
    newestCommitMs: 0,
  };
}

export interface Replay {
  readonly items: SourceItem[];
  readonly oddities: string[];
  /** Most bytes of rows that one part held. */
  readonly widestPart: number;
  readonly end: Checkpoint;
}

export interface ReplayOptions {
  readonly from: Checkpoint;
  readonly limits?: PartLimits;
  /** Demand the proof of position at the start. */
  readonly prove?: boolean;
}

/** Everything that the source tells after the checkpoint. */
export function replay(maker: BinlogMaker, options: ReplayOptions): Replay {
  const items: SourceItem[] = [];
  const oddities: string[] = [];
  let widestPart = 0;
  const decoder = new PartDecoder(followed.length, {
    connected: () => undefined,
    disconnected: () => undefined,
    bytesRead: () => undefined,
    oddity: (what) => oddities.push(what),
  });
  let from = options.from;
  let prove = options.prove ?? false;
  for (;;) {
    let again: Checkpoint | null = null;
    const start = planStart(from, prove, new Map());
    prove = false;
    const { position } = start.dump.kind === "position" ? start.dump : { position: 4 };
    const reader = openReader(from, start.expected, options.limits ?? wide, {
      part: (part) => {
        widestPart = Math.max(widestPart, part.bytes);
        items.push(decoder.decode(part));
      },
      tableEvent: (event) => items.push(event),
      large: (checkpoint) => {
        again = checkpoint;
      },
      oddity: (what) => oddities.push(what),
    });
    reader.groups.place.start(from.file, position);
    reader.groups.boundary();
    feed(reader, maker, { file: from.file, position }, () => again !== null);
    if (again === null) return { items, oddities, widestPart, end: reader.groups.progress.checkpoint(null) };
    from = again;
  }
}

interface Sink {
  part(part: RawPart): void;
  tableEvent(event: SourceItem): void;
  large(checkpoint: Checkpoint): void;
  oddity(what: string): void;
}

export function openReader(
  from: Checkpoint,
  expected: TransactionIdentity | null,
  limits: PartLimits,
  sink: Sink,
): BinlogReader {
  return new BinlogReader({
    flavour: "mariadb",
    names: new FollowedNames("shop", ["a", "b"], new Set(["index_tmp"])),
    shapes: new TableShapes({ database: "shop", tablePrefix: "" }, followed, () => undefined),
    limits,
    from,
    byPosition: true,
    expected,
    sink,
  });
}

function feed(
  reader: BinlogReader,
  maker: BinlogMaker,
  place: { readonly file: string; readonly position: number },
  isDone: () => boolean,
): void {
  for (const bytes of dumpHead(place, maker.checksums)) reader.push(bytes, 0, bytes.length);
  const at = maker.events.findIndex(({ file, start }) => file === place.file && start === place.position);
  if (at < 0 && !(place.file === maker.file && place.position === maker.position)) {
    throw new Error(`no event starts at ${place.file}:${place.position}`);
  }
  // Packets lie anywhere in the network's buffers, which are used again.
  const network = Buffer.alloc(1 << 16);
  for (const { bytes } of at < 0 ? [] : maker.events.slice(at)) {
    if (isDone()) return;
    bytes.copy(network, 5);
    reader.push(network, 5, 5 + bytes.length);
    network.fill(0xee);
  }
}
