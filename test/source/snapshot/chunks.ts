/** Random writers beside a snapshot of the small test table, and what each of its chunks has to be. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { SourceItem, WantedJob } from "../../../agent/change.ts";
import type { DatabaseServer, SqlRow } from "../../servers/database.ts";
import type { FollowOptions } from "../following.ts";
import { RowHistory, RowReplica, text } from "./replica.ts";

export const wholeThing: WantedJob = {
  table: "thing",
  reason: "initial",
  scope: { kind: "all" },
  topic: null,
};

export function reading(
  wanted: readonly WantedJob[],
  more: Partial<FollowOptions["snapshots"]> = {},
): FollowOptions {
  return { snapshots: { wanted: (at) => (at === null ? wanted : []), rowsMax: 25, ...more } };
}

export function isComplete(items: readonly SourceItem[]): boolean {
  return items.some((item) => item.kind === "chunk" && item.isLast);
}

export interface WriterOptions {
  /** Ids are chosen from 1 to this. */
  readonly ids: number;
  /** Of those the ones that leave this remainder; default all. */
  readonly share?: { readonly of: number; readonly remainder: number };
  /** Between two writes, for a replica that has to keep up; default none. */
  readonly pauseMs?: number;
  /** The connection's first statement. */
  readonly first?: string;
}

/** Random single-row writes until stopped; each on a connection of its own. */
export async function write(
  server: DatabaseServer,
  signal: AbortSignal,
  { ids, share = { of: 1, remainder: 0 }, pauseMs = 0, first }: WriterOptions,
): Promise<number> {
  const connection = await server.connection({ database: "shop" });
  if (first !== undefined) await connection.query(first);
  let written = 0;
  const id = (): number => 1 + Math.floor((Math.random() * ids) / share.of) * share.of + share.remainder;
  while (!signal.aborted) {
    const kind = Math.random();
    const name = `n${Math.floor(Math.random() * 1e9)}`;
    const sql =
      kind < 0.5
        ? `UPDATE thing SET name='${name}' WHERE id=${id()}`
        : kind < 0.7
          ? `DELETE FROM thing WHERE id=${id()}`
          : kind < 0.95
            ? `INSERT INTO thing VALUES (${id()},'x','${name}') ON DUPLICATE KEY UPDATE name='${name}'`
            : `UPDATE IGNORE thing SET id=${id()} WHERE id=${id()}`;
    await connection.query(sql);
    written += 1;
    if (pauseMs > 0) await sleep(pauseMs);
  }
  await connection.end();
  return written;
}

/** The replica made from the items has exactly these rows. */
export function assertRows(items: readonly SourceItem[], rows: readonly SqlRow[]): void {
  const replica = new RowReplica(0);
  replica.apply(items);
  const found = [...replica.rows()].map(([id, row]) => `${id}:${text(row[1])}`).sort();
  assert.deepEqual(found, rows.map((row) => `${String(row["id"])}:${String(row["name"])}`).sort());
}

/** Each chunk's rows are those that the binlog has at the chunk's place; says how many chunks there were. */
export function assertChunks(items: readonly SourceItem[], rowsBefore: readonly SqlRow[]): number {
  const chunks = items.filter((item) => item.kind === "chunk");
  const history = new RowHistory(rowsBefore.map((row) => [String(row["id"]), String(row["name"])] as const));
  history.take(items);
  for (const { rows, position } of chunks) {
    for (const row of rows) {
      assert.equal(
        text(row[1]),
        history.at(text(row[0]), position),
        `row ${text(row[0])} at ${position.file}:${position.position}`,
      );
    }
  }
  return chunks.length;
}

export function numbers(count: number): string {
  const digits =
    "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
  return `SELECT 1 + a.d + b.d * 10 + c.d * 100 + e.d * 1000 AS seq FROM ${digits} a, ${digits} b, ${digits} c, ${digits} e HAVING seq <= ${count}`;
}
