/**
 * Reads the syntax of systemd's EnvironmentFile= as systemd does, so that `check` and the service
 * see the same values. It is no shell: no `export`, no `$` expansion.
 */

export interface EnvFileEntry {
  readonly name: string;
  readonly value: string;
  /** Line where the entry starts, from 1. */
  readonly line: number;
}

export interface EnvFile {
  readonly entries: readonly EnvFileEntry[];
  /** Lines that systemd passes over with a log line at most; for us they are faults. */
  readonly faults: ReadonlyArray<{ readonly line: number; readonly reason: string }>;
}

/** Characters that a backslash inside double quotes escapes; before others it stays. */
const escapable = '"\\`$';

export function parseEnvFile(text: string): EnvFile {
  const entries: EnvFileEntry[] = [];
  const faults: Array<{ line: number; reason: string }> = [];
  const scanner = { text, at: text.startsWith("\uFEFF") ? 1 : 0, line: 1 };
  while (scanner.at < text.length) {
    skipBlank(scanner);
    const char = text[scanner.at];
    if (char === undefined) break;
    if (char === "#" || char === ";") {
      skipComment(scanner);
      continue;
    }
    const line = scanner.line;
    const name = readName(scanner);
    if (name === null) {
      faults.push({ line, reason: "there is no '=' in this line" });
      continue;
    }
    const value = readValue(scanner);
    if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) entries.push({ name, value, line });
    else if (name.startsWith("export "))
      faults.push({ line, reason: "systemd knows no 'export': write NAME=value" });
    else faults.push({ line, reason: "what stands before '=' is no name of a variable" });
  }
  return { entries, faults };
}

interface Scanner {
  readonly text: string;
  at: number;
  line: number;
}

/** The next character, counted; undefined at the end. */
function take(scanner: Scanner): string | undefined {
  const char = scanner.text[scanner.at];
  if (char === undefined) return undefined;
  scanner.at++;
  if (char === "\n") scanner.line++;
  return char;
}

function isNewline(char: string): boolean {
  return char === "\n" || char === "\r";
}

function isBlank(char: string): boolean {
  return char === " " || char === "\t" || isNewline(char);
}

function skipBlank(scanner: Scanner): void {
  for (;;) {
    const char = scanner.text[scanner.at];
    if (char === undefined || !isBlank(char)) return;
    take(scanner);
  }
}

/** To the end of the line; a backslash before the line end carries the comment on. */
function skipComment(scanner: Scanner): void {
  for (;;) {
    const char = take(scanner);
    if (char === undefined || isNewline(char)) return;
    if (char === "\\") take(scanner);
  }
}

/** The name before '=', without the blanks around it; null when the line has no '='. */
function readName(scanner: Scanner): string | null {
  const start = scanner.at;
  for (;;) {
    const char = take(scanner);
    if (char === undefined || isNewline(char)) return null;
    if (char === "=") return scanner.text.slice(start, scanner.at - 1).trimEnd();
  }
}

/** The value: pieces in quotes and one piece without, as systemd's state machine joins them. */
function readValue(scanner: Scanner): string {
  let value = "";
  for (;;) {
    const char = take(scanner);
    if (char === undefined || isNewline(char)) return value;
    if (char === "'") value += readSingleQuoted(scanner);
    else if (char === '"') value += readDoubleQuoted(scanner);
    else if (!isBlank(char)) {
      scanner.at--;
      return value + readUnquoted(scanner);
    }
  }
}

function readSingleQuoted(scanner: Scanner): string {
  let value = "";
  for (;;) {
    const char = take(scanner);
    if (char === undefined || char === "'") return value;
    value += char;
  }
}

function readDoubleQuoted(scanner: Scanner): string {
  let value = "";
  for (;;) {
    const char = take(scanner);
    if (char === undefined || char === '"') return value;
    if (char !== "\\") {
      value += char;
      continue;
    }
    const escaped = take(scanner);
    if (escaped === undefined) return value;
    if (escapable.includes(escaped)) value += escaped;
    else if (escaped !== "\n") value += `\\${escaped}`;
  }
}

/** Up to the end of the line; quotes are plain characters here, blanks at the end fall away. */
function readUnquoted(scanner: Scanner): string {
  let value = "";
  let kept = 0;
  for (;;) {
    const char = take(scanner);
    if (char === undefined || isNewline(char)) return value.slice(0, kept);
    if (char === "\\") {
      const escaped = take(scanner);
      if (escaped !== undefined && !isNewline(escaped)) value += escaped;
      kept = value.length;
      continue;
    }
    value += char;
    if (!isBlank(char)) kept = value.length;
  }
}
