/**
 * Where a secret comes from, in this order: a systemd credential, a file named by NAME_FILE, the
 * plain variable. Files are read again when they change, so a rotation needs no restart.
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Secret } from "./settings-table.ts";

export interface SecretPlace {
  readonly name: string;
  readonly credential: string;
  readonly credentialsDirectory: string | null;
  readonly file: string | null;
  readonly plain: string | null;
}

export type SecretFault = {
  readonly name: string;
  readonly value: string;
  readonly rule: string;
  readonly mend: string;
};

export interface OpenedSecret {
  readonly secret: Secret;
  readonly fault: SecretFault | null;
  /** A sentence for the log where the place is legal but poor. */
  readonly notice: string | null;
}

const none: Secret = { origin: null, read: () => null };

/** Finds the secret and proves that it can be read now. */
export function openSecret(place: SecretPlace): OpenedSecret {
  if (place.credentialsDirectory !== null) {
    const path = join(place.credentialsDirectory, place.credential);
    if (statOf(path) !== null) return fromFile(place, path, `systemd credential ${place.credential}`);
  }
  if (place.file !== null) {
    const opened = fromFile(place, place.file, `file ${place.file}`);
    const stat = statOf(place.file);
    if (opened.fault !== null || stat === null || (stat.mode & 0o004) === 0) return opened;
    return { secret: none, notice: null, fault: worldReadable(place, place.file) };
  }
  if (place.plain === null) return { secret: none, fault: null, notice: null };
  const value = place.plain;
  return {
    secret: { origin: `variable ${place.name}`, read: () => value },
    fault: null,
    notice: `${place.name} stands in the environment, where other processes of the same user can read it; the systemd credential ${place.credential} or ${place.name}_FILE keeps it out`,
  };
}

function worldReadable(place: SecretPlace, path: string): SecretFault {
  return {
    name: `${place.name}_FILE`,
    value: path,
    rule: "must name a file that not everybody can read",
    mend: `chmod o-rwx '${path}'`,
  };
}

function fromFile(place: SecretPlace, path: string, origin: string): OpenedSecret {
  const reader = fileReader(path);
  try {
    reader.readNow();
  } catch (error) {
    return {
      secret: none,
      notice: null,
      fault: {
        name: `${place.name}_FILE`,
        value: path,
        rule: "must name a file that the agent can read",
        mend: `make it readable for the agent's user (${errorCode(error)})`,
      },
    };
  }
  return { secret: { origin, read: () => reader.read() }, fault: null, notice: null };
}

/**
 * Reads at most once a second, and only when size or time of the file changed: a token is asked for
 * at every request. While the file is away (a rotation replaces it) the last value stays.
 */
function fileReader(path: string): { read(): string; readNow(): string } {
  let value = "";
  let stamp = "";
  let checkedAtMs = -Infinity;
  const readNow = (): string => {
    value = readFileSync(path, "utf8").replace(/\r?\n$/, "");
    const stat = statOf(path);
    stamp = stat === null ? "" : `${stat.mtimeMs}:${stat.size}:${stat.ino}`;
    return value;
  };
  return {
    readNow,
    read: () => {
      const nowMs = performance.now();
      if (nowMs - checkedAtMs < 1000) return value;
      checkedAtMs = nowMs;
      const stat = statOf(path);
      if (stat === null || `${stat.mtimeMs}:${stat.size}:${stat.ino}` === stamp) return value;
      try {
        return readNow();
      } catch {
        return value;
      }
    },
  };
}

function statOf(path: string): { mode: number; mtimeMs: number; size: number; ino: number } | null {
  return statSync(path, { throwIfNoEntry: false }) ?? null;
}

/** The system's code of a failed call, such as ENOENT. */
export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
