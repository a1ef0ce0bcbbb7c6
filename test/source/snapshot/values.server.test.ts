/** A row that was read and the same row from the stream are the same, over every type. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import type { FollowedTable, SourceItem, Value } from "../../../agent/change.ts";
import type { DatabaseServer } from "../../servers/database.ts";
import { serverKinds } from "../../servers/matrix.ts";
import { everyTypeOf } from "../decode/every-type.ts";
import { plainJson } from "../decode/json-documents.ts";
import { Random } from "../decode/random.ts";
import { caughtUp, follow, following, startAfresh, stopAll, useServer } from "../following.ts";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);
const ROWS = 150;
let server: DatabaseServer;

/** JSON is the same as a document: servers differ in how they print numbers. */
function comparable(value: Value | undefined): Value | undefined {
  return typeof value === "object" && value !== null && "json" in value
    ? { json: plainJson(value.json) }
    : value;
}

function rowsOf(items: readonly SourceItem[]): Map<number, readonly (Value | undefined)[]> {
  const rows = new Map<number, readonly (Value | undefined)[]>();
  for (const item of items) {
    if (item.kind === "chunk") for (const row of item.rows) rows.set(Number(row[0]), row);
    else if (item.kind === "transaction") for (const { row } of item.changes) rows.set(Number(row[0]), row);
  }
  return rows;
}

for (const kind of serverKinds.filter(({ hasGtids }) => hasGtids))
  describe(kind.name, () => {
    before(async () => {
      server = await useServer(kind);
    });
    after(() => server.stop());
    afterEach(stopAll);

    test("gives every value in the form that the stream has", async () => {
      await startAfresh();
      const everyType = everyTypeOf(kind);
      const definitions = everyType.map(({ name, definition }) => `${name} ${definition}`);
      await server.query(
        `SET SESSION sql_mode = '', time_zone = '+00:00'; SET NAMES utf8mb4;
         CREATE TABLE shop.every (id int unsigned NOT NULL PRIMARY KEY, ${definitions.join(", ")})`,
      );
      const every: FollowedTable = {
        table: "every",
        columns: ["id", ...everyType.map(({ name }) => name)],
        keyColumns: [0],
      };
      const streamed = await following({ tables: [every] });
      const random = new Random(seed);
      for (let id = 1; id <= ROWS; id += 1) {
        const literals = everyType.map((column) => (random.below(9) === 0 ? "NULL" : column.literal(random)));
        await server.query(`INSERT INTO shop.every VALUES (${[id, ...literals].join(", ")})`);
      }
      await caughtUp(streamed);
      const read = follow({
        tables: [every],
        snapshots: {
          wanted: (at) =>
            at === null ? [{ table: "every", reason: "initial", scope: { kind: "all" }, topic: null }] : [],
        },
      });
      await read.until((items) => items.some((item) => item.kind === "chunk" && item.isLast));
      const [expected, found] = [rowsOf(streamed.items), rowsOf(read.items)];
      assert.equal(found.size, ROWS);
      assert.equal(expected.size, ROWS);
      for (const [id, row] of expected) {
        const other = found.get(id);
        row.forEach((value, index) => {
          const column = everyType[index - 1];
          const what = `row ${id}, ${column === undefined ? "id" : `${column.name} ${column.definition}`}`;
          assert.deepEqual(comparable(other?.[index]), comparable(value), what);
        });
      }
    });
  });
