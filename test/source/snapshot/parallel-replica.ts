/**
 * Chunks that are read from a replica which applies in parallel: what its commits look like to a
 * SELECT, and in which order they stand in its own binlog, is another matter than on a primary.
 */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { SourceItem } from "../../../agent/change.ts";
import type { DatabaseServer } from "../../servers/database.ts";
import type { ServerKind } from "../../servers/matrix.ts";
import { replicated, startReplica } from "../../servers/replication.ts";
import { caughtUp, follow, startAfresh, stopAll, useServer } from "../following.ts";
import { assertChunks, assertRows, isComplete, numbers, reading, wholeThing, write } from "./chunks.ts";

const ROWS_OF_CHUNK = 2;
const WRITERS = 8;
const smallFiles = ["--max-binlog-size=64K", "--sync-binlog=1"];

export interface ParallelCase {
  readonly kind: ServerKind;
  /** Whether transactions commit in the order of the primary. */
  readonly inOrder: boolean;
  readonly chunks: number;
}

/** MariaDB keeps the order inside a GTID domain, so only two domains bring another one. */
function replicaArgs({ kind, inOrder }: ParallelCase): string[] {
  return kind.flavour === "mariadb"
    ? ["--slave-parallel-threads=4", "--slave-parallel-mode=optimistic"]
    : ["--replica-parallel-workers=4", `--replica-preserve-commit-order=${inOrder ? "ON" : "OFF"}`];
}

/** Places in the stream where a transaction stands behind one that the primary committed later. */
function swaps(items: readonly SourceItem[]): number {
  const numbersSeen = items.flatMap((item) =>
    item.kind === "transaction" && item.gtid !== null ? [Number(/\d+$/.exec(item.gtid)?.[0])] : [],
  );
  return numbersSeen.filter((number, at) => number < (numbersSeen[at - 1] ?? 0)).length;
}

export function testParallelReplica(what: ParallelCase): void {
  const { kind, inOrder, chunks } = what;
  const order = inOrder ? "in the primary's order" : "in an order of its own";
  describe(`${kind.name}, a replica that applies in parallel and commits ${order}`, () => {
    let primary: DatabaseServer;
    let replica: DatabaseServer;

    before(async () => {
      primary = await useServer(kind, { args: smallFiles });
      replica = await startReplica(kind, primary, { args: [...smallFiles, ...replicaArgs(what)] });
    });
    after(async () => {
      await replica.stop();
      await primary.stop();
    });
    afterEach(stopAll);

    test(`gives ${chunks} chunks beside ${WRITERS} writers, each as its binlog has it at its place`, async () => {
      await startAfresh();
      const rows = chunks * ROWS_OF_CHUNK;
      await primary.query(
        `INSERT INTO thing SELECT seq * 2, 'x', CONCAT('n', seq) FROM (${numbers(rows)}) AS s`,
      );
      await replicated(primary, replica);
      const rowsBefore = await replica.query("SELECT id, name FROM shop.thing");
      const followed = follow({
        settings: { port: replica.port },
        ...reading([wholeThing], { rowsMax: ROWS_OF_CHUNK }),
      });
      await followed.until((items) => items.length > 0);
      const ending = new AbortController();
      const domains = kind.flavour === "mariadb" && !inOrder;
      const writers = Array.from({ length: WRITERS }, (_, index) =>
        write(primary, ending.signal, {
          ids: rows * 2,
          pauseMs: 3,
          // Transactions of two domains must not touch the same rows.
          ...(domains
            ? {
                first: `SET SESSION gtid_domain_id = ${(index % 2) + 1}`,
                share: { of: 2, remainder: index % 2 },
              }
            : {}),
        }),
      );
      await followed.until(isComplete, 300_000);
      ending.abort();
      const written = (await Promise.all(writers)).reduce((sum, one) => sum + one, 0);
      await replicated(primary, replica);
      await caughtUp(followed);
      assertRows(followed.items, await replica.query("SELECT id, name FROM shop.thing"));
      const read = assertChunks(followed.items, rowsBefore);
      console.log(`${kind.name}: ${read} chunks, ${written} writes, ${swaps(followed.items)} out of order`);
      assert.ok(read > chunks * 0.9, `${read} chunks`);
      // Without GTIDs the stream does not say which order the primary had.
      if (!inOrder && kind.hasGtids) assert.ok(swaps(followed.items) > 0, "the replica kept the order");
    });
  });
}
