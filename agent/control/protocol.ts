/**
 * What the command line and the running agent say to each other: one JSON object on one line each
 * way, then the connection ends. Answers carry no row data.
 */

export interface ControlRequest {
  readonly command: string;
}

export type ControlAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly message: string };

/** Longest line of a request; nobody needs more. */
export const REQUEST_BYTES_MAX = 64 * 1024;
export const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

export function parseRequest(line: string): ControlRequest | null {
  const value = parseJson(line);
  if (typeof value !== "object" || value === null || !("command" in value)) return null;
  return typeof value.command === "string" ? { command: value.command } : null;
}

export function parseAnswer(line: string): ControlAnswer | null {
  const value = parseJson(line);
  if (typeof value !== "object" || value === null || !("ok" in value)) return null;
  if (value.ok === true) return { ok: true, result: "result" in value ? value.result : null };
  const message = "message" in value && typeof value.message === "string" ? value.message : "no reason given";
  return { ok: false, message };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
