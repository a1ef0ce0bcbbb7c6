/** Corners of the decoder against a real MariaDB: character sets, old formats, drift, refusals. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import type { Value } from "../../../agent/change.ts";
import { decodeRows } from "../../../agent/source/decode/rows.ts";
import { parseTableMap } from "../../../agent/source/decode/table-map.ts";
import { compileTablePlan, needsSchema } from "../../../agent/source/decode/table-plan.ts";
import { AgentError } from "../../../agent/kernel/errors.ts";
import { type DecodedTable, decodeTable, type RawEvent } from "./binlog-file.ts";
import { DecodeServer, shownText } from "./decode-server.ts";
import { everyType } from "./every-type.ts";
import { Random } from "./random.ts";
import { libraryDecoder } from "./library.mjs";

const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);
let server: DecodeServer;

before(async () => {
  server = await DecodeServer.start();
});
after(() => server.stop());

const quietSink = { row: () => undefined, oddity: () => undefined };
const rowsOf = (found: DecodedTable): (readonly (Value | undefined)[])[] => found.rows.map(({ row }) => row);
const isCode = (code: string) => (error: unknown) => error instanceof AgentError && error.code === code;

test("reads every byte of every single-byte character set as the server converts it", async () => {
  const shown = await server.run(
    "SELECT CHARACTER_SET_NAME AS name FROM information_schema.CHARACTER_SETS WHERE MAXLEN=1 AND CHARACTER_SET_NAME<>'binary'",
  );
  const sets = shown.map(({ name }) => shownText(name) ?? "");
  assert.ok(sets.length >= 25);
  await server.run(
    `CREATE TABLE single_byte (id int PRIMARY KEY, ${sets.map((set) => `${set} varchar(4) CHARACTER SET ${set}`).join(", ")})`,
  );
  for (let byte = 0; byte < 256; byte += 1) {
    const literal = `x'${byte.toString(16).padStart(2, "0")}'`;
    await server.run(`INSERT INTO single_byte VALUES (${byte}, ${sets.map(() => literal).join(", ")})`);
  }
  const rows = await server.run(
    `SELECT id, ${sets.map((set) => `HEX(CONVERT(${set} USING utf8mb4)) AS ${set}`).join(", ")} FROM single_byte ORDER BY id`,
  );
  const ours = rowsOf(await server.decoded("single_byte", ["id", ...sets]));
  for (const [byte, row] of rows.entries()) {
    for (const [index, set] of sets.entries()) {
      const expected = Buffer.from(shownText(row[set]) ?? "", "hex").toString("utf8");
      const value = ours[byte]?.[index + 1];
      if (typeof value === "object" && value !== null && "base64" in value) {
        // The server shows a mark for bytes that its set does not know; nothing is lost here.
        assert.ok(expected === "?" || expected === "\uFFFD", `${set} ${byte}`);
        assert.equal(value.base64, Buffer.from([byte]).toString("base64"));
      } else {
        assert.equal(value, expected, `${set} ${byte}`);
      }
    }
  }
});

test("keeps text bytes that are not valid in their character set, and counts them", async () => {
  await server.run(
    "CREATE TABLE invalid (id int PRIMARY KEY, a varchar(20) CHARACTER SET latin1, b text CHARACTER SET latin1)",
    "INSERT INTO invalid VALUES (1, x'61ff62', x'e282')",
    "ALTER TABLE invalid MODIFY a varbinary(20), MODIFY b blob",
    // No conversion and no check: only the table's definition changes under the bytes.
    "CREATE TABLE forced (id int PRIMARY KEY, a varchar(20) CHARACTER SET ucs2, u varchar(20) CHARACTER SET utf8mb4)",
    "INSERT INTO forced VALUES (1, x'D800', 'ok')",
  );
  const found = await server.decoded("forced", ["id", "a", "u"]);
  assert.deepEqual(rowsOf(found), [[1, { text: "\uFFFD", base64: "2AA=" }, "ok"]]);
  assert.equal(found.oddities.get("invalid_text"), 1);
  // The same bytes under a table map that says utf8mb4: as a server that does not check wrote them.
  const [event] = (await server.decoded("invalid", ["id", "a", "b"])).events;
  const maps = server.events().filter(({ type, body }) => type === 19 && body.includes("invalid\0"));
  assert.ok(event !== undefined && maps[0] !== undefined);
  const map = parseTableMap(maps[0].body);
  const asUtf8 = {
    ...map,
    columns: map.columns.map((column) => (column.collation === null ? column : { ...column, collation: 45 })),
  };
  const plan = compileTablePlan(asUtf8, { table: "invalid", columns: ["a", "b"], keyColumns: [] }, 0, null);
  const rows: unknown[] = [];
  const oddities: string[] = [];
  decodeRows(plan, event.type, event.body, {
    row: (_kind, row) => rows.push(row),
    oddity: (what, table) => oddities.push(`${what} ${table}`),
  });
  assert.deepEqual(rows, [
    [
      { text: "a\uFFFDb", base64: Buffer.from("61ff62", "hex").toString("base64") },
      { text: "\uFFFD", base64: Buffer.from("e282", "hex").toString("base64") },
    ],
  ]);
  assert.deepEqual(oddities, ["invalid_text invalid", "invalid_text invalid"]);
});

test("reads MariaDB 5.3's temporal formats by the schema, and refuses them without it", async () => {
  const kinds = ["time", "datetime", "timestamp"].flatMap((kind) =>
    [0, 1, 2, 3, 4, 5, 6].map((digits) => ({ kind, digits })),
  );
  const columns = kinds.map(({ kind, digits }) => `${kind}${digits}`);
  const random = new Random(seed);
  await server.run(
    "SET GLOBAL mysql56_temporal_format=OFF",
    `CREATE TABLE hires (id int PRIMARY KEY, ${kinds.map(({ kind, digits }) => `${kind}${digits} ${kind}(${digits}) NULL`).join(", ")}, tail varchar(9))`,
    "SET GLOBAL mysql56_temporal_format=ON",
  );
  for (let id = 0; id < 20; id++) {
    const values = kinds.map(({ kind, digits }) => {
      const fraction = digits === 0 ? "" : `.${random.digits(digits)}`;
      if (kind === "time")
        return `'${random.pick(["", "-"])}${random.below(838)}:12:${10 + random.below(49)}${fraction}'`;
      return `'${2000 + random.below(37)}-12-${10 + random.below(20)} 23:01:${10 + random.below(49)}${fraction}'`;
    });
    await server.run(`INSERT INTO hires VALUES (${id}, ${values.join(", ")}, 'tail')`);
  }
  const rows = await server.run(
    `SELECT ${columns.map((name) => `CAST(${name} AS CHAR) AS ${name}`).join(", ")} FROM hires ORDER BY id`,
  );
  const found = await server.decoded("hires", [...columns, "tail"]);
  const expected = rows.map((row) => [
    ...columns.map((name) => {
      const shown = shownText(row[name]) ?? "";
      return name.startsWith("time") && !name.startsWith("timestamp") ? shown : `${shown.replace(" ", "T")}Z`;
    }),
    "tail",
  ]);
  assert.deepEqual(rowsOf(found), expected);
  assert.ok(found.map !== null && needsSchema(found.map));
  const { map } = found;
  assert.throws(
    () => compileTablePlan(map, { table: "hires", columns, keyColumns: [] }, 0, null),
    isCode("SCHEMA_UNKNOWN"),
  );
});

test("agrees with the library's decoder on every type that it reads right", async () => {
  const random = new Random(seed);
  // A GEOMETRY column shifts the collations of all later text columns there on MariaDB.
  const readRight = everyType.filter(({ definition }) => !definition.startsWith("geometry"));
  const columns = readRight.map(({ name, definition }) => `${name} ${definition}`);
  await server.run(`CREATE TABLE library (id int unsigned NOT NULL PRIMARY KEY, ${columns.join(", ")})`);
  for (let id = 1; id <= 40; id++) {
    const values = readRight.map((column) => (random.below(6) === 0 ? "NULL" : column.literal(random)));
    await server.run(`INSERT INTO library VALUES (${id}, ${values.join(", ")})`);
  }
  const library = libraryDecoder();
  const theirs = server.events().flatMap((event) => {
    if (event.type === 19 && event.body.includes("library\0")) library.tableMap(event.body);
    return event.type === 23 ? [event] : [];
  });
  const found = await server.decoded("library", ["id", ...readRight.map(({ name }) => name)]);
  const known = found.events.flatMap(({ type, body }) => library.rows(type, body));
  assert.equal(found.rows.length, 40);
  assert.equal(known.length, 40);
  assert.ok(theirs.length >= 40);
  let compared = 0;
  for (const [at, { row }] of found.rows.entries()) {
    for (const [index, { name, definition }] of readRight.entries()) {
      const value = row[index + 1] ?? null;
      const other = sameForm(known[at]?.[name] ?? null, definition);
      if (other === undefined) continue;
      compared++;
      assert.deepEqual(value, other, `${definition}, row ${at}, seed ${seed}`);
    }
  }
  assert.ok(compared > 3000, `${compared} values compared`);
});

/**
 * The library's value in our form; undefined where the two differ on purpose or it is wrong
 * (version 0.9.0): ENUM index 0 is undefined there, YEAR 0 is 1900, addresses and UUIDs are bytes
 * with FULL metadata, FLOAT is the raw double, negative TIME with whole seconds is "-00:57:64".
 */
function sameForm(value: unknown, definition: string): unknown {
  const type = definition.split(/[ (]/)[0] ?? "";
  if (value === null) return type === "enum" ? undefined : null;
  if (/^(inet4|inet6|uuid|year|float)$/.test(type)) return undefined;
  if (type === "enum") return value;
  if (type === "bigint") return shownText(value);
  if (type === "time" && String(shownText(value)).startsWith("-")) return undefined;
  if (/blob|binary/.test(type) && Buffer.isBuffer(value)) return value.toString("base64");
  if (type === "bit" && Buffer.isBuffer(value)) {
    const big = BigInt(`0x${value.toString("hex")}`);
    return /\((54|64)\)/.test(definition) ? big.toString() : Number(big);
  }
  if (typeof value === "string" && /^(datetime|timestamp|date)$/.test(type)) {
    if (/^\d+-00|^\d+-\d+-00|Invalid|^0000-00/.test(value)) return null;
    return type === "date" ? value : `${value.replace(" ", "T")}Z`;
  }
  return value;
}

test("unescapes ENUM members alike from the stream and from the schema", async () => {
  const members = ["a,b", "it''s", "back\\\\slash", "new\\nline", "(x)", "ü", 'q"'];
  await server.run(
    "SET GLOBAL binlog_row_metadata=NO_LOG",
    `CREATE TABLE unescaped (id int PRIMARY KEY, e enum(${members.map((member) => `'${member}'`).join(",")}) CHARACTER SET utf8mb4)`,
    ...members.map((_, index) => `INSERT INTO unescaped VALUES (${index}, ${index + 1})`),
    "SET GLOBAL binlog_row_metadata=FULL",
    ...members.map((_, index) => `INSERT INTO unescaped VALUES (${index + 10}, ${index + 1})`),
  );
  const shown = await server.run("SELECT e FROM unescaped ORDER BY id");
  const found = await server.decoded("unescaped", ["e"], []);
  assert.deepEqual(
    rowsOf(found),
    shown.map(({ e }) => [e]),
  );
});

test("never maps by ordinal when today's columns do not fit the event", async () => {
  await server.run(
    "SET GLOBAL binlog_row_metadata=MINIMAL",
    "CREATE TABLE drift (id int PRIMARY KEY, a int, b varchar(10) CHARACTER SET utf8mb4)",
    "INSERT INTO drift VALUES (1, 2, 'x')",
  );
  const found = await server.decoded("drift", ["id", "a", "b"]);
  assert.deepEqual(rowsOf(found), [[1, 2, "x"]]);
  const { map } = found;
  assert.ok(map !== null && needsSchema(map));
  const compile = async (): Promise<unknown> =>
    compileTablePlan(
      map,
      { table: "drift", columns: ["id"], keyColumns: [0] },
      0,
      await server.schemaOf("drift"),
    );
  for (const change of [
    "ADD c int",
    "MODIFY b varchar(11) CHARACTER SET utf8mb4",
    "MODIFY b varchar(10) CHARACTER SET latin1",
    "MODIFY a int unsigned",
    "MODIFY a bigint",
  ]) {
    await server.run(
      "CREATE OR REPLACE TABLE drift (id int PRIMARY KEY, a int, b varchar(10) CHARACTER SET utf8mb4)",
      `ALTER TABLE drift ${change}`,
    );
    await assert.rejects(compile, isCode("SCHEMA_UNKNOWN"), change);
  }
  assert.throws(
    () => compileTablePlan(map, { table: "drift", columns: ["id"], keyColumns: [] }, 0, null),
    isCode("SCHEMA_UNKNOWN"),
  );
  await server.run("SET GLOBAL binlog_row_metadata=FULL");
});

test("reads tables with generated, invisible and system-versioned columns", async () => {
  await server.run(
    `CREATE TABLE generated (id int PRIMARY KEY, a int, v int AS (a+1) VIRTUAL, p int AS (a+2) PERSISTENT, i int INVISIBLE DEFAULT 7, z varchar(5))
     WITH SYSTEM VERSIONING`,
    "INSERT INTO generated (id, a, z) VALUES (1, 10, 'end')",
    "UPDATE generated SET a=11 WHERE id=1",
  );
  const found = await server.decoded("generated", ["id", "a", "p", "i", "z", "nowhere"]);
  assert.deepEqual(found.plan?.missingColumns, ["nowhere"]);
  assert.deepEqual(found.rows[0]?.row, [1, 10, 12, 7, "end", undefined]);
  const update = found.rows.find(({ kind }) => kind === "update");
  assert.deepEqual(update?.row, [1, 11, 13, 7, "end", undefined]);
  assert.deepEqual(update.old, [undefined, 10, 12, undefined, undefined, undefined]);
});

test("gives the whole old row when a key column differs", async () => {
  await server.run(
    "CREATE TABLE moved (id int PRIMARY KEY, a int, b varchar(9))",
    "INSERT INTO moved VALUES (1, NULL, 'x'), (2, 5, NULL)",
    "UPDATE moved SET id=id+10 ORDER BY id DESC",
    "UPDATE moved SET a=6 WHERE id=11",
    "DELETE FROM moved WHERE id=12",
  );
  const { rows } = await server.decoded("moved", ["id", "a", "b"]);
  assert.deepEqual(rows.slice(2), [
    { kind: "update", row: [12, 5, null], old: [2, 5, null] },
    { kind: "update", row: [11, null, "x"], old: [1, null, "x"] },
    { kind: "update", row: [11, 6, "x"], old: [undefined, null, undefined] },
    { kind: "delete", row: [12, 5, null], old: null },
  ]);
});

test("refuses a row image that is not full, and names the mend", async () => {
  await server.run(
    "CREATE TABLE partial (id int PRIMARY KEY, a int, b text)",
    "SET SESSION binlog_row_image=MINIMAL",
    "INSERT INTO partial VALUES (1, 2, 'x')",
    "UPDATE partial SET a=3",
    "SET SESSION binlog_row_image=FULL",
  );
  const events: RawEvent[] = server.events();
  const from = events.findLastIndex(({ type, body }) => type === 19 && body.includes("partial\0"));
  assert.throws(
    () => decodeTable(events.slice(from), { table: "partial", columns: ["id"], keyColumns: [0] }, null),
    (error: unknown) =>
      error instanceof AgentError &&
      error.code === "SOURCE_UNREADABLE" &&
      error.message.includes("decode.partial") &&
      error.hint.includes("binlog_row_image=FULL"),
  );
});

test("throws on every truncation of real rows events, and never gives a value", async () => {
  await server.run(
    "CREATE TABLE cut (id int PRIMARY KEY, a varchar(300), b decimal(20,4), c datetime(3), d mediumblob, e bit(9), f json, g set('x','y'))",
    "INSERT INTO cut VALUES (1, 'text', -1.5, '2026-11-23 20:33:06.123', 'blob', 5, '{}', 'y')",
    "UPDATE cut SET a='other', d=NULL",
    "SET GLOBAL log_bin_compress=1, GLOBAL log_bin_compress_min_len=10",
    `UPDATE cut SET a=REPEAT('long', 70)`,
    "SET GLOBAL log_bin_compress=0",
  );
  const { plan, events } = await server.decoded("cut", ["id", "a", "b", "c", "d", "e", "f", "g"]);
  assert.ok(plan !== null && events.length === 3 && events.some(({ type }) => type >= 166));
  for (const { type, body } of events) {
    for (let length = 0; length < body.length; length++) {
      const rows: unknown[] = [];
      assert.throws(
        () =>
          decodeRows(plan, type, body.subarray(0, length), {
            ...quietSink,
            row: (...given) => rows.push(given),
          }),
        isCode("SOURCE_UNREADABLE"),
        `type ${type} cut to ${length} of ${body.length} bytes`,
      );
      assert.deepEqual(rows, []);
    }
    const longer = Buffer.concat([body, Buffer.from([0])]);
    assert.throws(() => decodeRows(plan, type, longer, quietSink), isCode("SOURCE_UNREADABLE"));
    assert.equal(decodeRows(plan, type, body, quietSink), 1);
  }
});

test("fits every table of Magento to its schema without metadata in the stream", async () => {
  await server.loadMagento();
  await server.run("SET GLOBAL binlog_row_metadata=NO_LOG", "SET foreign_key_checks=0");
  const shown = await server.run(
    "SELECT TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_SCHEMA='decode'",
  );
  const tables = shown
    .map(({ name }) => shownText(name) ?? "")
    .filter((name) => /^(catalog|customer|sales|inventory)/.test(name));
  assert.ok(tables.includes("sales_order") && tables.length > 20);
  for (const table of tables) {
    await server.run(`INSERT IGNORE INTO ${table} () VALUES ()`);
  }
  const events = server.events();
  let rows = 0;
  for (const table of tables) {
    const columns = await server.schemaOf(table);
    const names = columns.map(({ name }) => name);
    rows += decodeTable(events, { table, columns: names, keyColumns: [] }, columns).rows.length;
  }
  assert.ok(rows >= tables.length, `${rows} rows of ${tables.length} tables`);
  await server.run("SET GLOBAL binlog_row_metadata=FULL");
});
