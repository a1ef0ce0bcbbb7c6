import assert from "node:assert/strict";
import { readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import { AgentError } from "../../agent/kernel/errors.ts";
import { metaKey } from "../../agent/spool/keys.ts";
import { readMarker, writeMarker } from "../../agent/spool/marker.ts";
import { decodeJson, RecordEncoder } from "../../agent/spool/record.ts";
import { verifySpool } from "../../agent/spool/verify.ts";
import {
  checkpoint,
  copyOpenState,
  CUSTOMERS,
  event,
  openSpool,
  ORDERS,
  readAll,
  stateDirOf,
  tamper,
} from "./fixtures.ts";

const COUNT = 400;
const orders = Array.from({ length: COUNT }, (_, n) => event(n));
const customers = Array.from({ length: COUNT }, (_, n) => event(n, { queue: CUSTOMERS }));

/** A state with 400 records in each of two queues: orders first, then customers. */
async function filled(t: TestContext): Promise<string> {
  const dir = await stateDirOf(t);
  const spool = await openSpool(dir);
  for (const [at, each] of [...orders, ...customers].entries()) {
    await spool.append({ events: [each], checkpoint: checkpoint(at + 1) });
  }
  await spool.close();
  return dir;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    assert.ok(error instanceof AgentError, String(error));
    return error.code;
  }
}

describe("opening the spool", () => {
  it("lets nobody else read the state: directories 0700, files 0600", async (t) => {
    const dir = join(await stateDirOf(t), "state");
    const spool = await openSpool(dir);
    await spool.append({ events: [event(1)], checkpoint: checkpoint(1) });
    await spool.close();
    assert.equal((await stat(dir)).mode & 0o777, 0o700);
    for (const entry of await readdir(dir, { withFileTypes: true, recursive: true })) {
      const { mode } = await stat(join(entry.parentPath, entry.name));
      assert.equal(mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, entry.name);
    }
  });

  it("has the first checkpoint on disk when its append resolves, though it covers no event", async (t) => {
    const dir = await stateDirOf(t);
    const copy = await stateDirOf(t);
    const spool = await openSpool(dir);
    await spool.append({ events: [], checkpoint: checkpoint(4) });
    await copyOpenState(dir, copy);
    await spool.close();
    const again = await openSpool(copy);
    assert.deepEqual(again.checkpoint(), checkpoint(4));
    await again.close();
  });

  it("refuses a directory that is in use", async (t) => {
    const dir = await stateDirOf(t);
    const spool = await openSpool(dir);
    assert.equal(await codeOf(openSpool(dir)), "SPOOL_LOCKED");
    assert.equal(await codeOf(verifySpool(dir)), "SPOOL_LOCKED");
    await spool.close();
    await (await openSpool(dir)).close();
  });

  it("refuses an older and a newer format, by its marker and by its records", async (t) => {
    for (const version of [1, 4]) {
      const dir = await filled(t);
      await tamper(dir, async (database) => {
        const key = metaKey("format");
        const value = await database.get(key);
        assert.ok(value !== undefined);
        value[0] = version;
        const batch = database.batch();
        batch.put(key, value);
        await batch.write({ sync: true });
      });
      assert.equal(await codeOf(openSpool(dir)), "SPOOL_FORMAT");
      await writeFile(join(dir, "state.json"), `{"formatVersion":${version},"createdMs":1}`);
      assert.equal(await codeOf(openSpool(dir)), "SPOOL_FORMAT");
      assert.equal(await codeOf(verifySpool(dir)), "SPOOL_FORMAT");
    }
  });

  it("opens a state of format 2, which is of format 3 from then on", async (t) => {
    const dir = await filled(t);
    const formatNow = async (change?: number): Promise<number> => {
      let found = 0;
      await tamper(dir, async (database) => {
        const key = metaKey("format");
        const value = await database.get(key);
        assert.ok(value !== undefined);
        const format: { formatVersion: number } = JSON.parse(decodeJson(key, value));
        found = format.formatVersion;
        if (change === undefined) return;
        const batch = database.batch();
        batch.put(key, new RecordEncoder().json(key, { ...format, formatVersion: change }));
        await batch.write({ sync: true });
      });
      return found;
    };
    await formatNow(2);
    const marker = await readMarker(dir);
    assert.ok(typeof marker === "object");
    await writeMarker(dir, { ...marker, formatVersion: 2 });
    const spool = await openSpool(dir);
    assert.equal((await readAll(spool, ORDERS)).length, COUNT);
    await spool.append({
      events: Array.from({ length: 100 }, (_, n) => event(n)),
      checkpoint: checkpoint(2 * COUNT + 1),
    });
    assert.equal((await readAll(spool, ORDERS)).length, COUNT + 100);
    await spool.close();
    assert.equal(await formatNow(), 3);
  });
});
