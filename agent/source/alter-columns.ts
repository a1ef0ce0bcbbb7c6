/** Which columns the clauses of an ALTER TABLE can define anew. */
import type { TableEvent } from "../change.ts";
import type { Token } from "./statement-words.ts";

const beforeNewColumns = new Set(["ADD", "COLUMN", "EXISTS"]);

/**
 * What the words behind the table's name do to followed columns: "once" where they name one or convert
 * all, "twice" where one is named again, as when it goes and comes, or two change places. What stands in
 * brackets are columns of keys and the like, but for those of new columns. Rather more than less is found.
 */
export function redefinition(
  tokens: readonly Token[],
  isFollowed: (column: string) => boolean,
): TableEvent["redefines"] {
  const named = new Set<string>();
  /** Of each open bracket, whether columns are defined inside. */
  const brackets: boolean[] = [];
  let found: TableEvent["redefines"];
  for (const [index, token] of tokens.entries()) {
    const before = tokens[index - 1]?.text ?? "";
    if (token.kind === "sign") {
      if (token.text === "(") brackets.push(beforeNewColumns.has(before.toUpperCase()));
      else if (token.text === ")") brackets.pop();
      continue;
    }
    if (token.kind === "string" || brackets.includes(false)) continue;
    const column = token.text.toLowerCase();
    if (column === "convert" && tokens[index + 1]?.text.toUpperCase() === "TO") found ??= "once";
    // CHANGE names a column that keeps its name twice; behind AFTER stands one that stays as it is.
    if (!isFollowed(column) || column === before.toLowerCase() || before.toUpperCase() === "AFTER") continue;
    found = found === "twice" || named.has(column) ? "twice" : "once";
    named.add(column);
  }
  return found;
}
