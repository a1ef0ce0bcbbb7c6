/**
 * Single random statements on one table. Each is text only; whoever runs it decides about
 * transactions and takes the errors that a shop would see too (duplicate keys, deadlocks).
 */
import type { Random } from "./random.ts";
import { keyLiteral, randomLiteral, type ColumnShape, type TableShape } from "./dml-values.ts";

function isKey(shape: TableShape, column: ColumnShape): boolean {
  return column.name === shape.primaryKey || shape.unique.includes(column.name);
}

function columnNamed(shape: TableShape, name: string): ColumnShape {
  const found = shape.columns.find((column) => column.name === name);
  if (found === undefined) throw new Error(`${shape.table} has no column ${name}`);
  return found;
}

export function primaryKeyOf(random: Random, shape: TableShape): string {
  // Once in a while the last number that the column can hold.
  return random.chance(0.004) ? "4294967295" : keyLiteral(random, columnNamed(shape, shape.primaryKey));
}

function someColumns(random: Random, shape: TableShape, most: number): ColumnShape[] {
  const plain = shape.columns.filter((column) => !isKey(shape, column));
  return random.shuffled(plain).slice(0, random.int(1, Math.min(most, plain.length)));
}

interface Row {
  readonly names: readonly string[];
  readonly literals: readonly string[];
}

/** Columns that cannot be left to their default, all keys, and some of the rest. */
function randomRow(
  random: Random,
  shape: TableShape,
  columns: readonly ColumnShape[],
  withKey: boolean,
): Row {
  const names: string[] = [];
  const literals: string[] = [];
  for (const column of columns) {
    if (column.name === shape.primaryKey && !withKey) continue;
    names.push(`\`${column.name}\``);
    if (column.name === shape.primaryKey) literals.push(primaryKeyOf(random, shape));
    else if (isKey(shape, column))
      literals.push(column.nullable && random.chance(0.2) ? "NULL" : keyLiteral(random, column));
    else literals.push(randomLiteral(random, column));
  }
  return { names, literals };
}

function values(random: Random, shape: TableShape, rows: number, withKey = true): string {
  const wide = random.chance(0.3);
  const columns = shape.columns.filter(
    (column) =>
      isKey(shape, column) || (!column.nullable && random.chance(0.8)) || (wide ? true : random.chance(0.35)),
  );
  const made = Array.from({ length: rows }, () => randomRow(random, shape, columns, withKey));
  const names = made[0]?.names.join(", ") ?? "";
  return `(${names}) VALUES ${made.map((row) => `(${row.literals.join(", ")})`).join(", ")}`;
}

/** INSERT of some rows; one duplicate key takes the whole statement back. */
export function insertSql(random: Random, shape: TableShape): string {
  const ignore = random.chance(0.5) ? "IGNORE " : "";
  return `INSERT ${ignore}INTO ${shape.sql} ${values(random, shape, random.int(1, 6), random.chance(0.9))}`;
}

/** INSERT ... ON DUPLICATE KEY UPDATE: writes and updates, and rows that do not change, in one statement. */
export function upsertSql(random: Random, shape: TableShape): string {
  const assigned = someColumns(random, shape, 4).map((column) =>
    random.chance(0.5)
      ? `\`${column.name}\` = VALUES(\`${column.name}\`)`
      : `\`${column.name}\` = ${randomLiteral(random, column)}`,
  );
  const body = values(random, shape, random.int(1, 8));
  return `INSERT INTO ${shape.sql} ${body} ON DUPLICATE KEY UPDATE ${assigned.join(", ")}`;
}

/** REPLACE: without a primary key it meets its row through the second unique key and changes the primary. */
export function replaceSql(random: Random, shape: TableShape): string {
  const withKey = shape.unique.length === 0 || random.chance(0.5);
  return `REPLACE INTO ${shape.sql} ${values(random, shape, random.int(1, 3), withKey)}`;
}

function someRows(random: Random, shape: TableShape): string {
  const key = `\`${shape.primaryKey}\``;
  const roll = random.next();
  if (roll < 0.5) return `WHERE ${key} = ${primaryKeyOf(random, shape)}`;
  if (roll < 0.8)
    return `WHERE ${key} >= ${primaryKeyOf(random, shape)} ORDER BY ${key} LIMIT ${random.int(1, 12)}`;
  const list = Array.from({ length: random.int(2, 8) }, () => primaryKeyOf(random, shape));
  return `WHERE ${key} IN (${list.join(", ")})`;
}

/** UPDATE of plain columns, also of those that no event shows. */
export function updateSql(random: Random, shape: TableShape): string {
  const assigned = someColumns(random, shape, 5).map(
    (column) => `\`${column.name}\` = ${randomLiteral(random, column)}`,
  );
  return `UPDATE ${shape.sql} SET ${assigned.join(", ")} ${someRows(random, shape)}`;
}

/** UPDATE of columns that nobody mapped: it must give no event. */
export function unmappedUpdateSql(random: Random, shape: TableShape): string {
  const hidden = shape.columns.filter((column) => !shape.mapped.has(column.name) && !isKey(shape, column));
  if (hidden.length === 0) return updateSql(random, shape);
  const column = random.pick(hidden);
  return `UPDATE ${shape.sql} SET \`${column.name}\` = ${randomLiteral(random, column)} ${someRows(random, shape)}`;
}

/** UPDATE that changes nothing. */
export function idleUpdateSql(random: Random, shape: TableShape): string {
  const column = random.pick(someColumns(random, shape, 1));
  return `UPDATE ${shape.sql} SET \`${column.name}\` = \`${column.name}\` ${someRows(random, shape)}`;
}

/** UPDATE of the primary key or of a column of the second unique key, business keys among them. */
export function keyChangeSql(random: Random, shape: TableShape): string {
  const name = random.pick([shape.primaryKey, ...shape.unique, ...shape.unique]);
  const column = columnNamed(shape, name);
  const literal = name === shape.primaryKey ? primaryKeyOf(random, shape) : keyLiteral(random, column);
  return `UPDATE IGNORE ${shape.sql} SET \`${name}\` = ${literal} WHERE \`${shape.primaryKey}\` = ${primaryKeyOf(random, shape)}`;
}

/** Every row's primary key moves by one, in an order that meets no duplicate. */
export function shiftKeysSql(random: Random, shape: TableShape): string {
  const key = `\`${shape.primaryKey}\``;
  return `UPDATE ${shape.sql} SET ${key} = ${key} + 1 WHERE ${key} BETWEEN ${random.int(1, 300)} AND 390 ORDER BY ${key} DESC LIMIT ${random.int(2, 9)}`;
}

export function deleteSql(random: Random, shape: TableShape): string {
  return `DELETE FROM ${shape.sql} ${someRows(random, shape)}`;
}

/** Deletes a row and inserts another with the same key: two statements for one transaction. */
export function deleteInsertSql(random: Random, shape: TableShape): readonly string[] {
  const key = primaryKeyOf(random, shape);
  return [
    `DELETE FROM ${shape.sql} WHERE \`${shape.primaryKey}\` = ${key}`,
    `INSERT IGNORE INTO ${shape.sql} ${sameKey(random, shape, key)}`,
  ];
}

/** Inserts a row, changes it and deletes it again: three statements that leave nothing. */
export function insertDeleteSql(random: Random, shape: TableShape): readonly string[] {
  const key = String(random.int(5_000_000, 5_000_900));
  const column = random.pick(someColumns(random, shape, 1));
  const where = `WHERE \`${shape.primaryKey}\` = ${key}`;
  return [
    `INSERT IGNORE INTO ${shape.sql} ${sameKey(random, shape, key)}`,
    `UPDATE ${shape.sql} SET \`${column.name}\` = ${randomLiteral(random, column)} ${where}`,
    `DELETE FROM ${shape.sql} ${where}`,
  ];
}

function sameKey(random: Random, shape: TableShape, key: string): string {
  const row = randomRow(random, shape, shape.columns, true);
  const at = row.names.indexOf(`\`${shape.primaryKey}\``);
  const literals = row.literals.map((literal, index) => (index === at ? key : literal));
  return `(${row.names.join(", ")}) VALUES (${literals.join(", ")})`;
}
