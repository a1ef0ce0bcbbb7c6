/**
 * Random column values for Magento's tables: mostly plain, often at the edge of the type. Values are
 * given as SQL literals, so that the server's own parser decides what is stored.
 */
import type { Connection, RowDataPacket } from "mysql2/promise";
import type { Random } from "./random.ts";

export interface ColumnShape {
  readonly name: string;
  readonly dataType: string;
  readonly unsigned: boolean;
  readonly nullable: boolean;
  /** Characters for text types. */
  readonly length: number;
  readonly precision: number;
  readonly scale: number;
}

export interface TableShape {
  readonly table: string;
  readonly sql: string;
  readonly primaryKey: string;
  /** Columns of the second unique key, where the table has one. */
  readonly unique: readonly string[];
  readonly columns: readonly ColumnShape[];
  readonly mapped: ReadonlySet<string>;
}

/** Columns as information_schema has them, in table order. */
export async function readColumns(
  connection: Connection,
  database: string,
  table: string,
): Promise<readonly ColumnShape[]> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT COLUMN_NAME name, DATA_TYPE type, COLUMN_TYPE full, IS_NULLABLE nullable,
       CHARACTER_MAXIMUM_LENGTH length, NUMERIC_PRECISION prec, NUMERIC_SCALE scale
     FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION`,
    [database, table],
  );
  if (rows.length === 0) throw new Error(`table ${database}.${table} does not exist`);
  return rows.map((row) => ({
    name: String(row["name"]),
    dataType: String(row["type"]),
    unsigned: String(row["full"]).includes("unsigned"),
    nullable: row["nullable"] === "YES",
    length: Number(row["length"] ?? 0),
    precision: Number(row["prec"] ?? 0),
    scale: Number(row["scale"] ?? 0),
  }));
}

const integerBits: Readonly<Record<string, number>> = {
  tinyint: 8,
  smallint: 16,
  mediumint: 24,
  int: 32,
  bigint: 64,
};

const awkwardTexts: readonly string[] = [
  "",
  " ",
  "null",
  'O\'Brien "quoted" `ticked`',
  "back\\slash \\n \\0",
  "line\nbreak\r\ntab\t",
  "nul\0inside",
  "\u0001\u0007\u001f\u007f",
  "Zoë e\u0301 \u0061\u0308\u0323",
  "😀👩‍👩‍👧 𝒳𠜎",
  "שלום مرحبا \u202Eabc",
  "\uFEFFbom \u2028\u2029 \uFFFD",
  "</script>&amp;<b>",
  "%25:%3A:100%",
  "日本語テキスト",
  "trailing space ",
];

function quoted(text: string): string {
  return `CONVERT(X'${Buffer.from(text, "utf8").toString("hex")}' USING utf8mb4)`;
}

/** At most `length` characters, never half of a surrogate pair. */
function clip(text: string, length: number): string {
  return Array.from(text).slice(0, length).join("");
}

function textLiteral(random: Random, column: ColumnShape): string {
  const longest = Math.min(column.length, 3000);
  const roll = random.next();
  if (roll < 0.55) return quoted(clip(`w${random.int(0, 1e9).toString(36)}`, longest));
  if (roll < 0.9) return quoted(clip(random.pick(awkwardTexts), longest));
  const unit = random.pick(["x", "é", "€", "😀"]);
  return quoted(
    unit.repeat(random.int(Math.min(200, longest), Math.min(longest, random.chance(0.1) ? 3000 : 600))),
  );
}

function integerLiteral(random: Random, column: ColumnShape): string {
  const bits = BigInt(integerBits[column.dataType] ?? 32);
  const most = column.unsigned ? (1n << bits) - 1n : (1n << (bits - 1n)) - 1n;
  const least = column.unsigned ? 0n : -(1n << (bits - 1n));
  const roll = random.next();
  if (roll < 0.08) return String(most);
  if (roll < 0.16) return String(least);
  if (roll < 0.24) return "0";
  return String(random.int(0, 120));
}

function decimalLiteral(random: Random, column: ColumnShape): string {
  const nines = `${"9".repeat(column.precision - column.scale)}.${"9".repeat(column.scale)}`;
  const roll = random.next();
  if (roll < 0.06) return nines;
  if (roll < 0.12) return `-${nines}`;
  if (roll < 0.18) return `-0.${"0".repeat(column.scale - 1)}1`;
  if (roll < 0.24) return "0";
  return (random.int(-99_999_999, 99_999_999) / 10_000).toFixed(4);
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

function timeLiteral(random: Random, dataType: string): string {
  const clock = `${two(random.int(0, 23))}:${two(random.int(0, 59))}:${two(random.int(0, 59))}`;
  const edges: Readonly<Record<string, readonly string[]>> = {
    date: ["0000-00-00", "1000-01-01", "9999-12-31", "2024-00-00", "2024-05-00", "2024-02-29"],
    datetime: ["0000-00-00 00:00:00", "1000-01-01 00:00:00", "9999-12-31 23:59:59", "2024-00-07 01:02:03"],
    timestamp: ["0000-00-00 00:00:00", "1970-01-02 12:00:01", "2038-01-18 03:14:07", "2024-02-29 23:59:59"],
  };
  if (random.chance(0.2)) return `'${random.pick(edges[dataType] ?? [])}'`;
  const day = `${random.int(1975, 2035)}-${two(random.int(1, 12))}-${two(random.int(1, 28))}`;
  return dataType === "date" ? `'${day}'` : `'${day} ${clock}'`;
}

/** A literal that the column takes with sql_mode=''. */
export function randomLiteral(random: Random, column: ColumnShape): string {
  if (column.nullable && random.chance(0.18)) return "NULL";
  switch (column.dataType) {
    case "date":
    case "datetime":
    case "timestamp":
      return timeLiteral(random, column.dataType);
    case "decimal":
      return decimalLiteral(random, column);
    default:
      return column.dataType in integerBits ? integerLiteral(random, column) : textLiteral(random, column);
  }
}

/** A literal for a key column: few values, so that statements meet each other's rows. */
export function keyLiteral(random: Random, column: ColumnShape): string {
  if (column.dataType in integerBits) return String(random.int(1, column.dataType === "smallint" ? 5 : 400));
  const stem = random.pick(["SKU", "sku", "src", "Käse", "a:b%c", "😀", "it's"]);
  return quoted(clip(`${stem}-${random.int(1, 60)}`, column.length));
}
