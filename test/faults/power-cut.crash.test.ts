/** The volume that loses its power does what it says: what was fsynced stays, and the rest may go. */
import assert from "node:assert/strict";
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, describe, it } from "node:test";
import { Level } from "level";
import { isCorruption } from "../../agent/spool/database.ts";
import { Random, runSeed } from "../oracle/random.ts";
import { PowerCutVolume } from "./power-cut.ts";

const random = new Random(runSeed());

/** What a file was given, and what of it an fsync covered. */
interface Written {
  readonly bytes: number[];
  durable: number;
  /** The name is on disk: the file was synced under it, or its directory was. */
  named: boolean;
}

class Player {
  readonly #root: string;
  readonly files = new Map<string, Written>();
  #made = 0;

  constructor(root: string) {
    this.#root = root;
  }

  step(): void {
    const names = [...this.files.keys()];
    if (names.length === 0 || random.chance(0.2)) return this.#append(`file-${(this.#made += 1)}`);
    const name = random.pick(names);
    random.weighted<() => void>([
      [6, () => this.#append(name)],
      [3, () => this.#sync(name)],
      [1, () => this.#rename(name)],
      [1, () => this.#remove(name)],
      [1, () => this.#syncNames()],
    ])();
  }

  #append(name: string): void {
    const file = this.files.get(name) ?? { bytes: [], durable: 0, named: false };
    this.files.set(name, file);
    const fill = random.int(1, 255);
    const bytes = Buffer.alloc(random.int(1, 20_000), fill);
    const open = openSync(join(this.#root, name), "a");
    writeSync(open, bytes);
    closeSync(open);
    file.bytes.push(...bytes);
  }

  #sync(name: string): void {
    const open = openSync(join(this.#root, name), "r+");
    fsyncSync(open);
    closeSync(open);
    const file = this.files.get(name);
    assert.ok(file !== undefined);
    file.durable = file.bytes.length;
    file.named = true;
  }

  #rename(name: string): void {
    const to = `file-${(this.#made += 1)}`;
    renameSync(join(this.#root, name), join(this.#root, to));
    const file = this.files.get(name);
    assert.ok(file !== undefined);
    // Until the next fsync the old name or the new one is there.
    this.files.delete(name);
    this.files.set(to, { ...file, named: false });
  }

  #remove(name: string): void {
    rmSync(join(this.#root, name));
    this.files.delete(name);
  }

  #syncNames(): void {
    const open = openSync(this.#root, "r");
    fsyncSync(open);
    closeSync(open);
    for (const file of this.files.values()) file.named = true;
  }

  /** How many files lost something; fails on what must not be. */
  check(): number {
    let lossy = 0;
    for (const [name, file] of this.files) {
      const path = join(this.#root, name);
      if (!existsSync(path)) {
        assert.ok(!file.named, `${name} was on disk by its name`);
        lossy += 1;
        continue;
      }
      const found = readFileSync(path);
      assert.ok(
        found.length >= file.durable,
        `${name}: ${found.length} bytes of ${file.durable} that were synced`,
      );
      assert.ok(found.length <= file.bytes.length, `${name} has grown`);
      for (const [at, byte] of found.entries()) {
        const isFree = at >= file.durable && byte === 0;
        assert.ok(byte === file.bytes[at] || isFree, `${name}: byte ${at} is ${byte}, never written`);
      }
      if (!found.equals(Buffer.from(file.bytes))) lossy += 1;
    }
    return lossy;
  }
}

describe("power cut", () => {
  const volumes: PowerCutVolume[] = [];
  after(async () => {
    for (const volume of volumes) await volume.remove();
  });
  const mounted = async (fsyncMs: number): Promise<PowerCutVolume> => {
    const volume = await PowerCutVolume.mount({ fsyncMs });
    volumes.push(volume);
    return volume;
  };

  it("keeps what was fsynced, loses some of the rest, and invents nothing", async () => {
    let [lossy, whole] = [0, 0];
    for (let round = 0; round < 40; round += 1) {
      const volume = await mounted(0);
      const player = new Player(volume.path);
      for (let steps = random.int(1, 60); steps > 0; steps -= 1) player.step();
      await volume.cut(random.int(0, 2 ** 31), () => Promise.resolve());
      const lost = player.check();
      lossy += lost;
      whole += player.files.size - lost;
      await volume.remove();
      volumes.pop();
    }
    console.log(`${lossy} files lost something, ${whole} nothing`);
    assert.ok(lossy > 0 && whole > 0, "both happen");
  });

  /** Acknowledged puts that are gone, over so many cuts of one database. */
  async function lostPuts(care: "sync" | "careless", cuts: number): Promise<number> {
    const volume = await mounted(0.5);
    const directory = join(volume.path, "db");
    let lost = 0;
    for (let round = 0; round < cuts; round += 1) {
      const writer = spawn(
        process.execPath,
        [join(import.meta.dirname, "level-writer.ts"), directory, care],
        {
          stdio: ["ignore", "pipe", "inherit"],
        },
      );
      const exited = once(writer, "exit");
      let last = 0;
      let enough = random.int(1, 400);
      const reached = Promise.withResolvers<void>();
      const read = (async () => {
        for await (const line of createInterface({ input: writer.stdout })) {
          last = Number(line);
          enough -= 1;
          if (enough === 0) reached.resolve();
        }
      })();
      await Promise.race([reached.promise, exited]);
      assert.ok(enough <= 0, "the writer ended by itself");
      await volume.cut(random.int(0, 2 ** 31), async () => {
        writer.kill("SIGKILL");
        await exited;
      });
      await read;
      lost += await missing(directory, last);
      // A database that cannot be opened has no next round.
      if (lost > 0) break;
    }
    return lost;
  }

  async function missing(directory: string, last: number): Promise<number> {
    const level = new Level(directory);
    try {
      await level.open();
    } catch (error) {
      // All that was acknowledged is gone with it.
      if (isCorruption(error)) return last;
      throw error;
    }
    let lost = 0;
    for (let number = 1; number <= last; number += 1) {
      const value = await level.get(String(number).padStart(9, "0"));
      if (value?.length !== number % 700) lost += 1;
    }
    await level.close();
    return lost;
  }

  it("is survived by a LevelDB that syncs its writes", async () => {
    assert.equal(await lostPuts("sync", 8), 0);
  });

  it("catches a LevelDB that does not sync its writes", async () => {
    let lost = 0;
    for (let tries = 0; lost === 0 && tries < 5; tries += 1) lost = await lostPuts("careless", 4);
    assert.ok(lost > 0, "acknowledged puts are gone");
  });
});
