import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { SourceItem, TransactionPart } from "../../agent/change.ts";
import { BinlogMaker, tableIds } from "./binlog-maker.ts";
import { checkpointAt, replay } from "./replay-made.ts";

/** Small and fast (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

interface ModelRow {
  readonly table: number;
  readonly id: number;
  readonly imageIndex: number;
  readonly ordinal: number;
}

interface ModelGroup {
  readonly gtid: string;
  readonly start: number;
  readonly end: number;
  readonly rows: readonly ModelRow[];
}

const tableOf: Readonly<Record<number, number>> = { [tableIds.followedA]: 0, [tableIds.followedB]: 1 };

/** Writes a random group and says what of it must arrive. */
class GroupMaker {
  readonly #maker: BinlogMaker;
  readonly #random: () => number;
  #nextId = 1;

  constructor(maker: BinlogMaker, random: () => number) {
    this.#maker = maker;
    this.#random = random;
  }

  #upTo(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  make(): ModelGroup | null {
    const maker = this.#maker;
    const start = maker.position;
    maker.seconds += this.#upTo(3);
    const gtid = maker.gtid();
    let rows: ModelRow[] = [];
    const images = [0, 0];
    let ordinal = 0;
    const marks: { name: string; kept: number }[] = [];
    for (let step = this.#upTo(12); step >= 0; step -= 1) {
      const dice = this.#random();
      if (dice < 0.15) {
        const name = "xyz"[this.#upTo(3)] ?? "x";
        maker.query(`SAVEPOINT \`${name}\``, { inside: true });
        const same = marks.findIndex((mark) => mark.name === name);
        if (same >= 0) marks.splice(same, 1);
        marks.push({ name, kept: rows.length });
      } else if (dice < 0.3 && marks.length > 0) {
        const at = this.#upTo(marks.length);
        const mark = marks[at];
        if (mark === undefined) continue;
        const word = this.#random() < 0.5 ? "ROLLBACK TO" : "rollback to savepoint";
        maker.query(`${word} \`${mark.name.toUpperCase()}\``, { inside: true });
        marks.length = at + 1;
        rows = rows.slice(0, mark.kept);
      } else {
        const ids = [tableIds.followedA, tableIds.followedB, tableIds.noise];
        const id = ids[this.#upTo(3)] ?? tableIds.noise;
        const values = Array.from({ length: 1 + this.#upTo(4) }, () => this.#nextId++);
        maker.tableMap(id);
        maker.insert(id, values);
        const table = tableOf[id];
        if (table === undefined) continue;
        for (const value of values) {
          rows.push({ table, id: value, imageIndex: images[table] ?? 0, ordinal });
          images[table] = (images[table] ?? 0) + 1;
          ordinal += 1;
        }
      }
    }
    return this.#end(rows, gtid, start);
  }

  #end(rows: readonly ModelRow[], gtid: string, start: number): ModelGroup | null {
    const dice = this.#random();
    if (dice < 0.15) this.#maker.query("ROLLBACK");
    else if (dice < 0.3) this.#maker.query("COMMIT");
    else this.#maker.xid();
    if (dice < 0.15 || rows.length === 0) return null;
    return { gtid, start, end: this.#maker.position, rows };
  }
}

function randomHistory(seed: number, position: number) {
  const next = randomFrom(seed);
  const maker = new BinlogMaker({ position, checksums: next() < 0.7, zeroEnds: next() < 0.5 });
  const groups: ModelGroup[] = [];
  const writer = new GroupMaker(maker, next);
  for (let count = 0; count < 25; count += 1) {
    const group = writer.make();
    if (group !== null) groups.push(group);
    if (next() < 0.1 && position === 4) maker.rotate(`binlog.${String(count + 2).padStart(6, "0")}`);
  }
  return { maker, groups, from: checkpointAt("binlog.000001", position) };
}

function parts(items: readonly SourceItem[]): TransactionPart[] {
  return items.filter((item) => item.kind === "transaction");
}

/** Parts joined into what the model says of a group. */
function joined(items: readonly SourceItem[]): ModelGroup[] {
  const groups: ModelGroup[] = [];
  let rows: ModelRow[] = [];
  for (const part of parts(items)) {
    for (const { table, row, imageIndex, ordinal } of part.changes) {
      rows.push({ table, id: Number(row[0]), imageIndex, ordinal });
    }
    if (!part.isLast) continue;
    groups.push({ gtid: part.gtid ?? "", start: part.start.position, end: part.end.position, rows });
    rows = [];
  }
  return groups;
}

const starts = [
  { name: "from a file's start", position: 4 },
  { name: "across 4 GiB", position: 0x1_0000_0000 - 3_000 },
];

describe("groups of random histories", () => {
  for (const { name, position } of starts) {
    for (let seed = 1; seed <= 40; seed += 1) {
      test(`give exactly what was committed, whole or in parts, ${name} (seed ${seed})`, () => {
        const { maker, groups, from } = randomHistory(seed, position);
        assert.deepEqual(joined(replay(maker, { from }).items), groups);
        const limits = { bytes: 80 + (seed % 7) * 40, rows: 3 + (seed % 5) };
        const small = replay(maker, { from, limits });
        assert.deepEqual(joined(small.items), groups);
        assert.ok(
          small.widestPart <= limits.bytes || parts(small.items).every(({ changes }) => changes.length <= 4),
        );
        assert.equal(small.end.position, maker.position);
      });

      test(`give the same remaining parts from every checkpoint, proven, ${name} (invariant 2; seed ${seed})`, () => {
        const { maker, from } = randomHistory(seed, position);
        const limits = { bytes: 100 + (seed % 5) * 60, rows: 4 };
        const { items } = replay(maker, { from, limits });
        for (const [index, { checkpoint }] of items.entries()) {
          const rest = replay(maker, { from: checkpoint, limits, prove: true });
          assert.deepEqual(rest.items, items.slice(index + 1), `after item ${index}`);
          assert.ok(checkpoint.resumePosition < 0x1_0000_0000);
        }
      });
    }
  }
});
