/**
 * A statement as words: names, numbers and signs, without comments, and with strings as one opaque
 * token, so that nothing inside a string or comment is ever taken for a keyword or a table.
 */

export interface Token {
  /**
   * word: unquoted. name: in backticks. quoted: in double quotes (a string, or a name under
   * ANSI_QUOTES; where a name must stand it is one). string: in single quotes, its text dropped.
   */
  readonly kind: "word" | "name" | "quoted" | "string" | "sign";
  readonly text: string;
  /** Where in the statement it begins. */
  readonly start: number;
}

export interface TokenizeOptions {
  /** sql_mode NO_BACKSLASH_ESCAPES. */
  readonly plainBackslash: boolean;
  /** Stop after this many tokens. */
  readonly limit: number;
}

const wordStart = /[0-9A-Za-z$_@\u0080-\uffff]/;

export function tokenize(text: string, options: TokenizeOptions): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let isExecuted = false;
  while (at < text.length && tokens.length < options.limit) {
    const sign = text[at] ?? "";
    // The server executes what stands in these comments; only their marks are skipped.
    const mark: number = isExecuted && sign === "*" && text[at + 1] === "/" ? 2 : executedMark(text, at);
    const skipped = mark > 0 ? at + mark : skipBlank(text, at);
    if (skipped > at) {
      if (mark > 0) isExecuted = mark > 2;
      at = skipped;
    } else if (sign === "'" || sign === '"' || sign === "`") {
      const end = quotedEnd(text, at, sign !== "`" && !options.plainBackslash);
      tokens.push(quotedToken(text, at, end));
      at = end;
    } else if (wordStart.test(sign)) {
      let end = at + 1;
      while (end < text.length && wordStart.test(text[end] ?? "")) end += 1;
      tokens.push({ kind: "word", text: text.slice(at, end), start: at });
      at = end;
    } else {
      tokens.push({ kind: "sign", text: sign, start: at });
      at += 1;
    }
  }
  return tokens;
}

/** Length of the mark that begins an executed comment here; 0 when none does. */
function executedMark(text: string, at: number): number {
  if (text[at] !== "/" || text[at + 1] !== "*") return 0;
  return /^\/\*M?!\d{0,6}/.exec(text.slice(at, at + 12))?.[0].length ?? 0;
}

/** End of white space or of one comment at this place; the place itself when there is none. */
function skipBlank(text: string, at: number): number {
  const sign = text[at] ?? "";
  if (sign <= " ") return at + 1;
  if (sign === "#") return lineEnd(text, at);
  if (sign === "-" && text[at + 1] === "-" && (text[at + 2] ?? " ") <= " ") return lineEnd(text, at);
  if (sign === "/" && text[at + 1] === "*") {
    const end = text.indexOf("*/", at + 2);
    return end < 0 ? text.length : end + 2;
  }
  return at;
}

function lineEnd(text: string, at: number): number {
  const end = text.indexOf("\n", at);
  return end < 0 ? text.length : end + 1;
}

/** Behind the closing quote. A doubled quote stands for itself. */
function quotedEnd(text: string, start: number, escapes: boolean): number {
  const quote = text[start];
  let at = start + 1;
  while (at < text.length) {
    if (escapes && text[at] === "\\") at += 2;
    else if (text[at] !== quote) at += 1;
    else if (text[at + 1] === quote) at += 2;
    else return at + 1;
  }
  return text.length;
}

function quotedToken(text: string, start: number, end: number): Token {
  const quote = text[start] ?? "";
  if (quote === "'") return { kind: "string", text: "", start };
  const inner = text.slice(start + 1, end - 1).replaceAll(quote + quote, quote);
  return { kind: quote === "`" ? "name" : "quoted", text: inner, start };
}

/** Reads tokens one after the other. */
export class Words {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get atEnd(): boolean {
    return this.#at >= this.#tokens.length;
  }

  /** The unquoted word or sign here in capitals, "" for anything else. */
  peek(ahead = 0): string {
    const token = this.#tokens[this.#at + ahead];
    return token !== undefined && (token.kind === "word" || token.kind === "sign")
      ? token.text.toUpperCase()
      : "";
  }

  skip(count = 1): void {
    this.#at += count;
  }

  /** Takes these words when they stand here, all of them or none. */
  take(...words: readonly string[]): boolean {
    for (const [index, word] of words.entries()) if (this.peek(index) !== word) return false;
    this.#at += words.length;
    return true;
  }

  /** A name where one must stand; null where none does. */
  name(): string | null {
    const token = this.#tokens[this.#at];
    if (token === undefined || token.kind === "sign" || token.kind === "string") return null;
    this.#at += 1;
    return token.text;
  }

  /** `[schema.]table`; the schema is the statement's default one when it is not named. */
  tableName(defaultSchema: string): TableName | null {
    const first = this.name();
    if (first === null) return null;
    if (this.peek() !== ".") return { schema: defaultSchema, table: first };
    this.skip();
    const second = this.name();
    return second === null ? null : { schema: first, table: second };
  }

  /** Everything from here on. */
  rest(): readonly Token[] {
    return this.#tokens.slice(this.#at);
  }
}

export interface TableName {
  readonly schema: string;
  readonly table: string;
}
