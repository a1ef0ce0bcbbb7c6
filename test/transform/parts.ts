/** Parts of transactions and a transform, for tests and benchmarks of this room. */
import type { Checkpoint, OutboundEvent, RowChange, TransactionPart, Value } from "../../agent/change.ts";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { DEFAULT_IDENTITY_NAMESPACE } from "../../agent/transform/identity.ts";
import { createTransform } from "../../agent/transform/transform.ts";
import type { Transform, TransformOptions } from "../../agent/transform/transform.ts";

export const testOptions: TransformOptions = {
  mapping: defaultMapping,
  shop: "demo",
  database: "magento_db",
  namespace: DEFAULT_IDENTITY_NAMESPACE,
  pubsub: "pubsub",
  instance: "1b671a64-40d5-491e-99b0-da01ff1f3341",
  schemaVersions: {},
  fieldHashKey: null,
  maxEventBytes: 4_000_000,
};

export const context = {
  epoch: 1_760_000_000,
  capturedAtMs: Date.UTC(2026, 1, 3, 4, 5, 6, 789),
  eventsBefore: 0,
};

export function makeTransform(overrides: Partial<TransformOptions> = {}): Transform {
  return createTransform({ ...testOptions, ...overrides });
}

const checkpoint: Checkpoint = {
  formatVersion: 2,
  epoch: context.epoch,
  file: "mariadb-bin.000042",
  position: 98_765,
  resumePosition: 98_765,
  gtidSet: null,
  serverId: 1,
  serverUuid: null,
  lastTransaction: null,
  partial: null,
  newestCommitMs: 0,
};

/** A committed transaction in one part. */
export function partOf(
  changes: readonly RowChange[],
  overrides: Partial<TransactionPart> = {},
): TransactionPart {
  return {
    kind: "transaction",
    start: { file: "mariadb-bin.000042", position: 97_000 },
    end: { file: "mariadb-bin.000042", position: 98_765 },
    gtid: "0-1-12345",
    serverId: 1,
    commitTimeMs: Date.UTC(2026, 1, 3, 4, 5, 6),
    changes,
    firstOrdinal: 0,
    isLast: true,
    checkpoint,
    ...overrides,
  };
}

export type RowValues = Readonly<Record<string, Value>>;

/** Row changes of one transaction, by names of tables and columns; counts the images. */
export class Changes {
  readonly list: RowChange[] = [];
  readonly #transform: Transform;
  readonly #images = new Map<number, number>();

  constructor(transform: Transform) {
    this.#transform = transform;
  }

  insert(table: string, row: RowValues): this {
    return this.#add(table, "insert", row, null);
  }

  delete(table: string, row: RowValues): this {
    return this.#add(table, "delete", row, null);
  }

  /** `old` as the source gives it: only what differs, or all when a key column differs. */
  update(table: string, before: RowValues, after: RowValues): this {
    const followed = this.#tableOf(table);
    const keyChanged = followed.keyColumns.some((index) => {
      const column = followed.columns[index] ?? "";
      return before[column] !== after[column];
    });
    const old = Object.fromEntries(
      Object.entries(before).filter(([column, value]) => keyChanged || value !== after[column]),
    );
    return this.#add(table, "update", after, old);
  }

  #add(table: string, kind: RowChange["kind"], row: RowValues, old: RowValues | null): this {
    const index = this.#transform.tables.indexOf(this.#tableOf(table));
    const { columns } = this.#tableOf(table);
    const imageIndex = this.#images.get(index) ?? 0;
    this.#images.set(index, imageIndex + 1);
    this.list.push({
      table: index,
      kind,
      row: columns.map((column) => row[column]),
      old: old === null ? null : columns.map((column) => old[column]),
      imageIndex,
      ordinal: this.list.length,
    });
    return this;
  }

  #tableOf(table: string): Transform["tables"][number] {
    const followed = this.#transform.tables.find((candidate) => candidate.table === table);
    if (followed === undefined) throw new Error(`no followed table ${table}`);
    return followed;
  }
}

/** The event in wire form, read back. Loose on purpose: tests look into it at any depth. */
export interface ReadEvent {
  readonly [attribute: string]: unknown;
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly sequence: string;
  readonly traceparent: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** The JSON text inside the payload's literal. */
export function textOf(event: OutboundEvent): string {
  const text: unknown = JSON.parse(event.payload.toString("utf8"));
  if (typeof text !== "string") throw new Error("the payload is not a JSON string");
  return text;
}

export function readEvent(event: OutboundEvent): ReadEvent {
  const parsed: ReadEvent = JSON.parse(textOf(event));
  return parsed;
}
