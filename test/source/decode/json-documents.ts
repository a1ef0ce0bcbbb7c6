/** JSON documents of every kind that MySQL stores in its binary form. */
import type { Random } from "./random.ts";

const documents = [
  "null",
  "true",
  "[]",
  "{}",
  String.raw`"Grüße 🛒 \\" tab\\t \\u0001 back\\\\slash"`,
  "-1",
  "18446744073709551615",
  "-9223372036854775808",
  "0.1",
  "1.5e10",
  "123456789012345678901234567890",
  '{"": {"a": [1, -40000, 70000, 5000000000, "x"], "longer key ü": false}}',
];

/** A SQL expression. */
export function jsonLiteral(random: Random): string {
  return random.pick([
    ...documents.map((text) => `'${text}'`),
    `'{"a": [1, "${random.digits(5)}"]}'`,
    // Over 64 KiB, where offsets have four bytes.
    `JSON_ARRAY(REPEAT('x', ${70_000 + random.below(9)}), 5, -40000, 70000, 5000000000)`,
    `JSON_OBJECT('dec', CAST('-12.3400' AS DECIMAL(10,4)), 'at', CAST('2026-11-23 10:11:12.5' AS DATETIME(6)),
      'day', CAST('2026-11-23' AS DATE), 'time', CAST('-10:11:12' AS TIME))`,
  ]);
}

/**
 * Without the blanks between the tokens, and floating point numbers in one form (1e29, 1e+29,
 * 5.0 and 5 are the same): servers print what the decoder leaves out. Whole numbers stay as they are.
 */
export function plainJson(json: string): string {
  return json.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|\s+/giu, (token) =>
    token.trim() === "" ? "" : /^-?\d.*[.e]/i.test(token) ? String(Number(token)) : token,
  );
}
