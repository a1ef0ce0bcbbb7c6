/**
 * What the command line and the running agent say to each other: one JSON object on one line each
 * way, then the connection ends. Which socket it goes over decides what may be asked: answers of
 * the read-only socket carry no row data, those of the admin socket may.
 */
import { AgentError, type ErrorCode, isErrorCode } from "../kernel/errors.ts";

/** What a command is asked with, as it came: the command checks it (`textArgument` and its like). */
export type ControlArguments = Readonly<Record<string, unknown>>;

export interface ControlRequest {
  readonly command: string;
  readonly args: ControlArguments;
}

export type ControlAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly code: ErrorCode; readonly message: string; readonly hint: string };

/** Longest line of a request; nobody needs more. */
export const REQUEST_BYTES_MAX = 64 * 1024;
export const ANSWER_BYTES_MAX = 32 * 1024 * 1024;

/** The answer that says what went wrong, in the words and with the code of the error. */
export function refusalOf({ code, message, hint }: AgentError): ControlAnswer {
  return { ok: false, code, message, hint };
}

export function parseRequest(line: string): ControlRequest | null {
  const value = parseJson(line);
  if (!isObject(value) || typeof value["command"] !== "string") return null;
  const { args } = value;
  if (args !== undefined && !isObject(args)) return null;
  return { command: value["command"], args: args ?? {} };
}

export function parseAnswer(line: string): ControlAnswer | null {
  const value = parseJson(line);
  if (!isObject(value) || !("ok" in value)) return null;
  if (value["ok"] === true) return { ok: true, result: value["result"] ?? null };
  const { code, message, hint } = value;
  return {
    ok: false,
    code: typeof code === "string" && isErrorCode(code) ? code : "COMMAND_REFUSED",
    message: typeof message === "string" ? message : "no reason given",
    hint: typeof hint === "string" ? hint : "Is the running agent of another version?",
  };
}

/** A text that the command cannot do without. Throws USAGE. */
export function textArgument(args: ControlArguments, name: string): string {
  const value = args[name];
  if (typeof value === "string" && value !== "") return value;
  throw new AgentError("USAGE", `the command needs a text "${name}"`);
}

/** A yes that has to be said; everything but `true` is no. */
export function flagArgument(args: ControlArguments, name: string): boolean {
  return args[name] === true;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
