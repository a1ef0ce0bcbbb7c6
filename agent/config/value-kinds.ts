/**
 * Kinds of values that a setting can have. A kind turns the text of an environment variable into a
 * typed value, or says by `undefined` that the text breaks the rule. Rules are fragments that
 * complete "must be ...".
 */
import { isIP } from "node:net";
import { isAbsolute } from "node:path";

export interface Kind<T> {
  readonly rule: string;
  /** The value, or undefined when the text breaks the rule. Never throws, does no I/O. */
  parse(text: string): T | undefined;
}

/** A number of bytes, or a share of the volume that holds STATE_DIR. */
export type ByteLimit =
  | { readonly unit: "bytes"; readonly bytes: number }
  | { readonly unit: "percent"; readonly percent: number };

/** Where a first start without snapshot begins. */
export type StartPosition =
  | { readonly kind: "file"; readonly file: string; readonly position: number }
  | { readonly kind: "gtid"; readonly gtidSet: string };

export function integer(min: number, max: number): Kind<number> {
  return {
    rule: `a whole number from ${min} to ${max}`,
    parse: (text) => {
      if (!/^[0-9]{1,16}$/.test(text)) return undefined;
      const value = Number(text);
      return value >= min && value <= max ? value : undefined;
    },
  };
}

/** Seconds with fractions in the setting, milliseconds in the program. */
export function secondsAsMs(min: number, max: number): Kind<number> {
  return {
    rule: `a number of seconds from ${min} to ${max}, fractions allowed`,
    parse: (text) => {
      if (!/^[0-9]{0,9}(\.[0-9]{1,6})?$/.test(text) || text === "") return undefined;
      const value = Number(text);
      return value >= min && value <= max ? value * 1000 : undefined;
    },
  };
}

export function choice<const C extends readonly string[]>(choices: C, rule?: string): Kind<C[number]> {
  return {
    rule: rule ?? `one of ${choices.join(", ")}`,
    parse: (text) => choices.find((one) => one === text),
  };
}

/** Text that matches a pattern as a whole. */
export function matching(pattern: RegExp, rule: string): Kind<string> {
  return { rule, parse: (text) => (pattern.test(text) ? text : undefined) };
}

export const flag: Kind<boolean> = {
  rule: "true or false",
  parse: (text) => (text === "true" ? true : text === "false" ? false : undefined),
};

export const anyText: Kind<string> = {
  rule: "text without control characters",
  parse: (text) => (hasControlCharacter(text) ? undefined : text),
};

export const absolutePath: Kind<string> = {
  rule: "an absolute path",
  parse: (text) => (isAbsolute(text) && !hasControlCharacter(text) ? text : undefined),
};

/** A host name, or an address of IPv4 or IPv6 (without brackets). */
export const hostName: Kind<string> = {
  rule: "a host name or an IP address",
  parse: (text) => (isIP(text) !== 0 || isDnsName(text) ? text : undefined),
};

export const uuid: Kind<string> = {
  rule: "a UUID such as 123e4567-e89b-42d3-a456-426614174000",
  parse: (text) =>
    /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text)
      ? text.toLowerCase()
      : undefined,
};

/** An http or https URL without user, query and fragment; given back without a trailing slash. */
export const httpUrl: Kind<string> = {
  rule: "an http:// or https:// address without user, password, query or fragment",
  parse: (text) => {
    const url = parseUrl(text);
    if (url === null || url.search !== "" || url.hash !== "") return undefined;
    if (url.username !== "" || url.password !== "") return undefined;
    return url.href.replace(/\/+$/, "");
  },
};

/** Like httpUrl, but a proxy may need a user and a password. */
export const proxyUrl: Kind<string> = {
  rule: "an http:// or https:// address",
  parse: (text) => (parseUrl(text) === null ? undefined : text),
};

const byteUnits: Readonly<Record<string, number>> = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

export function byteLimit(minBytes: number): Kind<ByteLimit> {
  return {
    rule: `a number of bytes with suffix K, M or G (at least ${formatBytes(minBytes)}), or 1% to 95% of the volume`,
    parse: (text) => {
      const match = /^([0-9]{1,9}(?:\.[0-9]{1,3})?)([KMG%]?)$/.exec(text);
      const plain = /^[0-9]{1,15}$/.test(text) ? Number(text) : null;
      if (plain !== null) return plain >= minBytes ? { unit: "bytes", bytes: plain } : undefined;
      if (match === null) return undefined;
      const amount = Number(match[1]);
      const suffix = match[2] ?? "";
      if (suffix === "%")
        return amount >= 1 && amount <= 95 ? { unit: "percent", percent: amount } : undefined;
      const bytes = Math.floor(amount * (byteUnits[suffix] ?? 1));
      return bytes >= minBytes ? { unit: "bytes", bytes } : undefined;
    },
  };
}

export const startPosition: Kind<StartPosition> = {
  rule: "FILE:POSITION such as mariadb-bin.000042:4, or a GTID such as 0-1-100 or 3E11FA47-71CA-11E1-9E33-C80AA9429562:1-77",
  parse: (text) => {
    const place = /^([^\s:/]+\.[0-9]{1,10}):([0-9]{1,16})$/.exec(text);
    if (place?.[1] !== undefined && Number(place[2]) >= 4) {
      return { kind: "file", file: place[1], position: Number(place[2]) };
    }
    const mariadb = /^[0-9]+-[0-9]+-[0-9]+(,[0-9]+-[0-9]+-[0-9]+)*$/;
    const one = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(:[0-9]+(-[0-9]+)?)+";
    const mysql = new RegExp(`^${one}(,${one})*$`, "i");
    return mariadb.test(text) || mysql.test(text) ? { kind: "gtid", gtidSet: text } : undefined;
  },
};

/** Bytes for people: exact below 1024, else with one decimal. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = "B";
  for (const next of units) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${value.toFixed(1).replace(/\.0$/, "")} ${unit}`;
}

/** Whether a URL's host is this machine, so that plain http to it stays inside. */
export function isLoopback(hostname: string): boolean {
  const bare = hostname.replace(/^\[|\]$/g, "");
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}

function parseUrl(text: string): URL | null {
  if (!/^https?:\/\/[^\s]+$/.test(text) || !URL.canParse(text)) return null;
  return new URL(text);
}

function isDnsName(text: string): boolean {
  return (
    text.length <= 253 && /^[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}\.?)*$/.test(text) && !/^[0-9.]+$/.test(text)
  );
}

function hasControlCharacter(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code < 0x20 || code === 0x7f) return true;
  }
  return false;
}
