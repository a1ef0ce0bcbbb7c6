/**
 * The wire form is JSON inside a JSON string literal. Everything here makes pieces of it that are
 * escaped already, so an event is one concatenation and is never escaped as a whole.
 */
import type { Value } from "../change.ts";

/** JSON text as it stands inside the literal. */
export function embed(jsonText: string): string {
  return JSON.stringify(jsonText).slice(1, -1);
}

/** Any value that JSON.stringify takes, as it stands inside the literal. For what is not hot. */
export function embedValue(value: unknown): string {
  return embed(JSON.stringify(value));
}

/** A text as a JSON string inside the literal. Lone surrogates become escapes: UTF-8 has none. */
export function stringText(text: string): string {
  return isPlain(text) ? `\\"${text}\\"` : embed(JSON.stringify(text));
}

/** Without quote, backslash, control characters, and halves of surrogate pairs. */
function isPlain(text: string): boolean {
  const { length } = text;
  for (let index = 0; index < length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit < 0x20 || unit === 0x22 || unit === 0x5c || (unit & 0xf800) === 0xd800) return false;
  }
  return true;
}

/** A number in the shortest form that reads back the same; minus zero keeps its sign. */
export function numberText(value: number): string {
  return value === 0 && 1 / value < 0 ? "-0" : String(value);
}

/** A column's value inside the literal. JSON stands as it is; invalid text as its reading. */
export function valueText(value: Value): string {
  if (value === null) return "null";
  if (typeof value === "string") return stringText(value);
  if (typeof value === "number") return numberText(value);
  return "json" in value ? embed(value.json) : stringText(value.text);
}

/** Fewest and most bytes that a value can take inside the literal, without encoding it. */
export function textUnits(value: Value | undefined): number {
  if (value === undefined || value === null) return 4;
  if (typeof value === "string") return value.length;
  if (typeof value === "number") return 8;
  return "json" in value ? value.json.length : value.text.length + value.base64.length;
}

/** A UTF-16 unit takes at most this many bytes: a control character is `\\u0001`. */
export const bytesPerUnitMax = 7;

/** Whether two column values are the same, bytes and all. */
export function sameValue(left: Value | undefined, right: Value | undefined): boolean {
  if (left === right) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false;
  if ("json" in left) return "json" in right && left.json === right.json;
  return "base64" in right && left.base64 === right.base64;
}
