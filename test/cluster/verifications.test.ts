import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { Applier } from "../../cluster/consumer/applier.ts";
import { deliveredEvent, entityEvent, MalformedEventError } from "../../cluster/consumer/event.ts";
import { rowHash } from "../../cluster/consumer/row-hash.ts";
import type { VerificationReport } from "../../cluster/consumer/verification-tables.ts";
import {
  entityCloudEvent,
  entityId,
  randomFrom,
  rangeCloudEvent,
  sequenceAt,
  shuffled,
  type CloudEvent,
} from "./events.ts";
import { removeDirectory, throwAwayDirectory } from "../servers/directories.ts";

const instance = "0f0e0d0c-1111-4222-8333-444455556666";
const graceMs = 1_000;
const tries = 3;

/** An applier whose time the test moves. */
class Consumer {
  nowMs = 1_700_000_000_000;
  readonly done: VerificationReport[] = [];
  readonly applier: Applier;

  constructor(file = ":memory:") {
    this.applier = new Applier(file, {}, { graceMs, tries, nowMs: () => this.nowMs });
  }

  take(...events: readonly CloudEvent[]): void {
    this.applier.inTransaction(() => {
      for (const event of events) this.applier.receive(deliveredEvent(event));
    });
  }

  /** Looks as often as it takes, and once more. */
  pass(looks = tries + 2): void {
    for (let look = 0; look < looks; look += 1) {
      this.nowMs += graceMs;
      this.done.push(...this.applier.lookAgain());
    }
  }

  report(generation: number): VerificationReport {
    const report = this.applier.verification(instance, generation);
    assert.ok(report !== null);
    return report;
  }
}

type Entry = readonly [number | string, string | null];

function digest(generation: number, n: number, offset: number, rows: readonly Entry[]): CloudEvent {
  return {
    id: `digest-${generation}-${offset}-${n}`,
    type: "magento.digest",
    time: "2026-01-01T00:00:00.000Z",
    sequence: sequenceAt(n),
    data: {
      instance,
      generation,
      entity: "order",
      sequence: sequenceAt(n),
      offset,
      count: rows.length,
      rows,
    },
  };
}

interface End {
  readonly generation: number;
  readonly from: number;
  readonly n: number;
  readonly rows: number;
  readonly scope?: { readonly from: string | null; readonly to: string | null; readonly keys: unknown };
}

function verified({ generation, from, n, rows, scope }: End): CloudEvent {
  return {
    id: `verified-${generation}`,
    type: "magento.verified",
    time: "2026-01-01T00:00:00.000Z",
    sequence: sequenceAt(n),
    data: {
      instance,
      generation,
      entity: "order",
      sequence: sequenceAt(n),
      from: null,
      to: null,
      keys: null,
      ...scope,
      rows,
      from_sequence: sequenceAt(from),
    },
  };
}

function order(key: number, n: number, status: string, op: "c" | "u" | "d" | "r" = "u"): CloudEvent {
  return entityCloudEvent({ entity: "order", op, key, n, fields: { status } });
}

/** As the source has it. */
function hashOf(event: CloudEvent): Entry {
  const { magentoId, fields } = entityEvent(event.data);
  return [magentoId, rowHash(magentoId, fields)];
}

/** A source and what it said: rows by key, with the events that brought them there. */
class Source {
  n = 0;
  readonly rows = new Map<number, CloudEvent>();
  readonly events: CloudEvent[] = [];
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  write(transactions: number): void {
    for (let count = 0; count < transactions; count += 1) {
      this.n += 1;
      const key = 1 + Math.floor(this.#random() * 40);
      const gone = this.rows.has(key) && this.#random() < 0.25;
      const op = gone ? "d" : this.rows.has(key) ? "u" : "c";
      const event = order(key, this.n, `s${this.n}`, op);
      this.events.push(event);
      if (gone) this.rows.delete(key);
      else this.rows.set(key, event);
    }
  }

  /** Reads all of it in chunks, and writes in between. */
  verify(generation: number): CloudEvent[] {
    this.n += 1;
    const from = this.n;
    const digests: CloudEvent[] = [];
    let offset = 0;
    for (let key = 0; key < 40; key += 10) {
      const rows = [...this.rows]
        .filter(([one]) => one > key && one <= key + 10)
        .map(([, event]) => hashOf(event));
      this.n += 1;
      digests.push(digest(generation, this.n, offset, rows));
      offset += rows.length;
      this.write(Math.floor(this.#random() * 8));
    }
    this.n += 1;
    return [...digests, verified({ generation, from, n: this.n, rows: offset })];
  }
}

test("no drift is reported, whatever order events and digests come in, doubled, and while more is written", () => {
  for (let round = 0; round < 60; round += 1) {
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = randomFrom(seed);
    const source = new Source(random);
    const consumer = new Consumer();
    source.write(150);
    const digests = source.verify(1);
    source.write(60);
    const all = [...source.events, ...digests];
    const sent = shuffled([...all, ...all.filter(() => random() < 0.3)], random);
    for (let at = 0; at < sent.length;) {
      const some = 15 + Math.floor(random() * 40);
      consumer.take(...sent.slice(at, at + some));
      at += some;
      // All of it takes many times as long as a row that does not agree is given.
      consumer.nowMs += random() * graceMs;
      consumer.done.push(...consumer.applier.lookAgain());
    }
    consumer.pass();
    const report = consumer.report(1);
    const rows = report.rows ?? -1;
    assert.equal(report.complete, true, `seed ${seed}`);
    assert.deepEqual(
      [report.missing, report.changed, report.extra, report.drifts],
      [0, 0, 0, []],
      `seed ${seed}`,
    );
    assert.equal(report.compared + report.newer, rows, `seed ${seed}`);
    assert.equal(consumer.done.length, 1, `seed ${seed}`);
    consumer.applier.close();
  }
});

test("what was changed, deleted or put there behind the consumer's back is found, and nothing else", () => {
  for (let round = 0; round < 60; round += 1) {
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = randomFrom(seed);
    const source = new Source(random);
    const consumer = new Consumer();
    source.write(150);
    consumer.take(...source.events);
    const before = source.events.length;
    const [changed, missing] = shuffled([...source.rows.keys()], random);
    assert.ok(changed !== undefined && missing !== undefined);
    // No event of the source says any of this.
    consumer.take({ ...order(changed, source.n, "other"), id: "behind" });
    const event = source.rows.get(changed);
    assert.ok(event !== undefined);
    source.n += 1;
    consumer.take(
      order(changed, source.n, "other", "u"),
      order(missing, source.n, "", "d"),
      order(77, source.n, "x", "c"),
    );
    const digests = source.verify(1);
    const touched = new Set(source.events.slice(before).map(({ data }) => data["magento_id"]));
    consumer.take(...shuffled([...digests, ...digests, ...source.events.slice(before)], random));
    consumer.pass();
    const expected = [
      ...(touched.has(changed)
        ? []
        : [{ id: entityId("order", changed), magento_id: changed, kind: "changed" }]),
      ...(touched.has(missing)
        ? []
        : [{ id: entityId("order", missing), magento_id: missing, kind: "missing" }]),
      { id: entityId("order", 77), magento_id: 77, kind: "extra" },
    ].toSorted((one, other) => one.magento_id - other.magento_id);
    const report = consumer.report(1);
    assert.equal(report.complete, true, `seed ${seed}`);
    assert.deepEqual(report.drifts, expected, `seed ${seed}`);
    assert.equal(report.missing + report.changed + report.extra, expected.length);
    consumer.applier.close();
  }
});

test("a mismatch counts only after its tries, and not while older events of the entity still come", () => {
  const consumer = new Consumer();
  consumer.take(order(1, 10, "old"));
  const now = order(1, 20, "new");
  consumer.take(digest(1, 30, 0, [hashOf(now)]), verified({ generation: 1, from: 25, n: 31, rows: 1 }));
  for (let key = 2; key < 12; key += 1) {
    consumer.pass(1);
    assert.deepEqual([consumer.report(1).complete, consumer.report(1).waiting], [false, 1]);
    consumer.nowMs += graceMs / 2;
    consumer.take(order(key, 12, "older"));
    consumer.nowMs -= graceMs / 2;
  }
  consumer.take(now);
  consumer.pass();
  // The others came late, were there before the verification, and the digest lists none of them.
  assert.deepEqual([consumer.report(1).compared, consumer.report(1).changed], [1, 0]);
  consumer.applier.close();
});

test("a range or a list of keys is compared alone, and what is too large is neither equal nor drifted", () => {
  const consumer = new Consumer();
  for (const key of [1, 2, 3, 4, 5]) consumer.take(order(key, key, `s${key}`));
  const large: Entry = [4, null];
  consumer.take(
    digest(1, 30, 0, [hashOf(order(3, 3, "s3")), large]),
    verified({ generation: 1, from: 25, n: 31, rows: 2, scope: { from: "3", to: "5", keys: null } }),
    digest(2, 40, 0, [hashOf(order(2, 2, "s2"))]),
    verified({
      generation: 2,
      from: 35,
      n: 41,
      rows: 1,
      scope: {
        from: null,
        to: null,
        keys: [1, 2].map((key) => ({ id: entityId("order", key), magento_id: key })),
      },
    }),
  );
  consumer.pass();
  const range = consumer.report(1);
  assert.deepEqual([range.compared, range.undeliverable, range.extra], [1, 1, 1]);
  assert.deepEqual(range.drifts, [{ id: entityId("order", 5), magento_id: 5, kind: "extra" }]);
  assert.deepEqual(
    consumer.report(2).drifts.map(({ magento_id }) => magento_id),
    [1],
  );
  // A resync heals what is extra with its range.
  consumer.take(rangeCloudEvent("order", 50, { from: null, to: null, keys: [5] }));
  consumer.take(
    digest(3, 60, 0, [hashOf(order(3, 3, "s3"))]),
    verified({ generation: 3, from: 55, n: 61, rows: 1, scope: { from: "3", to: "3", keys: null } }),
  );
  consumer.pass();
  assert.equal(consumer.report(3).extra, 0);
  consumer.applier.close();
});

test("what nobody sent is found whatever its sequence or id says, and healed by reading its keys again", () => {
  const directory = throwAwayDirectory("verifications");
  const file = join(directory, "consumer.db");
  let consumer = new Consumer(file);
  const rows = [1, 2, 3, 4, 5, 6].map((key) => order(key, key, `s${key}`));
  consumer.take(...rows);
  const tables = new DatabaseSync(file);
  const future = sequenceAt(1_000);
  const forge = (id: string, key: number | string, sequence: string): unknown =>
    tables
      .prepare("INSERT INTO entities SELECT entity, ?, ?, ?, 0, fields FROM entities WHERE magento_id = 1")
      .run(id, key, sequence);
  const put = (sql: string): void => tables.exec(`UPDATE entities SET sequence = '${future}', ${sql}`);
  // A row and a tombstone that no later event of theirs would change, and one that was never there.
  put("fields = '{}' WHERE magento_id = 2");
  put("deleted = 1 WHERE magento_id = 3");
  forge(entityId("order", 71), 71, future);
  // Ids that are not those of their keys: of a key that is held, and of others, once as text.
  forge("another-4", 4, sequenceAt(2));
  forge("another-72", 72, sequenceAt(2));
  forge("another-73", "73", sequenceAt(2));
  tables.close();
  // Also where it was started anew since.
  consumer.applier.close();
  consumer = new Consumer(file);
  const ends = { from: 25, n: 31, rows: rows.length };
  consumer.take(digest(1, 30, 0, rows.map(hashOf)), verified({ generation: 1, ...ends }));
  consumer.pass();
  const { drifts, ...report } = consumer.report(1);
  assert.deepEqual(
    drifts.map(({ magento_id, kind }) => `${magento_id} ${kind}`),
    ["2 ahead", "3 ahead", "4 extra", "71 ahead", "72 extra", "73 extra"],
  );
  assert.deepEqual([report.complete, report.compared, report.ahead, report.extra], [true, 3, 3, 3]);
  // As an agent reads them again.
  const keys = drifts.map(({ magento_id }) => Number(magento_id));
  consumer.take(
    ...[2, 3, 4].map((key) => order(key, 40, `s${key}`, "r")),
    rangeCloudEvent("order", 39, { from: null, to: null, keys }),
    digest(2, 50, 0, rows.map(hashOf)),
    verified({ generation: 2, from: 45, n: 51, rows: rows.length }),
  );
  consumer.pass();
  assert.deepEqual(consumer.report(2).drifts, []);
  const living = [...consumer.applier.all("order")].filter(({ deleted }) => !deleted);
  assert.deepEqual(
    living.map(({ id, magentoId }) => `${magentoId} ${id}`).sort(),
    [1, 2, 3, 4, 5, 6].map((key) => `${key} ${entityId("order", key)}`),
  );
  consumer.applier.close();
  removeDirectory(directory);
});

test("a verification is not complete before all of its digests came, and lists a bounded part of its drift", () => {
  const consumer = new Consumer();
  const rows = Array.from({ length: 12_000 }, (_, key): Entry => [key + 1, "0011223344556677"]);
  consumer.take(
    verified({ generation: 1, from: 1, n: 9, rows: rows.length }),
    digest(1, 8, 6_000, rows.slice(6_000)),
  );
  consumer.pass();
  assert.equal(consumer.report(1).complete, false);
  consumer.take(digest(1, 7, 0, rows.slice(0, 6_000)));
  consumer.pass(40);
  const report = consumer.report(1);
  assert.deepEqual([report.complete, report.missing, report.drifts.length], [true, 12_000, 10_000]);
  assert.equal(consumer.applier.statistics().verifications.drifts, 12_000);
  consumer.applier.close();
});

test("a digest that is none is refused before anything of it is written", () => {
  const consumer = new Consumer();
  const good = digest(1, 8, 0, [[1, "0011223344556677"]]);
  for (const data of [
    { ...good.data, rows: [[1]] },
    { ...good.data, rows: null },
    { ...good.data, generation: "1" },
    { ...good.data, instance: "" },
  ]) {
    assert.throws(() => consumer.applier.receive(deliveredEvent({ ...good, data })), MalformedEventError);
  }
  assert.deepEqual(consumer.applier.verifications(), []);
  assert.equal(consumer.applier.statistics().controlEvents, 0);
  consumer.applier.close();
});
