/**
 * Child of the power cut's own test: puts 1, 2, 3, ... into a LevelDB and says after each that it is
 * there. `node level-writer.ts DIRECTORY sync|careless`
 */
import { writeSync } from "node:fs";
import { Level } from "level";
import { syncDirectory } from "../../agent/spool/sync-directory.ts";

const [directory = "", care = ""] = process.argv.slice(2);
const level = new Level(directory);
await level.open();
// As the spool does: LevelDB renames CURRENT last of all, and leaves that to chance.
if (care === "sync") await syncDirectory(directory);
const [newest] = await level.keys({ reverse: true, limit: 1 }).all();
for (let number = Number(newest ?? 0) + 1; ; number += 1) {
  await level.put(String(number).padStart(9, "0"), "x".repeat(number % 700), { sync: care === "sync" });
  writeSync(1, `${number}\n`);
}
