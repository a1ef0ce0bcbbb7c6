import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Checkpoint, SourceItem, TransactionPart } from "../../agent/change.ts";
import { BinlogMaker, tableIds } from "./binlog-maker.ts";
import { checkpointAt, replay, wide } from "./replay-made.ts";

function parts(items: readonly SourceItem[]): TransactionPart[] {
  return items.filter((item) => item.kind === "transaction");
}

const start: Checkpoint = checkpointAt("binlog.000001", 4);

function written(write: (maker: BinlogMaker) => void, checksums = true): BinlogMaker {
  const maker = new BinlogMaker({ checksums });
  write(maker);
  return maker;
}

function insertA(maker: BinlogMaker, ...ids: readonly number[]): void {
  maker.tableMap(tableIds.followedA);
  maker.insert(tableIds.followedA, ids);
}

describe("what cannot be read without loss stops the position", () => {
  const cases: readonly (readonly [string, (maker: BinlogMaker) => void])[] = [
    [
      "a change of a followed table in statement format",
      (maker) => maker.query("UPDATE `a` SET v = 1", { inside: true }),
    ],
    [
      "a change of another of the shop's tables in statement format",
      (maker) => maker.query("DELETE FROM `index_log`", { inside: true }),
    ],
    [
      "a change that names the shop's schema from another",
      (maker) => maker.query("delete from shop.b", { schema: "other", inside: true }),
    ],
    [
      "a routine called in the shop's schema",
      (maker) => maker.query("SELECT `shop`.`f`()", { inside: true }),
    ],
    ["a compressed transaction", (maker) => maker.raw(40, Buffer.alloc(20))],
    ["an incident", (maker) => maker.raw(26, Buffer.alloc(20))],
    ["MariaDB's split rows", (maker) => maker.raw(172, Buffer.alloc(20))],
    ["an event of an unknown type", (maker) => maker.raw(200, Buffer.alloc(20))],
    ["rows of a table that no table map named", (maker) => maker.insert(77, [1])],
    [
      "a rollback to a savepoint that was not set",
      (maker) => {
        insertA(maker, 1);
        maker.query("ROLLBACK TO `nowhere`", { inside: true });
      },
    ],
    [
      "an XA transaction with rows of a followed table",
      (maker) => {
        insertA(maker, 1);
        maker.raw(38, Buffer.alloc(20));
      },
    ],
    [
      "partial updates of a followed table",
      (maker) => {
        maker.tableMap(tableIds.followedA);
        const body = Buffer.alloc(20);
        body.writeUIntLE(tableIds.followedA, 0, 6);
        maker.raw(39, body);
      },
    ],
  ];
  for (const [name, write] of cases) {
    test(name, () => {
      const maker = written((made) => {
        made.gtid();
        insertA(made, 1);
        made.xid();
        made.gtid();
        write(made);
        made.xid();
      });
      assert.throws(() => replay(maker, { from: start }), { code: "SOURCE_UNREADABLE" });
    });
  }

  test("a flipped bit in a followed row, found by the checksum", () => {
    const maker = written((made) => {
      made.gtid();
      insertA(made, 1);
      made.xid();
    });
    const row = maker.events.find(({ bytes }) => bytes[4] === 23)?.bytes;
    assert.ok(row !== undefined);
    row[row.length - 6] = 0x55;
    assert.throws(() => replay(maker, { from: start }), { code: "SOURCE_UNREADABLE", message: /checksum/ });
  });

  test("an end that lies before the summed lengths", () => {
    const maker = written((made) => made.gtid());
    const gtid = maker.events.at(-1)?.bytes;
    assert.ok(gtid !== undefined);
    const position = maker.events.at(-1)?.start ?? 0;
    const wrong = written((made) => made.gtid(), false);
    wrong.events.at(-1)?.bytes.writeUInt32LE(position - 20, 13);
    assert.throws(() => replay(wrong, { from: start }), {
      code: "SOURCE_UNREADABLE",
      message: /does not fit/,
    });
  });
});

describe("what is not ours passes", () => {
  test("statement format on other schemas and of tables in memory, unknown ignorable events, incidents of no followed rows in XA", () => {
    const maker = written((made) => {
      made.gtid();
      made.query("DELETE FROM `shop`.`index_tmp`", { inside: true });
      made.query("INSERT INTO noise SELECT * FROM shop.a", { schema: "other", inside: true });
      made.query("COMMIT");
      made.raw(200, Buffer.alloc(4), 0x80);
      made.gtid();
      made.tableMap(tableIds.noise);
      made.insert(tableIds.noise, [1]);
      made.raw(38, Buffer.alloc(20));
      made.gtid();
      made.tableMap(tableIds.followedA, "other");
      made.insert(tableIds.followedA, [1]);
      made.xid();
    });
    const { items, end } = replay(maker, { from: start });
    assert.deepEqual(items, []);
    assert.equal(end.position, maker.position);
    assert.equal(end.gtidSet, "0-1-3");
  });

  test("a group that the server did not finish before it restarted is dropped and counted", () => {
    const maker = written((made) => {
      made.gtid();
      insertA(made, 1);
      made.rotate("binlog.000002");
      made.gtid();
      insertA(made, 2);
      made.xid();
    });
    const { items, oddities } = replay(maker, { from: start });
    assert.deepEqual(
      parts(items).map(({ changes }) => changes.map(({ row }) => row[0])),
      [[2]],
    );
    assert.deepEqual(oddities, ["unfinished_group"]);
  });

  test("a group of before GTIDs, which begins with BEGIN", () => {
    const maker = written((made) => {
      made.query("BEGIN");
      insertA(made, 1);
      made.xid();
    });
    const [part] = parts(replay(maker, { from: start }).items);
    assert.equal(part?.gtid, null);
    assert.equal(part?.start.position, maker.events[1]?.start);
  });
});

describe("statements about tables", () => {
  test("give one event for each table, and only the last one's checkpoint is behind the group", () => {
    const maker = written((made) => {
      made.gtid(1);
      made.query("RENAME TABLE a TO a_old, shop.b TO a");
    });
    const { items } = replay(maker, { from: start });
    assert.deepEqual(
      items.map((item) =>
        item.kind === "table"
          ? [item.table, item.what, item.checkpoint.position === maker.position]
          : item.kind,
      ),
      [
        [0, "replaced", false],
        [1, "reset", true],
      ],
    );
  });

  test("come before the rows of a table that is made from a query", () => {
    const maker = written((made) => {
      made.gtid();
      made.query("CREATE TABLE `a` (id int, v int)", { inside: true });
      insertA(made, 1, 2);
      made.xid();
    });
    assert.deepEqual(
      replay(maker, { from: start }).items.map(({ kind }) => kind),
      ["table", "transaction"],
    );
  });
});

describe("proof of position", () => {
  const history = (firstId: number): BinlogMaker =>
    written((made) => {
      made.gtid();
      insertA(made, firstId);
      made.xid();
      made.gtid();
      insertA(made, 9);
      made.xid();
    });

  test("accepts the history that the checkpoint was made from", () => {
    const [first, second] = replay(history(1), { from: start }).items;
    assert.ok(first !== undefined);
    assert.deepEqual(replay(history(1), { from: first.checkpoint, prove: true }).items, [second]);
  });

  test("refuses another history of the same lengths, GTIDs and XIDs", () => {
    const [first] = replay(history(1), { from: start }).items;
    assert.ok(first !== undefined);
    assert.throws(() => replay(history(2), { from: first.checkpoint, prove: true }), {
      code: "POSITION_LOST",
      message: /rowsCrc32/,
    });
  });

  test("refuses a position inside of a transaction", () => {
    const [first] = replay(history(1), { from: start }).items;
    assert.ok(first !== undefined);
    const inside = { ...first.checkpoint, position: first.checkpoint.position - 3 };
    assert.throws(() => replay(history(1), { from: inside, prove: true }), { code: "POSITION_LOST" });
  });

  test("refuses to go on inside of a transaction that is another one now", () => {
    const long = (end: (maker: BinlogMaker) => void): BinlogMaker =>
      written((made) => {
        made.gtid();
        for (let id = 1; id <= 5; id += 1) insertA(made, id);
        end(made);
      });
    const limits = { ...wide, rows: 2 };
    const [first] = replay(
      long((made) => made.xid()),
      { from: start, limits },
    ).items;
    assert.ok(first?.checkpoint.partial?.ordinal === 2);
    assert.throws(
      () =>
        replay(
          long((made) => made.query("ROLLBACK")),
          { from: first.checkpoint, limits },
        ),
      {
        code: "POSITION_LOST",
      },
    );
  });
});
