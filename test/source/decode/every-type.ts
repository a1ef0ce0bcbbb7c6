/** A table over every type with random and extreme values, and what the server's SELECT gives. */
import type { Value } from "../../../agent/change.ts";
import { jsonLiteral, plainJson } from "./json-documents.ts";
import type { Random } from "./random.ts";

export interface TypedColumn {
  readonly name: string;
  readonly definition: string;
  /** A SQL literal. */
  literal(random: Random): string;
  /** What to select, as text. */
  readonly select: string;
  /** The value that the selected text means. */
  value(text: string): Value;
}

interface Shape extends Omit<TypedColumn, "name"> {
  /** The servers that have it; default all. */
  readonly on?: (server: TypedServer) => boolean;
}

/** What decides which types there are. */
export interface TypedServer {
  readonly flavour: "mariadb" | "mysql";
  /** VECTOR came with MariaDB 11.7 and MySQL 9.0. */
  readonly hasVectors: boolean;
}

const onMariadb = ({ flavour }: TypedServer): boolean => flavour === "mariadb";
const onMysql = ({ flavour }: TypedServer): boolean => flavour === "mysql";

const hex = (bytes: Buffer): string => `x'${bytes.toString("hex")}'`;
const asText = (text: string): string => text;
const fromHex = (text: string): string => Buffer.from(text, "hex").toString("utf8");
const base64FromHex = (text: string): string => Buffer.from(text, "hex").toString("base64");

function integer(type: string, bits: number, unsigned: boolean): Shape {
  const low = unsigned ? 0n : -(1n << BigInt(bits - 1));
  const high = (1n << BigInt(unsigned ? bits : bits - 1)) - 1n;
  return {
    definition: `${type}${unsigned ? " unsigned" : ""}`,
    literal: (random) =>
      String(
        random.pick([
          low,
          high,
          0n,
          1n,
          low + 1n,
          high - 1n,
          (1n << 53n) % (high + 1n),
          low + (BigInt(`0x${random.bytes(8).toString("hex")}`) % (high - low + 1n)),
        ]),
      ),
    select: "CAST(? AS CHAR)",
    value: (text) => (bits === 64 ? text : Number(text)),
  };
}

function decimal(precision: number, scale: number): Shape {
  return {
    definition: `decimal(${precision},${scale})`,
    literal: (random) => {
      const sign = random.pick(["", "-"]);
      const whole = precision - scale;
      const digits = random.pick([
        () => random.digits(precision),
        () => "9".repeat(precision),
        () => "0".repeat(precision),
        () => `${"0".repeat(precision - 1)}1`,
        () => `1${"0".repeat(precision - 1)}`,
        () => "0".repeat(random.below(precision)).concat(random.digits(precision)).slice(0, precision),
      ])();
      return `${sign}${digits.slice(0, whole) || "0"}${scale > 0 ? `.${digits.slice(whole)}` : ""}`;
    },
    select: "CAST(? AS CHAR)",
    value: asText,
  };
}

const two = (value: number): string => String(value).padStart(2, "0");

function fraction(random: Random, digits: number): string {
  return digits === 0
    ? ""
    : `.${random.pick([random.digits(digits), "0".repeat(digits), "9".repeat(digits)])}`;
}

function dateTime(random: Random, digits: number, years: readonly number[]): string {
  const date = `${String(random.pick(years)).padStart(4, "0")}-${two(1 + random.below(12))}-${two(1 + random.below(28))}`;
  return `${date} ${two(random.below(24))}:${two(random.below(60))}:${two(random.below(60))}${fraction(random, digits)}`;
}

const isZero = (text: string): boolean => /^\d{4}-00|^\d{4}-\d\d-00/.test(text);
const rfc3339 = (text: string): Value => (isZero(text) ? null : `${text.replace(" ", "T")}Z`);
const precision = (digits: number): string => (digits === 0 ? "" : `(${digits})`);

function temporal(digits: number): Shape[] {
  return [
    {
      definition: `datetime${precision(digits)}`,
      literal: (random) =>
        `'${random.pick([dateTime(random, digits, [1000, 1970, 2024, 2026, 9999, 1]), "0000-00-00 00:00:00", "2026-00-10 01:02:03", "2026-05-00 00:00:00", "2024-02-29 23:59:59"])}'`,
      select: "CAST(? AS CHAR)",
      value: rfc3339,
    },
    {
      definition: `timestamp${precision(digits)}`,
      literal: (random) =>
        `'${random.pick([dateTime(random, digits, [1971, 2000, 2026, 2037]), "0000-00-00 00:00:00", "1970-01-01 00:00:01", "2038-01-19 03:14:07"])}'`,
      select: "CAST(? AS CHAR)",
      value: rfc3339,
    },
    {
      definition: `time${precision(digits)}`,
      literal: (random) =>
        `'${random.pick(["", "-"])}${random.pick([two(random.below(24)), String(random.below(839)), "00"])}:${two(random.below(60))}:${two(random.below(60))}${fraction(random, digits)}'`,
      select: "CAST(? AS CHAR)",
      value: asText,
    },
  ];
}

const words = [
  "",
  "a",
  "Grüße",
  "naïve",
  "日本語",
  "€",
  "🛒",
  "it's",
  'quo"te',
  "tab\tand\nline",
  "\u0000\u0001",
  "\uFFFD",
  "ascii only text of some length",
  "x".repeat(64),
  "ü".repeat(40),
];

/** Text in a character set, from words that it knows. */
function textColumn(type: string, charset: string, known: RegExp): Shape {
  const usable = words.filter((word) => known.test(word));
  return {
    definition: `${type} CHARACTER SET ${charset}`,
    literal: (random) => `CONVERT(${hex(Buffer.from(random.pick(usable)))} USING utf8mb4)`,
    select: "HEX(CONVERT(? USING utf8mb4))",
    value: fromHex,
  };
}

function binary(type: string, limit: number): Shape {
  return {
    definition: type,
    literal: (random) =>
      hex(
        random.pick([
          random.bytes(random.below(limit + 1)),
          Buffer.alloc(Math.min(limit, 5)),
          Buffer.from([1, 0, 0]).subarray(0, limit),
        ]),
      ),
    select: "HEX(?)",
    value: base64FromHex,
  };
}

function printed(type: string, literals: (random: Random) => string): Shape {
  return { definition: type, literal: literals, select: "CAST(? AS CHAR)", value: asText };
}

const manyMembers = Array.from({ length: 64 }, (_, index) => `m${index}`);
const wideEnum = Array.from({ length: 300 }, (_, index) => `e${index}`);
const list = (members: readonly string[]): string => members.map((member) => `'${member}'`).join(",");
const any = /^/;
const latin = /^[ -ÿ\t\n€]*$/;
const bmp = /^[\t\n -\u{ffff}]*$/u;
const japanese = /^[\t\n -~日本語]*$/;

function memberColumn(definition: string, literals: (random: Random) => string): Shape {
  return { definition, literal: literals, select: "HEX(CONVERT(? USING utf8mb4))", value: fromHex };
}

function bitColumn(count: number): Shape {
  return {
    definition: `bit(${count})`,
    literal: (random) =>
      `b'${random.pick(["1".repeat(count), "0", "1", Array.from({ length: count }, () => random.below(2)).join("")])}'`,
    select: "CAST(?+0 AS CHAR)",
    value: (text) => (count > 53 ? text : Number(text)),
  };
}

const jsonShape: Shape = {
  ...textColumn("json", "utf8mb4", any),
  definition: "json",
  literal: (random) => `'{"a": [1, "${random.digits(5)}"]}'`,
};

/** MySQL's JSON is binary; MariaDB's is a text. */
const binaryJsonShape: Shape = {
  definition: "json",
  on: onMysql,
  literal: jsonLiteral,
  select: "CAST(? AS CHAR)",
  value: (text) => ({ json: plainJson(text) }),
};

const shapes: readonly Shape[] = [
  ...[
    ["tinyint", 8],
    ["smallint", 16],
    ["mediumint", 24],
    ["int", 32],
    ["bigint", 64],
  ].flatMap(([type, width]) => [
    integer(String(type), Number(width), false),
    integer(String(type), Number(width), true),
  ]),
  ...[
    [1, 0],
    [5, 5],
    [9, 0],
    [10, 2],
    [12, 4],
    [18, 9],
    [19, 4],
    [20, 4],
    [20, 6],
    [30, 10],
    [38, 0],
    [65, 0],
    [65, 30],
    [38, 38],
    [33, 15],
    [16, 1],
  ].map(([p, s]) => ({
    ...decimal(Number(p), Number(s)),
    // MySQL takes 30 digits behind the point at most.
    on: (server: TypedServer) => onMariadb(server) || Number(s) <= 30,
  })),
  ...[0, 1, 2, 3, 4, 5, 6].flatMap(temporal),
  {
    definition: "date",
    literal: (random) =>
      `'${random.pick(["0000-00-00", "2026-00-00", "1000-01-01", "9999-12-31", `${1 + random.below(9999)}-1-${1 + random.below(28)}`.padStart(9, "0")])}'`,
    select: "CAST(? AS CHAR)",
    value: (day) => (isZero(day) ? null : day),
  },
  {
    definition: "year",
    literal: (random) => random.pick(["0", "1901", "2155", "2026"]),
    select: "?+0",
    value: Number,
  },
  {
    definition: "float",
    literal: (random) =>
      random.pick([
        "0",
        "0.1",
        "-1.5",
        "16777216",
        "3.4028234e38",
        "1.17549e-38",
        "1e-45",
        "123456.7",
        `${random.digits(4)}.${random.digits(5)}e${random.below(30) - 15}`,
      ]),
    select: "CAST(? AS DOUBLE)",
    // The server shows the exact value with 16 digits at most: the float is the one next to them.
    value: (shown) => shortestFloat(Math.fround(Number(shown))),
  },
  {
    definition: "double",
    literal: (random) =>
      random.pick([
        "0",
        "0.1",
        "-1.7976931348623157e308",
        "2.2250738585072014e-308",
        "1e22",
        `${random.digits(9)}.${random.digits(8)}e${random.below(200) - 100}`,
      ]),
    select: "CAST(? AS CHAR)",
    value: Number,
  },
  ...[1, 7, 8, 9, 33, 53, 54, 64].map(bitColumn),
  memberColumn(`enum('a','b''c','d,e','ü','back\\\\slash') CHARACTER SET utf8mb4`, (random) =>
    random.pick(["'a'", "'b''c'", "'d,e'", "'ü'", "'not there'", "5"]),
  ),
  memberColumn(`enum(${list(wideEnum)}) CHARACTER SET latin1`, (random) => `'${random.pick(wideEnum)}'`),
  ...[1, 8, 9, 17, 25, 33, 64].map((count) =>
    memberColumn(`set(${list(manyMembers.slice(0, count))}) CHARACTER SET latin1`, (random) =>
      random.pick([
        `'${manyMembers.slice(0, count).join(",")}'`,
        "''",
        `'m${count - 1}'`,
        `'${manyMembers
          .slice(0, count)
          .filter(() => random.below(2) === 0)
          .join(",")}'`,
      ]),
    ),
  ),
  textColumn("char(64)", "utf8mb4", any),
  textColumn("char(63)", "utf8mb3", bmp),
  textColumn("varchar(255)", "latin1", latin),
  textColumn("varchar(256)", "latin1", latin),
  textColumn("varchar(63)", "utf8mb4", /^.{0,63}$/su),
  textColumn("varchar(64)", "utf8mb4", any),
  textColumn("varchar(100)", "ucs2", bmp),
  textColumn("varchar(100)", "utf16", any),
  textColumn("varchar(100)", "utf16le", any),
  textColumn("varchar(100)", "utf32", any),
  textColumn("varchar(100)", "ascii", /^[\t\n -~]*$/),
  textColumn("varchar(100)", "sjis", japanese),
  textColumn("varchar(100)", "gbk", japanese),
  textColumn("varchar(100)", "big5", japanese),
  textColumn("varchar(100)", "ujis", japanese),
  textColumn("varchar(100)", "cp932", japanese),
  textColumn("tinytext", "utf8mb4", any),
  textColumn("text", "utf8mb4", any),
  textColumn("mediumtext", "latin1", latin),
  textColumn("longtext", "utf8mb3", bmp),
  textColumn("varchar(200) /*M!100301 COMPRESSED*/", "utf8mb4", any),
  textColumn("text /*M!100301 COMPRESSED*/", "utf8mb4", any),
  binary("binary(1)", 1),
  binary("binary(16)", 16),
  binary("binary(255)", 255),
  binary("varbinary(255)", 255),
  binary("varbinary(300)", 300),
  binary("tinyblob", 100),
  binary("blob", 400),
  binary("mediumblob", 50),
  binary("longblob", 50),
  binary("varbinary(300) /*M!100301 COMPRESSED*/", 300),
  binary("blob /*M!100301 COMPRESSED*/", 300),
  {
    definition: "geometry",
    literal: (random) => `ST_GeomFromText('POINT(${random.below(90)} ${random.below(90)})', 4326)`,
    select: "HEX(?)",
    value: base64FromHex,
  },
  { ...jsonShape, on: onMariadb },
  binaryJsonShape,
  {
    ...binary("vector(3)", 0),
    on: ({ hasVectors }: TypedServer) => hasVectors,
    literal: (random) =>
      hex(Buffer.from(Float32Array.from([random.below(9) / 4, -1.5, random.below(1000)]).buffer)),
  },
  ...[
    printed(
      "inet6",
      (random) =>
        `'${random.pick(["::", "::1", "::ffff:1.2.3.4", "::1.2.3.4", "2001:db8::ff00:42:8329", "1:0:0:2:0:0:0:3", "1:2:3:4:5:6:7:8", "fe80::", "0:0:1::"])}'`,
    ),
    printed("inet4", (random) => `'${random.pick(["0.0.0.0", "1.2.3.4", "255.255.255.255", "10.0.0.0"])}'`),
    printed(
      "uuid",
      (random) =>
        `'${random.pick(["00000000-0000-0000-0000-000000000000", "123e4567-e89b-12d3-a456-426655440000", "f47ac10b-58cc-4372-a567-0e02b2c30000"])}'`,
    ),
  ].map((shape) => ({ ...shape, on: onMariadb })),
];

function shortestFloat(exact: number): number {
  for (let digits = 1; digits < 17; digits++) {
    const short = Number(exact.toPrecision(digits));
    if (Math.fround(short) === exact) return short;
  }
  return exact;
}

/** One nullable column for each type and edge that the server knows. */
export function everyTypeOf(server: TypedServer): readonly TypedColumn[] {
  return shapes
    .filter(({ on }) => on === undefined || on(server))
    .map((shape, index) => ({
      ...shape,
      name: `c${index}`,
      // TIMESTAMP is NOT NULL with a default of its own unless told otherwise.
      definition: `${shape.definition} NULL`,
    }));
}

/** Of the oldest server. */
export const everyType: readonly TypedColumn[] = everyTypeOf({ flavour: "mariadb", hasVectors: false });
