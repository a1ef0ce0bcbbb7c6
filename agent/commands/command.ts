/**
 * What a command is, and how its arguments are read: `--help` at every level, and for what is wrong
 * exit 64 with a suggestion.
 */
import { parseArgs } from "node:util";
import { nearestName } from "../config/load.ts";
import { AgentError } from "../kernel/errors.ts";

export interface OptionRow {
  readonly type: "boolean" | "string";
  /** Word for the value in the help; for strings. */
  readonly value?: string;
  /** What it means without a value; without this a string needs one. */
  readonly bare?: string;
  readonly text: string;
}

export interface Arguments {
  readonly positionals: readonly string[];
  flag(name: string): boolean;
  text(name: string): string | null;
}

/** Where a command writes: results to `out`, everything else to `err`. */
export interface Output {
  out(text: string): void;
  err(text: string): void;
}

export interface Command {
  /** One or two words, as they are typed. */
  readonly name: string;
  readonly summary: string;
  readonly positionals: readonly string[];
  readonly options: Readonly<Record<string, OptionRow>>;
  /** Further text of its help. */
  readonly more?: () => string;
  /** Resolves with the exit code. */
  run(args: Arguments, output: Output): Promise<number>;
}

const helpOption: OptionRow = { type: "boolean", text: "This text." };

/** Options that several commands share. */
export const sharedOptions = {
  envFile: {
    type: "string",
    value: "FILE",
    text: "Read settings from a file in the syntax of systemd's EnvironmentFile=; it wins over the environment.",
  },
  json: { type: "boolean", text: "Print JSON." },
} as const satisfies Record<string, OptionRow>;

/** Throws USAGE with a suggestion when an argument is unknown, lacks its value or is too many. */
export function parseArguments(command: Command, argv: readonly string[]): Arguments {
  const options: Record<string, OptionRow> = { ...command.options, help: helpOption };
  const declared = Object.fromEntries(
    Object.entries(options).map(([name, row]) => [
      name,
      // One that needs no value must not take the next word for it.
      { type: row.bare === undefined ? row.type : "boolean", ...(name === "help" ? { short: "h" } : {}) },
    ]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    options: declared,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values = new Map<string, string | true>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind === "option") values.set(token.name, readOption(command, options, token));
  }
  const extra = positionals[command.positionals.length];
  if (extra !== undefined && values.get("help") !== true) {
    throw usageError(`${command.name} takes no further argument, found "${extra}"`, command.name);
  }
  return {
    positionals,
    flag: (name) => values.get(name) === true,
    text: (name) => {
      const value = values.get(name);
      return typeof value === "string" ? value : null;
    },
  };
}

interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value: string | undefined;
}

function readOption(
  command: Command,
  options: Readonly<Record<string, OptionRow>>,
  token: OptionToken,
): string | true {
  const row = Object.hasOwn(options, token.name) ? options[token.name] : undefined;
  if (row === undefined) {
    const near = nearestName(token.name, Object.keys(options));
    const suggestion = near === null ? "" : `; did you mean --${near}?`;
    throw usageError(`${command.name} knows no option ${token.rawName}${suggestion}`, command.name);
  }
  if (row.type === "boolean") {
    if (token.value === undefined) return true;
    throw usageError(`the option ${token.rawName} takes no value`, command.name);
  }
  if (token.value !== undefined && token.value !== "") return token.value;
  if (token.value === undefined && row.bare !== undefined) return row.bare;
  throw usageError(
    `the option ${token.rawName} needs a value: --${token.name}=${row.value ?? "VALUE"}`,
    command.name,
  );
}

export function usageError(message: string, commandName: string): AgentError {
  const subject = commandName === "" ? "" : `${commandName} `;
  return new AgentError("USAGE", message, { hint: `See magento-edge-agent ${subject}--help.` });
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const words = ["magento-edge-agent", command.name, ...command.positionals, "[OPTION ...]"];
  const lines = [`usage: ${words.join(" ")}`, "", command.summary, "", "Options:"];
  for (const [name, row] of Object.entries({ ...command.options, help: helpOption })) {
    const value = row.bare === undefined ? `=${row.value ?? "VALUE"}` : `[=${row.value ?? "VALUE"}]`;
    const shown = row.type === "string" ? `--${name}${value}` : `--${name}`;
    lines.push(`  ${shown.padEnd(24)} ${row.text}`);
  }
  if (command.more !== undefined) lines.push("", command.more());
  return `${lines.join("\n")}\n`;
}
