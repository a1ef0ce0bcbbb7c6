/**
 * The decoder against real servers: what its rows events decode to is what its own SELECT shows,
 * over every type, with every kind of row metadata.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import type { Value } from "../../../agent/change.ts";
import { countRows } from "../../../agent/source/decode/rows.ts";
import type { DecodedTable } from "./binlog-file.ts";
import { DecodeServer, shownText } from "./decode-server.ts";
import { serverKinds } from "../../servers/matrix.ts";
import { everyTypeOf, type TypedColumn } from "./every-type.ts";
import { plainJson } from "./json-documents.ts";
import { Random } from "./random.ts";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);
let server: DecodeServer;

/** Plays the rows on an empty table and checks every old value on the way. */
function replay(found: DecodedTable): Map<string, readonly (Value | undefined)[]> {
  const state = new Map<string, readonly (Value | undefined)[]>();
  for (const { kind, row, old } of found.rows) {
    const was = state.get(String(Number(old?.[0] ?? row[0])));
    if (kind === "insert") {
      assert.equal(was, undefined);
      state.set(String(Number(row[0])), row);
      continue;
    }
    assert.ok(was !== undefined, "a row that was never inserted");
    state.delete(String(Number(was[0])));
    if (kind === "delete") {
      assert.deepEqual(row, was);
      continue;
    }
    row.forEach((value, slot) => {
      const oldValue = old?.[slot];
      assert.deepEqual(oldValue === undefined ? value : oldValue, was[slot]);
    });
    state.set(String(Number(row[0])), row);
  }
  return state;
}

async function fillEveryType(table: string, everyType: readonly TypedColumn[]): Promise<void> {
  const random = new Random(seed);
  const definitions = everyType.map(({ name, definition }) => `${name} ${definition}`);
  await server.run(`CREATE TABLE ${table} (id int unsigned NOT NULL PRIMARY KEY, ${definitions.join(", ")})`);
  const literal = (column: TypedColumn, nulls: number): string =>
    random.below(nulls) === 0 ? "NULL" : column.literal(random);
  for (let id = 1; id <= 60; id++) {
    const nulls = random.pick([2, 5, 1000]);
    await server.run(
      `INSERT INTO ${table} VALUES (${[id, ...everyType.map((column) => literal(column, nulls))].join(", ")})`,
    );
  }
  for (let round = 0; round < 60; round++) {
    const changed = everyType
      .filter(() => random.below(8) === 0)
      .map((column) => `${column.name}=${literal(column, 5)}`);
    const key = random.below(6) === 0 ? [`id=id+1000`] : [];
    await server.run(
      `UPDATE IGNORE ${table} SET ${[...changed, ...key, "c0=c0"].join(", ")} WHERE id=${1 + random.below(60)}`,
    );
  }
  await server.run(`DELETE FROM ${table} WHERE id % 7 = 0`);
}

function comparable(value: Value | undefined): Value | undefined {
  return typeof value === "object" && value !== null && "json" in value
    ? { json: plainJson(value.json) }
    : value;
}

for (const kind of serverKinds.filter(({ hasGtids }) => hasGtids))
  describe(kind.name, () => {
    const compresses = kind.flavour === "mariadb";
    const everyType = everyTypeOf(kind);
    before(async () => {
      server = await DecodeServer.start(kind);
    });
    after(() => server.stop());

    for (const metadata of kind.rowMetadata) {
      test(`decodes every type to what SELECT shows, with row metadata ${metadata}`, async () => {
        const table = `every_${metadata.toLowerCase()}`;
        await server.run(
          `SET GLOBAL binlog_row_metadata=${metadata}`,
          compresses ? `SET GLOBAL log_bin_compress=${metadata === "MINIMAL" ? 1 : 0}` : "DO 0",
        );
        await fillEveryType(table, everyType);
        const found = await server.decoded(table, ["id", ...everyType.map(({ name }) => name)]);
        if (metadata === "MINIMAL" && compresses) {
          assert.ok(
            found.events.some(({ type }) => type >= 166),
            "no compressed rows event was met",
          );
        }
        const state = replay(found);
        const selected = everyType.map(({ name, select }) => `${select.replace("?", name)} AS ${name}`);
        const rows = await server.run(`SELECT id, ${selected.join(", ")} FROM decode.${table} ORDER BY id`);
        assert.ok(rows.length > 20);
        assert.equal(state.size, rows.length);
        for (const row of rows) {
          const ours = state.get(String(Number(row["id"])));
          everyType.forEach((column, index) => {
            const shown = shownText(row[column.name]);
            const expected = shown === null ? null : column.value(shown);
            assert.deepEqual(
              comparable(ours?.[index + 1]),
              expected,
              `${column.definition} of row ${String(Number(row["id"]))}, seed ${seed}`,
            );
          });
        }
        for (const event of found.events) {
          assert.ok(found.plan !== null);
          assert.ok(countRows(found.plan, event.type, event.body) >= 1);
        }
        assert.ok((found.oddities.get("zero_date") ?? 0) > 0);
      });
    }
  });
