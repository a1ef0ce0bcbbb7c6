/** Reads binlog files of a server's disk: the bytes that the decoder's tests feed it with. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import type { FollowedTable, RowKind, Value } from "../../../agent/change.ts";
import type { SchemaColumn } from "../../../agent/source/decode/column-definition.ts";
import { decodeRows } from "../../../agent/source/decode/rows.ts";
import { parseTableMap, type TableMap } from "../../../agent/source/decode/table-map.ts";
import { compileTablePlan, type TablePlan } from "../../../agent/source/decode/table-plan.ts";

export interface RawEvent {
  readonly type: number;
  /** Without header and checksum. */
  readonly body: Buffer;
}

const HEADER = 19;

/** All events of all binlog files in the directory, in order. */
export function readBinlogs(directory: string): RawEvent[] {
  const names = readdirSync(directory)
    .filter((name) => /\.\d{6}$/.test(name))
    .sort();
  return names.flatMap((name) => readEvents(readFileSync(join(directory, name))));
}

function readEvents(file: Buffer): RawEvent[] {
  const events: RawEvent[] = [];
  let checksumBytes = 0;
  for (let at = 4; at + HEADER <= file.length;) {
    const type = file.readUInt8(at + 4);
    const length = file.readUInt32LE(at + 9);
    if (type === 15) {
      // The format description ends with the checksum's algorithm and a checksum of its own.
      checksumBytes = file.readUInt8(at + length - 5) === 1 ? 4 : 0;
    }
    events.push({ type, body: file.subarray(at + HEADER, at + length - checksumBytes) });
    at += length;
  }
  return events;
}

export interface DecodedRow {
  readonly kind: RowKind;
  readonly row: readonly (Value | undefined)[];
  readonly old: readonly (Value | undefined)[] | null;
}

export interface DecodedTable {
  readonly rows: DecodedRow[];
  readonly oddities: Map<string, number>;
  /** The newest table map and plan of the table, and the rows events that were read by them. */
  map: TableMap | null;
  plan: TablePlan | null;
  readonly events: RawEvent[];
}

const rowsEventTypes = new Set([23, 24, 25, 30, 31, 32, 39, 166, 167, 168, 169, 170, 171]);

/** Decodes every row of one table. */
export function decodeTable(
  events: readonly RawEvent[],
  followed: FollowedTable,
  columns: readonly SchemaColumn[] | null,
): DecodedTable {
  const found: DecodedTable = { rows: [], oddities: new Map(), map: null, plan: null, events: [] };
  const maps = new Map<number, TableMap>();
  const sink = {
    row: (kind: RowKind, row: DecodedRow["row"], old: DecodedRow["old"]) => {
      found.rows.push({ kind, row, old });
    },
    oddity: (what: string) => {
      found.oddities.set(what, (found.oddities.get(what) ?? 0) + 1);
    },
  };
  for (const event of events) {
    if (event.type === 19) {
      const map = parseTableMap(event.body);
      maps.set(map.tableId, map);
      if (map.table === followed.table) {
        found.map = map;
        found.plan = compileTablePlan(map, followed, 0, columns);
      }
    } else if (rowsEventTypes.has(event.type)) {
      const map = maps.get(event.body.readUIntLE(0, 6));
      if (map?.table === followed.table && found.plan !== null) {
        found.events.push(event);
        decodeRows(found.plan, event.type, event.body, sink);
      }
    }
  }
  return found;
}
