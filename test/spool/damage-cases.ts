/** Ways to damage a state directory. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Lane } from "../../agent/change.ts";
import { entriesOf } from "../../agent/spool/database.ts";
import { metaKey, parseQueueKey, queueKey, queueRoom } from "../../agent/spool/keys.ts";
import { cursorsKey, formatKey, marksKey, progressKey, queuesKey } from "../../agent/spool/state.ts";
import { tamper } from "./fixtures.ts";
import { ACKED } from "./damage-model.ts";

export function compacted(dir: string): Promise<void> {
  return tamper(dir, (database) => database.compactRange(Buffer.from([0]), Buffer.from([255])));
}

export async function filesOf(dir: string, pattern: RegExp): Promise<string[]> {
  const names = (await readdir(join(dir, "spool"))).filter((name) => pattern.test(name));
  return names.map((name) => join(dir, "spool", name));
}

export async function largest(dir: string, pattern: RegExp): Promise<string> {
  const files = await filesOf(dir, pattern);
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
  const at = sizes.indexOf(Math.max(...sizes));
  const file = files[at];
  assert.ok(file !== undefined, `${pattern} in ${files.join()}`);
  return file;
}

export async function flip(file: string, at: (bytes: Buffer) => number, bit = 0x10): Promise<void> {
  const bytes = await readFile(file);
  const place = at(bytes);
  bytes[place] = (bytes[place] ?? 0) ^ bit;
  await writeFile(file, bytes);
}

/** Changes the value under a key, as it stands. */
export function flipValue(key: Buffer, at: number) {
  return (dir: string): Promise<void> =>
    tamper(dir, async (database) => {
      const value = Buffer.from((await database.get(key)) ?? "");
      assert.ok(value.length > at);
      value[at] = (value[at] ?? 0) ^ 0x10;
      const batch = database.batch();
      batch.put(key, value);
      await batch.write({ sync: true });
    });
}

export function deleteKey(key: Buffer) {
  return (dir: string): Promise<void> =>
    tamper(dir, async (database) => {
      const batch = database.batch();
      batch.del(key);
      await batch.write({ sync: true });
    });
}

/** Puts something under the key that no agent wrote there. */
export function putStranger(key: Buffer) {
  return (dir: string): Promise<void> =>
    tamper(dir, async (database) => {
      const batch = database.batch();
      batch.put(key, Buffer.from("?"));
      await batch.write({ sync: true });
    });
}

type Where = "head" | "middle" | "tail";

/** A key of the queue of orders near its middle, or its first or last one that waits. */
export function orderKey(where: Where, lane: Lane = "live") {
  return async (dir: string): Promise<Buffer> => {
    const keys: Buffer[] = [];
    await tamper(dir, async (database) => {
      const acked = lane === "live" ? ACKED / 2 : ACKED / 14;
      for await (const [key] of entriesOf(database, queueRoom)) {
        const place = parseQueueKey(key);
        if (place?.tag === 1 && place.lane === lane && place.seq > Math.floor(acked)) keys.push(key);
      }
    });
    const at = where === "head" ? 0 : where === "tail" ? keys.length - 1 : keys.length >> 1;
    return keys[at] ?? assert.fail("no key");
  };
}

export function atRecord(
  where: Where,
  change: (key: Buffer) => (dir: string) => Promise<void>,
  lane: Lane = "live",
) {
  return async (dir: string): Promise<void> => change(await orderKey(where, lane)(dir))(dir);
}

export type Case = readonly [what: string, damage: (dir: string, random: () => number) => Promise<void>];

export const fractions = [0.02, 0.35, 0.7, 0.98];

export const table: readonly Case[] = [
  ...(["head", "middle", "tail"] as const).flatMap((where): Case[] => [
    [`the ${where} record is missing`, atRecord(where, deleteKey)],
    [`a bit of the ${where} record's version`, atRecord(where, (key) => flipValue(key, 0))],
    [`a bit of the ${where} record's checksum`, atRecord(where, (key) => flipValue(key, 2))],
    [`a bit of the ${where} record's length`, atRecord(where, (key) => flipValue(key, 7))],
    [`a bit of the ${where} record's count`, atRecord(where, (key) => flipValue(key, 12))],
    [`a bit of the ${where} record's routing header`, atRecord(where, (key) => flipValue(key, 40))],
    [`a bit of the ${where} record's payload`, atRecord(where, (key) => flipValue(key, 300))],
  ]),
  ...(["head", "middle", "tail"] as const).flatMap((where): Case[] => [
    [`the ${where} record of a bulk lane is missing`, atRecord(where, deleteKey, "bulk")],
    [
      `a bit of the ${where} record's payload in a bulk lane`,
      atRecord(where, (key) => flipValue(key, 300), "bulk"),
    ],
  ]),
  [
    "records of both lanes of a queue",
    async (dir) => {
      await atRecord("middle", deleteKey, "live")(dir);
      await atRecord("middle", deleteKey, "bulk")(dir);
    },
  ],
  ...[formatKey, queuesKey, progressKey, cursorsKey, marksKey, metaKey("agent/identity")].flatMap(
    (key): Case[] => [
      [`a bit of the state's record ${key.toString("utf8", 1)}`, flipValue(key, 15)],
      [`the state's record ${key.toString("utf8", 1)} is missing`, deleteKey(key)],
    ],
  ),
  [
    "checkpoint and marks are missing",
    async (dir) => {
      await deleteKey(progressKey)(dir);
      await deleteKey(marksKey)(dir);
    },
  ],
  ["a record of a queue without a name", putStranger(queueKey(2 ** 31, { tag: 9, lane: "live" }, 1))],
  ...fractions.map((share): Case => [
    `a bit of the log at ${share}`,
    async (dir) => flip(await largest(dir, /\.log$/), (bytes) => Math.floor(bytes.length * share)),
  ]),
  ...fractions.map((share): Case => [
    `the log cut at ${share}`,
    async (dir) => {
      const file = await largest(dir, /\.log$/);
      await truncate(file, Math.floor((await stat(file)).size * share));
    },
  ]),
  ["the log is missing", async (dir) => rm(await largest(dir, /\.log$/))],
  ...fractions.map((share): Case => [
    `a bit of a table's data at ${share}`,
    async (dir) => {
      await compacted(dir);
      await flip(await largest(dir, /\.ldb$/), (bytes) => Math.floor((bytes.length - 400) * share));
    },
  ]),
  // LevelDB, which does not read checksums, would believe these.
  ...([0, 1, 2] as const).map((at): Case => [
    `the length ${at} of an entry of a table, much larger`,
    async (dir) => {
      await compacted(dir);
      await flip(await largest(dir, /\.ldb$/), () => at, 0x80);
    },
  ]),
  [
    "a bit of a table's index block",
    async (dir) => {
      await compacted(dir);
      await flip(await largest(dir, /\.ldb$/), (bytes) => bytes.length - 48 - 60);
    },
  ],
  [
    "a bit of a table's footer",
    async (dir) => {
      await compacted(dir);
      await flip(await largest(dir, /\.ldb$/), (bytes) => bytes.length - 4);
    },
  ],
  [
    "a bit of the place of a table's index",
    async (dir) => {
      await compacted(dir);
      await flip(await largest(dir, /\.ldb$/), (bytes) => bytes.length - 46);
    },
  ],
  [
    "a table cut in half",
    async (dir) => {
      await compacted(dir);
      const file = await largest(dir, /\.ldb$/);
      await truncate(file, (await stat(file)).size >> 1);
    },
  ],
  [
    "a table is missing",
    async (dir) => {
      await compacted(dir);
      await rm(await largest(dir, /\.ldb$/));
    },
  ],
  [
    "a table is empty",
    async (dir) => {
      await compacted(dir);
      await writeFile(await largest(dir, /\.ldb$/), "");
    },
  ],
  ...fractions.map((share): Case => [
    `a bit of the MANIFEST at ${share}`,
    async (dir) => {
      await compacted(dir);
      await flip(await largest(dir, /^MANIFEST/), (bytes) => Math.floor(bytes.length * share));
    },
  ]),
  ["the MANIFEST is missing", async (dir) => rm(await largest(dir, /^MANIFEST/))],
  ["the MANIFEST is empty", async (dir) => writeFile(await largest(dir, /^MANIFEST/), "")],
  ["CURRENT is missing", async (dir) => rm(await largest(dir, /^CURRENT$/))],
  ["CURRENT is empty", async (dir) => writeFile(await largest(dir, /^CURRENT$/), "")],
  [
    "CURRENT names a stranger",
    async (dir) => writeFile(await largest(dir, /^CURRENT$/), "MANIFEST-999999\n"),
  ],
  ["LevelDB's own LOG is missing", async (dir) => rm(await largest(dir, /^LOG$/))],
  ["the database is gone", (dir) => rm(join(dir, "spool"), { recursive: true })],
  [
    "the database is emptied",
    async (dir) => {
      await rm(join(dir, "spool"), { recursive: true });
      await mkdir(join(dir, "spool"));
    },
  ],
  ["the marker is missing", (dir) => rm(join(dir, "state.json"))],
  ["a bit of the marker", (dir) => flip(join(dir, "state.json"), (bytes) => bytes.length >> 1)],
  ["the marker is empty", (dir) => writeFile(join(dir, "state.json"), "")],
];
