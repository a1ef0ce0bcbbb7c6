import assert from "node:assert/strict";
import { test } from "node:test";
import { FollowedNames, readStatement, type Statement } from "../../agent/source/statement.ts";

const names = new FollowedNames("magento_db", ["m2_sales_order", "m2_customer_entity"]);

function read(text: string, schema = "magento_db", plainBackslash = false): Statement {
  return readStatement({ text, schema, plainBackslash }, names);
}

function effects(text: string, schema?: string): string {
  const statement = read(text, schema);
  if (statement.kind !== "tables") return statement.kind;
  return statement.effects.map(({ table, what }) => `${table} ${what}`).join(", ");
}

const cases: readonly (readonly [statement: string, effects: string])[] = [
  ["TRUNCATE TABLE m2_sales_order", "0 reset"],
  ["truncate `magento_db`.`m2_sales_order`", "0 reset"],
  ["TRUNCATE other.m2_sales_order", "other"],
  [
    "/* a */ -- b\n # c\n DROP /*!40000 TABLE */ IF EXISTS x, `m2_sales_order` /* made by server */",
    "0 reset",
  ],
  ["DROP TEMPORARY TABLE m2_sales_order", "other"],
  ['DROP TABLE `not``m2_sales_order`, "m2_customer_entity"', "1 reset"],
  ["DROP VIEW m2_sales_order", "other"],
  ["DROP DATABASE IF EXISTS `Magento_DB`", "0 reset, 1 reset"],
  ["DROP SCHEMA other", "other"],
  ["RENAME TABLE m2_sales_order TO old, new TO m2_sales_order", "0 reset"],
  ["RENAME TABLE a WAIT 5 TO b, x TO magento_db.m2_customer_entity", "1 reset"],
  ["CREATE TABLE m2_sales_order (a varchar(3) DEFAULT 'm2_customer_entity')", "0 reset"],
  ["CREATE TABLE IF NOT EXISTS m2_sales_order (a int)", "0 altered"],
  ["CREATE OR REPLACE TABLE m2_sales_order (a int)", "0 reset"],
  ["CREATE TEMPORARY TABLE m2_sales_order (a int)", "other"],
  ["CREATE TABLE copy LIKE m2_sales_order", "other"],
  ["CREATE INDEX x ON m2_sales_order (a)", "other"],
  ["CREATE TRIGGER t AFTER INSERT ON m2_sales_order FOR EACH ROW DELETE FROM m2_customer_entity", "other"],
  ["ALTER TABLE m2_sales_order ADD COLUMN c int COMMENT ', RENAME TO x', RENAME COLUMN a TO b", "0 altered"],
  ["ALTER ONLINE IGNORE TABLE m2_sales_order DROP COLUMN c", "0 altered"],
  ["ALTER TABLE x ADD c enum('it\\'s', 'RENAME TO y'), RENAME TO m2_customer_entity", "1 reset"],
  ["ALTER TABLE m2_sales_order RENAME AS other.x", "0 reset"],
  ["ALTER TABLE m2_sales_order RENAME x", "0 reset"],
  ["ALTER TABLE m2_sales_order RENAME INDEX a TO b, RENAME KEY c TO d", "0 altered"],
  ["ALTER TABLE m2_sales_order TRUNCATE PARTITION p0", "0 reset"],
  ["ALTER TABLE x EXCHANGE PARTITION p WITH TABLE m2_customer_entity", "1 reset"],
  ["ALTER TABLE m2_sales_order DISCARD TABLESPACE", "0 reset"],
  ["ALTER DATABASE magento_db CHARACTER SET utf8mb4", "other"],
  ["OPTIMIZE TABLE m2_sales_order", "other"],
  ["GRANT SELECT ON m2_sales_order TO x", "other"],
  ["", "other"],
  ["# Dummy event replacing event type 160 that slave cannot handle.", "other"],
];

for (const [statement, expected] of cases) {
  test(`"${statement}" means ${expected}`, () => assert.equal(effects(statement), expected));
}

test("resolves names without schema in the statement's default schema", () => {
  assert.equal(effects("TRUNCATE m2_sales_order", "other"), "other");
  assert.equal(effects("TRUNCATE magento_db.m2_sales_order", "other"), "0 reset");
});

test("does not take a backslash for an escape under NO_BACKSLASH_ESCAPES", () => {
  const text = "ALTER TABLE x ADD c varchar(3) DEFAULT '\\', RENAME TO m2_sales_order";
  assert.equal(read(text).kind, "other");
  assert.equal(read(text, "magento_db", true).kind, "tables");
});

test("keeps verbs and tables of a statement, and nothing of its literals", () => {
  const statement = read("ALTER TABLE m2_sales_order ADD c varchar(9) DEFAULT 'secret' COMMENT 'secret'");
  assert.ok(statement.kind === "tables");
  assert.equal(statement.text, "ALTER TABLE m2_sales_order");
});

test("tells savepoints, their end and transactions apart, whatever the quotes", () => {
  assert.deepEqual(read("SAVEPOINT `A b`"), { kind: "savepoint", name: "a b" });
  assert.deepEqual(read("SAVEPOINT sp1"), { kind: "savepoint", name: "sp1" });
  assert.deepEqual(read("ROLLBACK TO `x``y`"), { kind: "rollbackTo", name: "x`y" });
  assert.deepEqual(read("ROLLBACK WORK TO SAVEPOINT x"), { kind: "rollbackTo", name: "x" });
  assert.deepEqual(read("ROLLBACK"), { kind: "rollback" });
  assert.deepEqual(read("XA START X'61',X'',1"), { kind: "xaStart" });
  assert.deepEqual(read("XA END X'61',X'',1"), { kind: "xaEnd" });
  assert.deepEqual(read("XA ROLLBACK X'61',X'',1"), { kind: "xaDecision" });
});

const changes: readonly (readonly [statement: string, schema: string, touches: boolean])[] = [
  ["INSERT INTO m2_sales_order VALUES (1)", "magento_db", true],
  ["INSERT INTO log SELECT * FROM `m2_sales_order`", "magento_db", true],
  ["INSERT INTO log VALUES ('m2_sales_order')", "magento_db", false],
  ["UPDATE x JOIN magento_db.m2_sales_order USING (a) SET b = 1", "other", true],
  ["DELETE FROM m2_sales_order", "other", false],
  ["DELETE FROM `magento_db`.`catalog_product_index_price_tmp`", "", false],
  ["(SELECT f())", "magento_db", false],
  ["SELECT `magento_db`.`f`()", "other", true],
  ["LOAD DATA INFILE 'x' INTO TABLE m2_customer_entity", "magento_db", true],
  ["WITH a AS (SELECT 1) UPDATE m2_customer_entity SET b = 1", "magento_db", true],
];

for (const [statement, schema, touches] of changes) {
  test(`"${statement}" in ${schema || "no schema"} ${touches ? "can touch" : "does not touch"} a followed table`, () => {
    const read_ = read(statement, schema);
    assert.ok(read_.kind === "change");
    assert.equal(read_.touches, touches);
  });
}
