/**
 * A small shop, its stream, and the index that is kept of it: the real transform and upkeep on a disk
 * that is a map. Chunks are read as the source gives them: rows of one place, brought forward to a
 * later one by what the stream says in between, without those that came to be there.
 */
import { restarted, withJobs } from "../agent/snapshot-jobs.ts";
import assert from "node:assert/strict";
import type {
  Checkpoint,
  Row,
  SnapshotChunk,
  SnapshotJob,
  SnapshotProgress,
  SourceItem,
  Value,
} from "../agent/change.ts";
import { isVoid, readState, stateKey } from "../agent/index-state.ts";
import { IndexUpkeep, voidedStates } from "../agent/index-upkeep.ts";
import { AgentError } from "../agent/kernel/errors.ts";
import { packRows } from "../agent/packed-rows.ts";
import { Window } from "../agent/source/snapshot/window.ts";
import type { IndexChange } from "../agent/ports.ts";
import { readChildKey, readLookup } from "../agent/transform/index-entry.ts";
import { wholeTables } from "../agent/snapshots.ts";
import { defaultMapping } from "../agent/transform/default-mapping.ts";
import type { Random } from "./oracle/random.ts";
import { checkpoint } from "./spool/fixtures.ts";
import { Changes, makeTransform, partOf } from "./transform/parts.ts";

/** Followed tables with a relation each: key, and the column of the parent. */
export const shopTables = [
  { table: "sales_order_item", key: "item_id", column: "order_id", relation: 3 },
  { table: "customer_address_entity", key: "entity_id", column: "parent_id", relation: 1 },
  { table: "catalog_product_entity", key: "entity_id", column: "sku", relation: 7 },
] as const;

const KEYS = 12;
const CHUNK_ROWS = 3;
type Rows = ReadonlyMap<number, Value>;
type Tables = ReadonlyMap<string, Rows>;

export class IndexShop {
  readonly transform = makeTransform();
  readonly disk = new Map<string, Buffer>();
  readonly logged: string[] = [];
  /** A relation whose state cannot be read. */
  damagedState: number | null = null;
  /** Entries that the next step of a sweep finds damaged. */
  damagedEntries = 0;
  healedAtOpen: string | null = null;
  readonly #random: Random;
  /** The stream since the last loss, and the tables behind each of its items. */
  #stream: SourceItem[] = [];
  #states: Tables[] = [new Map(shopTables.map(({ table }) => [table, new Map()]))];
  #at = 0;
  #furthest = 0;
  #snapshot: SnapshotProgress | undefined;
  /** Places to go back to. */
  #marks: number[] = [];
  #upkeep: IndexUpkeep;
  /** Tables whose parents are texts, as BIGINT's are. */
  readonly #wide = new Set<string>();
  #wallMs = 1_800_000_000_000;

  constructor(random: Random) {
    this.#random = random;
    this.#upkeep = this.#newUpkeep();
  }

  get jobs(): readonly SnapshotJob[] {
    return this.#snapshot?.jobs ?? [];
  }

  get upkeep(): IndexUpkeep {
    return this.#upkeep;
  }

  /** A new loop of capture, in the same process or in a new one; what was not taken is forgotten. */
  async begin(isNewProcess: boolean): Promise<void> {
    if (isNewProcess) this.#upkeep = this.#newUpkeep();
    await this.#upkeep.begin();
    const wanted = this.#upkeep.wanted(this.#checkpoint(), []);
    if (wanted.length > 0) this.#snapshot = withJobs(this.#snapshot, wanted);
  }

  /** A random transaction; or one of its rows alone. */
  write(): void {
    const random = this.#random;
    const changes = new Changes(this.transform);
    const tables = new Map([...this.#now].map(([table, rows]) => [table, new Map(rows)]));
    for (let count = random.int(1, 4); count > 0; count -= 1) this.#change(changes, tables);
    if (changes.list.length === 0) return;
    const end = { file: "bin.000001", position: this.#stream.length + 1 };
    this.#push(partOf(changes.list, { end }), tables);
  }

  /** TRUNCATE, a table of other rows, or an ALTER that leaves them: the column of the parent becomes INT or BIGINT. */
  alter(what: "reset" | "replaced" | "altered"): void {
    const { table } = this.#random.pick(shopTables);
    const tables = new Map([...this.#now].map(([name, rows]) => [name, rows]));
    const rows = [...(tables.get(table) ?? [])];
    const turned = rows
      .toReversed()
      .map(([, parent], index): [number, Value] => [rows[index]?.[0] ?? 0, parent]);
    const after = {
      reset: [],
      replaced: turned.slice(1),
      altered: rows.map(([key, parent]): [number, Value] => [key, otherType(parent)]),
    };
    tables.set(table, new Map(after[what]));
    if (what === "altered" && !this.#wide.delete(table)) this.#wide.add(table);
    const { commitTimeMs, serverId, gtid } = partOf([]);
    const statement = what === "reset" ? "TRUNCATE TABLE" : "ALTER TABLE";
    this.#push(
      {
        kind: "table",
        table: this.#followed(table),
        what,
        statement,
        end: { file: "bin.000001", position: this.#stream.length + 1 },
        gtid,
        serverId,
        commitTimeMs,
        checkpoint: checkpoint(this.#stream.length),
      },
      tables,
    );
  }

  /** Takes so many items of the stream, in one batch. */
  capture(items: number): void {
    const end = Math.min(this.#stream.length, this.#at + items);
    this.#take(this.#stream.slice(this.#at, end));
    this.#at = end;
    this.#furthest = Math.max(this.#furthest, end);
    if (this.#random.chance(0.5)) this.#marks.push(this.#at);
  }

  /** Reads the next rows of the first job, unless its table is altered meanwhile; they may come late. */
  chunk(): void {
    const [job] = this.jobs;
    if (job === undefined) return;
    const selectedAt = this.#random.int(this.#at, this.#stream.length);
    const high = this.#random.int(selectedAt, this.#stream.length);
    const table = this.#followed(job.table);
    const from = this.#at;
    this.capture(high - from);
    if (this.#random.chance(0.5)) this.capture(this.#random.int(1, 4));
    const between = this.#stream.slice(from, this.#at);
    if (between.some((item) => item.kind === "table" && item.table === table)) return;
    const after = Number(job.after?.[0] ?? -1);
    const keys = [...(this.#states[selectedAt]?.get(job.table)?.keys() ?? [])].sort((a, b) => a - b);
    const read = keys.filter((key) => key > after).slice(0, CHUNK_ROWS);
    const begun = job.begun ?? {
      epoch: 1,
      position: { file: "bin.000001", position: from },
      atMs: 0,
      rowsEstimated: 0,
    };
    const isLast = read.length < CHUNK_ROWS;
    const done = { ...job, begun, after: [String(read.at(-1) ?? after)] };
    const rest = this.jobs.slice(1);
    if (this.#snapshot !== undefined)
      this.#snapshot = { ...this.#snapshot, jobs: isLast ? rest : [done, ...rest] };
    const state = this.#states[high]?.get(job.table);
    const rows = read
      .filter((key) => state?.has(key) === true)
      .map((key) => this.#row(job.table, key, state?.get(key) ?? null));
    const followed = this.transform.tables[table];
    assert.ok(followed);
    const window = new Window(table, followed);
    window.add(between);
    const chunk = this.#chunkOf({ ...job, begun }, rows, isLast);
    const overtaken = window.overtaken(chunk.rows, { file: "bin.000001", position: high });
    this.#take([{ ...chunk, overtaken }]);
  }

  /** Back to an earlier place, or, after a replay, to one that is ahead: as damage of a queue makes it, or as a replay does. */
  async goBack(how: "rewind" | "replay"): Promise<void> {
    const mark = this.#random.pick([...this.#marks, this.#at]);
    if (how === "replay") {
      this.#at = Math.min(this.#at, mark);
      return;
    }
    await this.#upkeep.movesTo({ ...this.#checkpoint(), position: mark });
    this.#at = mark;
    if (this.#marks.includes(mark)) this.#marks.splice(this.#marks.indexOf(mark) + 1);
  }

  /** A part of the history that nobody reads; then a new epoch, with or without rows read again. */
  async lose(readsRows: boolean): Promise<void> {
    for (let count = this.#random.int(0, 6); count > 0; count -= 1) this.write();
    const now = this.#now;
    this.#stream = [];
    this.#states = [now];
    [this.#at, this.#furthest, this.#marks] = [0, 0, []];
    this.#apply(await voidedStates(this.#room, this.transform.index.relations));
    const kept = this.jobs.map(({ table, reason, scope, topic }) => ({ table, reason, scope, topic }));
    const empty = { generation: this.#snapshot?.generation ?? 0, paused: false, jobs: [] };
    const tables = new Set<string>(shopTables.map(({ table }) => table));
    const wanted = wholeTables(defaultMapping, "position-lost").filter(({ table }) => tables.has(table));
    this.#snapshot = withJobs(empty, readsRows ? wanted : kept);
  }

  /** One round of the upkeep's own loop. */
  async sweep(): Promise<void> {
    const ending = new AbortController();
    this.#endSleep = () => ending.abort();
    await this.#upkeep.run(ending.signal);
  }

  /** Everything is read to its end. */
  async finish(): Promise<void> {
    for (let round = 0; this.#at < this.#stream.length || this.jobs.length > 0; round += 1) {
      assert.ok(round < 1_000, "it comes to an end");
      this.capture(5);
      this.chunk();
      if (this.jobs.length === 0) await this.begin(false);
    }
    this.capture(0);
    this.#take([{ kind: "progress", commitTimeMs: null, checkpoint: this.#checkpoint() }]);
  }

  /** Children by relation, as the index has them: those that count, or all that lie on disk. */
  async entries(relation: number, onlyValid: boolean): Promise<string[]> {
    const record = await this.#room.get(stateKey(relation));
    const floor = onlyValid ? ((record === null ? null : readState(record))?.floor ?? 0) : 0;
    const found: string[] = [];
    for (const [hex, value] of this.disk) {
      const key = Buffer.from(hex, "hex");
      if (key[0] === 0 || key[1] !== relation || isVoid(value, floor)) continue;
      const entry = readChildKey(key) ?? readLookup(key, value);
      if (entry !== null)
        found.push(`${String(key[0])} ${textOf(entry.child[0])} of ${textOf(entry.parent)}`);
    }
    return found.sort();
  }

  /** What the tables have at the place that is captured. */
  expected(relation: number): string[] {
    const shape = shopTables.find((one) => one.relation === relation);
    const rows = this.#states[this.#at]?.get(shape?.table ?? "") ?? new Map<number, Value>();
    const found: string[] = [];
    for (const [key, parent] of rows) {
      if (parent === null) continue;
      found.push(`1 ${key} of ${textOf(parent)}`);
      if (relation === 7) found.push(`2 ${key} of ${textOf(parent)}`);
    }
    return found.sort();
  }

  /** Whether the place that is captured is the furthest that ever was. */
  get isAtFront(): boolean {
    return this.#at === this.#furthest;
  }

  // --- parts ------------------------------------------------------------------------------------

  get #now(): Tables {
    const now = this.#states.at(-1);
    assert.ok(now);
    return now;
  }

  #change(changes: Changes, tables: Map<string, Map<number, Value>>): void {
    const random = this.#random;
    const { table, key, column } = random.pick(shopTables);
    const rows = tables.get(table) ?? new Map<number, Value>();
    const id = random.int(1, KEYS);
    const parent =
      column === "sku" ? `SKU-${random.int(1, 6)}` : random.chance(0.1) ? null : random.int(1, 4);
    const before = rows.get(id);
    if (before === undefined) {
      changes.insert(table, { [key]: id, [column]: parent });
      rows.set(id, parent);
      return;
    }
    const old = { [key]: id, [column]: before };
    if (random.chance(0.3)) {
      changes.delete(table, old);
      rows.delete(id);
      return;
    }
    const newId = random.chance(0.3) ? random.int(1, KEYS) : id;
    if (newId !== id && rows.has(newId)) return;
    const after = random.chance(0.3) ? before : parent;
    changes.update(table, old, { [key]: newId, [column]: after });
    rows.delete(id);
    rows.set(newId, after);
  }

  #push(item: SourceItem, tables: Tables): void {
    this.#stream.push(item);
    this.#states.push(tables);
  }

  #take(items: readonly SourceItem[]): void {
    this.#wallMs += this.#random.int(0, 2_000);
    const changes: IndexChange[] = [];
    for (const item of items) {
      if (item.kind === "table" && item.what !== "altered")
        this.#snapshot = restarted(this.#snapshot, ({ table }) => this.#followed(table) === item.table);
      this.#upkeep.take(item, changes);
    }
    this.#apply(changes);
  }

  #apply(changes: readonly IndexChange[]): void {
    for (const { key, value } of changes) {
      if (value === null) this.disk.delete(key.toString("hex"));
      else this.disk.set(key.toString("hex"), value);
    }
  }

  #chunkOf(job: SnapshotChunk["job"], rows: readonly Row[], isLast: boolean): SnapshotChunk {
    const followed = this.#followed(job.table);
    return {
      kind: "chunk",
      table: followed,
      job,
      isFirst: job.after === null,
      isReshaped: false,
      isLast,
      rows: packRows(this.transform.tables[followed]?.columns.length ?? 1, rows),
      overtaken: new Map(),
      position: { file: "bin.000001", position: this.#at },
      serverId: 1,
      readAtMs: 0,
      commitTimeMs: null,
      checkpoint: this.#checkpoint(),
    };
  }

  #row(table: string, id: number, parent: Value): (Value | undefined)[] {
    const shape = shopTables.find((one) => one.table === table);
    const columns = this.transform.tables[this.#followed(table)]?.columns ?? [];
    return columns.map((name) => (name === shape?.key ? id : name === shape?.column ? parent : undefined));
  }

  #followed(table: string): number {
    return this.transform.tables.findIndex((one) => one.table === table);
  }

  #checkpoint(): Checkpoint {
    const at = checkpoint(this.#at);
    return this.#snapshot === undefined ? at : { ...at, snapshot: this.#snapshot };
  }

  #endSleep = (): void => undefined;

  readonly #room = {
    get: async (key: Buffer): Promise<Buffer | null> => {
      if (key[1] === this.damagedState) throw new AgentError("SPOOL_CORRUPT", "wrong checksum");
      return this.disk.get(key.toString("hex")) ?? null;
    },
    removeStale: async (prefix: Buffer, isStale: (value: Buffer) => boolean) => {
      let removed = 0;
      for (const [hex, value] of this.disk) {
        if (!hex.startsWith(prefix.toString("hex")) || !isStale(value)) continue;
        this.disk.delete(hex);
        removed += 1;
      }
      const damaged = this.damagedEntries;
      this.damagedEntries = 0;
      return { next: null, removed, damaged };
    },
  };

  #newUpkeep(): IndexUpkeep {
    const say = (message: string): void => void this.logged.push(message);
    return new IndexUpkeep({
      spool: {
        index: this.#room,
        healedAtOpen: this.healedAtOpen,
        stats: () => ({ lossesAtOpen: 0 }),
        checkpoint: () => this.#checkpoint(),
        append: async ({ index = [] }) => this.#apply(index),
      },
      encoder: () => this.transform.index,
      atRest: (change) => change(),
      clock: {
        wallMs: () => this.#wallMs,
        monotonicMs: () => this.#wallMs,
        sleep: async (delayMs) => {
          if (delayMs >= 1_000) this.#endSleep();
        },
      },
      log: { debug: say, info: say, notice: say, warn: say, error: say },
    });
  }
}

function otherType(parent: Value): Value {
  if (typeof parent === "number") return String(parent);
  return typeof parent === "string" && /^\d+$/.test(parent) ? Number(parent) : parent;
}

function textOf(value: Value | undefined): string {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
