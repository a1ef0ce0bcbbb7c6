import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { it } from "node:test";
import { faultsOf } from "../../agent/spool/table-blocks.ts";
import { compacted, filesOf, flip } from "./damage-cases.ts";
import { filled, recover } from "./damage-model.ts";
import { randomOf, seedOf, stateDirOf } from "./fixtures.ts";

const ROUNDS = 4;

/** How the child ended that had the spool open while the file changed: its code, or the signal. */
async function endOfReader(dir: string, change: () => Promise<void>): Promise<string> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "reader.ts"), dir], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const exited = once(child, "exit");
  const started = await Promise.race([once(child.stdout, "data"), exited]);
  assert.equal(String(started[0]), "open\n");
  await change();
  child.stdin.write("go\n");
  const [code, signal] = await exited;
  return String(signal ?? code);
}

/** Where a block begins: with the lengths of an entry. */
function blockOf(table: Buffer, share: number): number {
  const changed = Buffer.from(table);
  const at = Math.floor((table.length - 2000) * share);
  changed[at] = (changed[at] ?? 0) ^ 1;
  const [fault] = faultsOf(changed);
  return fault?.block?.offset ?? assert.fail("a flipped bit damages a block");
}

/** LevelDB reads a table's blocks without their checksums: a length that it believes may be its end. */
it("is healed by the next start when a table goes bad under a process, whether that survived or not", async (t) => {
  const random = randomOf(seedOf(t));
  const dir = await stateDirOf(t);
  const ends: string[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const one = join(dir, String(round));
    const consumer = await filled(one);
    await compacted(one);
    const [table = assert.fail("a table")] = await filesOf(one, /\.ldb$/);
    const bit = 1 << Math.floor(random() * 8);
    const damage = () => flip(table, (bytes) => blockOf(bytes, random()) + Math.floor(random() * 5), bit);
    ends.push(await endOfReader(one, damage));
    const { healed } = await recover(one, consumer);
    assert.ok(healed !== null, `round ${round}: a start found nothing`);
  }
  t.diagnostic(`the process that read it ended with ${ends.join(", ")}`);
});
