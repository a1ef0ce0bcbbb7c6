/**
 * One line an event, on stderr. In the journal a line begins with its priority and carries no time
 * (the journal has both); elsewhere it begins with the time. Messages and fields never hold row
 * values, tokens or passwords: that is the caller's duty.
 */
import { fstatSync } from "node:fs";
import type { Clock, Log, LogFields } from "../kernel/service.ts";

export const logLevels = ["debug", "info", "notice", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];

/** Priorities of syslog, as the journal reads them at the beginning of a line. */
const priorities: Readonly<Record<LogLevel, number>> = { debug: 7, info: 6, notice: 5, warn: 4, error: 3 };

/** The journal cuts lines at 48 KiB; the second half would have no priority. */
const LINE_CHARS_MAX = 16_000;

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: "text" | "json";
  readonly inJournal: boolean;
  readonly clock: Pick<Clock, "wallMs">;
  readonly write: (line: string) => void;
}

export class Logger implements Log {
  readonly #options: LoggerOptions;
  readonly #threshold: number;

  constructor(options: LoggerOptions) {
    this.#options = options;
    this.#threshold = logLevels.indexOf(options.level);
  }

  debug(message: string, fields?: LogFields): void {
    this.#line("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#line("info", message, fields);
  }

  notice(message: string, fields?: LogFields): void {
    this.#line("notice", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#line("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#line("error", message, fields);
  }

  #line(level: LogLevel, message: string, fields: LogFields = {}): void {
    if (logLevels.indexOf(level) < this.#threshold) return;
    const { format, inJournal, clock, write } = this.#options;
    const time = inJournal ? null : new Date(clock.wallMs()).toISOString();
    const body =
      format === "json"
        ? jsonLine({ time, level, message, fields })
        : textLine({ time, level, message, fields });
    const prefix = inJournal ? `<${priorities[level]}>` : "";
    write(`${prefix}${body}\n`);
  }
}

interface LineParts {
  readonly time: string | null;
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

function textLine({ time, level, message, fields }: LineParts): string {
  let line = time === null ? "" : `${time} ${level.toUpperCase()} `;
  line += escapeBreaks(message);
  for (const [key, value] of Object.entries(fields)) {
    if (value !== undefined) line += ` ${key}=${fieldText(value)}`;
  }
  return line.length > LINE_CHARS_MAX ? `${line.slice(0, LINE_CHARS_MAX)}...` : line;
}

function jsonLine({ time, level, message, fields }: LineParts): string {
  const short = message.length > LINE_CHARS_MAX ? `${message.slice(0, LINE_CHARS_MAX)}...` : message;
  return JSON.stringify({ ...(time === null ? {} : { time }), level, message: short, ...fields });
}

function fieldText(value: string | number | boolean | null): string {
  if (typeof value !== "string") return String(value);
  return /^[^\s"=\\]+$/.test(value) ? value : JSON.stringify(value);
}

/** Each physical line would need its own prefix, so there is only ever one. */
function escapeBreaks(text: string): string {
  return /[\r\n\u2028\u2029]/.test(text)
    ? text
        .replace(/\r/g, "\\r")
        .replace(/\n/g, "\\n")
        .replace(/[\u2028\u2029]/g, " ")
    : text;
}

/** Whether stderr is the journal's own stream: only then are priorities read from the line. */
export function stderrIsJournal(journalStream: string | null): boolean {
  if (journalStream === null) return false;
  try {
    const stat = fstatSync(2);
    return `${stat.dev}:${stat.ino}` === journalStream;
  } catch {
    return false;
  }
}

interface Repeat {
  level: "warn" | "error";
  sinceMs: number;
  loggedAtMs: number;
  count: number;
  unlogged: number;
}

/**
 * The same failure at most once in 30 seconds, with how often it came, and one line when it is
 * over. Keys are few and fixed (a code, a topic), so the map stays small.
 */
export class RepeatLog {
  readonly #log: Log;
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #everyMs: number;
  readonly #open = new Map<string, Repeat>();

  constructor(log: Log, clock: Pick<Clock, "monotonicMs">, everyMs = 30_000) {
    this.#log = log;
    this.#clock = clock;
    this.#everyMs = everyMs;
  }

  failed(key: string, message: string, fields: LogFields = {}, level: "warn" | "error" = "warn"): void {
    const nowMs = this.#clock.monotonicMs();
    const known = this.#open.get(key);
    if (known === undefined) {
      this.#open.set(key, { level, sinceMs: nowMs, loggedAtMs: nowMs, count: 1, unlogged: 0 });
      this.#log[level](message, fields);
      return;
    }
    known.count++;
    known.unlogged++;
    if (nowMs - known.loggedAtMs < this.#everyMs) return;
    const forSeconds = Math.round((nowMs - known.sinceMs) / 1000);
    this.#log[level](message, { ...fields, repeated: known.unlogged, for_seconds: forSeconds });
    known.loggedAtMs = nowMs;
    known.unlogged = 0;
  }

  /** Says that it is over, once; nothing when it had not failed. */
  recovered(key: string, message: string, fields: LogFields = {}): void {
    const known = this.#open.get(key);
    if (known === undefined) return;
    this.#open.delete(key);
    const afterSeconds = Math.round((this.#clock.monotonicMs() - known.sinceMs) / 1000);
    this.#log.notice(message, { ...fields, after_seconds: afterSeconds, failures: known.count });
  }
}
