/**
 * Whether a change that was logged as text can have reached a followed table. A write to any table or
 * view of the shop can: a trigger or the view may carry it there, and nobody can prove that none does.
 * A write to another schema cannot, unless it calls a routine, whatever of the shop it reads. Triggers
 * and views of other schemas are out of reach.
 */
import type { QueryEvent } from "./binlog-event.ts";
import type { FollowedNames } from "./followed-names.ts";
import { type TableName, tokenize, type Token, Words } from "./statement-words.ts";

export interface TextChange {
  readonly kind: "change";
  /** Whether followed tables can be among what it changed. */
  readonly touches: boolean;
  readonly verb: string;
  /** The table it writes, as `schema.table`; "" where that is not plain. */
  readonly target: string;
}

export function readChange(query: QueryEvent, names: FollowedNames): TextChange {
  const tokens = tokenize(query.text, {
    plainBackslash: query.plainBackslash,
    limit: Number.MAX_SAFE_INTEGER,
  });
  const words = new Words(tokens);
  const verb = words.peek();
  const target = readTarget(words, query.schema);
  const isOurs =
    names.isShop(query.schema) || tokens.some((token) => isName(token) && names.isShop(token.text));
  const passes =
    !isOurs ||
    (target !== null &&
      (emptiesMemoryTable(tokens, target, names) ||
        (!names.isShop(target.schema) && !callsRoutine(words.rest()))));
  const text = target === null ? "" : `${target.schema}.${target.table}`;
  return { kind: "change", touches: !passes, verb, target: text };
}

/** The one table that the statement writes, with what follows it still to read; null where that is not plain. */
function readTarget(words: Words, schema: string): TableName | null {
  const verb = words.peek();
  words.skip();
  if (verb === "INSERT" || verb === "REPLACE") {
    skipAll(words, ["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE"]);
    words.take("INTO");
    return words.tableName(schema);
  }
  if (verb === "UPDATE") {
    skipAll(words, ["LOW_PRIORITY", "IGNORE"]);
    const target = words.tableName(schema);
    return words.peek() === "SET" ? target : null;
  }
  if (verb !== "DELETE") return null;
  skipAll(words, ["LOW_PRIORITY", "QUICK", "IGNORE"]);
  const target = words.take("FROM") ? words.tableName(schema) : null;
  return words.atEnd || ["WHERE", "ORDER", "LIMIT", "RETURNING"].includes(words.peek()) ? target : null;
}

function skipAll(words: Words, modifiers: readonly string[]): void {
  while (modifiers.includes(words.peek())) words.skip();
}

/**
 * What servers write by themselves, whatever the format, when a table in memory is used for the first
 * time after a restart: MariaDB 10.11 and 11.8 and MySQL 9.7 a TRUNCATE, older ones exactly this.
 */
function emptiesMemoryTable(tokens: readonly Token[], target: TableName, names: FollowedNames): boolean {
  // DELETE FROM schema . table
  return tokens.length === 5 && tokens[0]?.text === "DELETE" && names.isMemoryTable(target);
}

/** Words that stand before a bracket and are reserved: no routine has such a name without quotes. */
const keywords = new Set(
  `ALL AND AS BETWEEN BINARY BY CASE CHAR CONVERT CURRENT_TIMESTAMP DATABASE DECIMAL DISTINCT DIV ELSE EXISTS FROM HAVING
   IF IN INDEX INSERT INTERVAL JOIN KEY LEFT LIKE LIMIT MOD NOT ON OR PARTITION REGEXP REPLACE RIGHT RLIKE SELECT SET
   STRAIGHT_JOIN THEN UNION USING UTC_TIMESTAMP VALUES VARBINARY VARCHAR WHEN WHERE XOR`.split(/\s+/),
);

/** The server's own functions, which come before routines of their name; the last line is of checksum tools. */
const functions = new Set(
  `ABS AVG BIT_AND BIT_OR BIT_XOR CAST CEIL CEILING CHAR_LENGTH COALESCE CONCAT CONCAT_WS CONNECTION_ID CONV COUNT CRC32
   CURDATE CURTIME DATE DATE_ADD DATE_FORMAT DATE_SUB DAY FIELD FIND_IN_SET FLOOR FROM_UNIXTIME GREATEST GROUP_CONCAT HEX
   HOUR IFNULL INSTR ISNULL LAST_INSERT_ID LEAST LENGTH LOCATE LOWER LPAD MAX MD5 MIN MINUTE MONTH NOW NULLIF POW RAND
   ROUND RPAD SECOND SHA1 SHA2 SIGN SUBSTR SUBSTRING SUM TRIM UNHEX UNIX_TIMESTAMP UPPER USER UUID VERSION YEAR
   FNV1A_64 FNV_64 MURMUR_HASH`.split(/\s+/),
);

/** Whether a name stands before a bracket that is none of the server's. */
export function callsRoutine(tokens: readonly Token[]): boolean {
  return tokens.some((token, index) => {
    const bracket = tokens[index + 1];
    if (!isName(token) || bracket === undefined || !isSign(bracket, "(")) return false;
    const word = token.text.toUpperCase();
    if (token.kind !== "word" || isSign(tokens[index - 1], ".")) return true;
    // With a blank before the bracket the server takes some of its functions for routines.
    const isTight = token.start + token.text.length === bracket.start;
    return !keywords.has(word) && !(functions.has(word) && isTight);
  });
}

function isSign(token: Token | undefined, sign: string): boolean {
  return token?.kind === "sign" && token.text === sign;
}

function isName(token: Token): boolean {
  return token.kind === "word" || token.kind === "name" || token.kind === "quoted";
}
