/**
 * Text by the column's character set. Valid bytes become a string; bytes that are not valid stay
 * whole as InvalidText and are counted.
 */
import { isUtf8 } from "node:buffer";

import iconv from "iconv-lite";

import type { InvalidText } from "../../change.ts";
import { upperHalves } from "./charset-tables.ts";
import type { OddityNotes } from "./wire.ts";

const REPLACEMENT = "\uFFFD";

/** Bytes to text; null text is never returned, U+FFFD stands for what cannot be decoded. */
export type TextReader = (
  buffer: Buffer,
  start: number,
  end: number,
  notes: OddityNotes,
) => string | InvalidText;

/** `valid` is false when U+FFFD in the text stands for bytes that mean nothing in the set. */
interface Decoded {
  readonly text: string;
  readonly valid: boolean;
}
type Decode = (bytes: Buffer) => Decoded;

/** iconv-lite's names of the multi-byte sets; single-byte sets have tables of their own. */
const multiByte: Readonly<Record<string, string>> = {
  big5: "big5",
  cp932: "cp932",
  eucjpms: "eucjp",
  euckr: "euckr",
  gb18030: "gb18030",
  gb2312: "gb2312",
  gbk: "gbk",
  sjis: "shift_jis",
  ujis: "eucjp",
};

const swe7 = new Map<number, string>(
  Array.from("@[\\]^`{|}~", (ascii, index) => [ascii.charCodeAt(0), "ÉÄÖÅÜéäöåü".charAt(index)]),
);

/**
 * The reader for a character set, or null when it is not known. `binary` is no character set
 * here: those columns are not text.
 */
export function textReader(charset: string): TextReader | null {
  if (charset === "utf8mb4" || charset === "utf8mb3" || charset === "utf8") {
    return readUtf8;
  }
  const wide = wideDecoders[charset];
  if (wide !== undefined) {
    return (buffer, start, end, notes) => judge(wide, buffer.subarray(start, end), notes);
  }
  const decode = upperDecoder(charset);
  if (decode === null) {
    return null;
  }
  // Shift-JIS and its like reuse bytes below 80 as second bytes only, so a value without any byte
  // above 7F is ASCII in every set that comes here. swe7 is the exception.
  if (charset === "swe7") {
    return (buffer, start, end, notes) => judge(decode, buffer.subarray(start, end), notes);
  }
  return (buffer, start, end, notes) =>
    isAsciiBetween(buffer, start, end)
      ? buffer.latin1Slice(start, end)
      : judge(decode, buffer.subarray(start, end), notes);
}

function readUtf8(buffer: Buffer, start: number, end: number, notes: OddityNotes): string | InvalidText {
  if (end - start < 64 && isAsciiBetween(buffer, start, end)) {
    return buffer.latin1Slice(start, end);
  }
  const text = buffer.utf8Slice(start, end);
  // A decoded U+FFFD may be one that really stands in the column.
  if (text.includes(REPLACEMENT) && !isUtf8(buffer.subarray(start, end))) {
    return invalidText(text, buffer.subarray(start, end), notes);
  }
  return text;
}

function judge(decode: Decode, bytes: Buffer, notes: OddityNotes): string | InvalidText {
  const { text, valid } = decode(bytes);
  return valid ? text : invalidText(text, bytes, notes);
}

function invalidText(text: string, bytes: Buffer, notes: OddityNotes): InvalidText {
  notes.note("invalid_text");
  return { text, base64: bytes.toString("base64") };
}

function isAsciiBetween(buffer: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    if ((buffer[at] ?? 0x80) >= 0x80) {
      return false;
    }
  }
  return true;
}

function upperDecoder(charset: string): Decode | null {
  if (charset === "ascii") {
    return (bytes) => fromTable(bytes, REPLACEMENT.repeat(128));
  }
  if (charset === "swe7") {
    return decodeSwe7;
  }
  const table = upperHalves[charset];
  if (table !== undefined) {
    return (bytes) => fromTable(bytes, table);
  }
  const name = multiByte[charset];
  if (name === undefined) {
    return null;
  }
  return (bytes) => {
    const text = iconv.decode(bytes, name, { stripBOM: false });
    return { text, valid: !text.includes(REPLACEMENT) };
  };
}

function fromTable(bytes: Buffer, upper: string): Decoded {
  let text = "";
  for (const byte of bytes) {
    text += byte < 0x80 ? String.fromCharCode(byte) : upper.charAt(byte - 0x80);
  }
  return { text, valid: !text.includes(REPLACEMENT) };
}

function decodeSwe7(bytes: Buffer): Decoded {
  let text = "";
  for (const byte of bytes) {
    text += byte < 0x7f ? (swe7.get(byte) ?? String.fromCharCode(byte)) : REPLACEMENT;
  }
  return { text, valid: !text.includes(REPLACEMENT) };
}

/** ucs2, utf16 and utf32 are big-endian in the server, whatever their names mean elsewhere. */
const wideDecoders: Readonly<Record<string, Decode>> = {
  ucs2: decodeUtf16be,
  utf16: decodeUtf16be,
  utf16le: decodeUtf16le,
  utf32: decodeUtf32,
};

function decodeUtf16be(bytes: Buffer): Decoded {
  const even = Buffer.from(bytes.subarray(0, bytes.length & ~1)).swap16();
  return wellFormed(even.toString("utf16le"), bytes.length % 2 === 0);
}

function decodeUtf16le(bytes: Buffer): Decoded {
  return wellFormed(bytes.subarray(0, bytes.length & ~1).toString("utf16le"), bytes.length % 2 === 0);
}

function wellFormed(text: string, isWhole: boolean): Decoded {
  const valid = isWhole && text.isWellFormed();
  return { text: valid ? text : text.toWellFormed() + (isWhole ? "" : REPLACEMENT), valid };
}

function decodeUtf32(bytes: Buffer): Decoded {
  let text = "";
  let valid = bytes.length % 4 === 0;
  for (let at = 0; at + 4 <= bytes.length; at += 4) {
    const point = bytes.readUInt32BE(at);
    const isCharacter = point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
    valid &&= isCharacter;
    text += isCharacter ? String.fromCodePoint(point) : REPLACEMENT;
  }
  return { text: bytes.length % 4 === 0 ? text : text + REPLACEMENT, valid };
}
