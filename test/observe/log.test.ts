import assert from "node:assert/strict";
import { fstatSync } from "node:fs";
import { describe, it } from "node:test";
import { Logger, type LoggerOptions, RepeatLog, stderrIsJournal } from "../../agent/observe/log.ts";
import { FakeClock, LinesLog } from "./facts.ts";

function linesOf(changed: Partial<LoggerOptions>, write: (log: Logger) => void): string[] {
  const lines: string[] = [];
  const base: LoggerOptions = {
    level: "info",
    format: "text",
    inJournal: false,
    clock: new FakeClock(),
    write: (line) => lines.push(line),
  };
  write(new Logger({ ...base, ...changed }));
  return lines;
}

describe("a log line", () => {
  it("has the time outside the journal, and fields as key=value", () => {
    const lines = linesOf({}, (log) =>
      log.info("started", { shop: "magento", path: "/a b", n: 3, gone: undefined }),
    );
    assert.deepEqual(lines, ['2026-01-15T12:00:00.000Z INFO started shop=magento path="/a b" n=3\n']);
  });

  it("has a priority and no time in the journal", () => {
    const lines = linesOf({ inJournal: true, level: "debug" }, (log) => {
      log.error("e");
      log.warn("w");
      log.notice("n");
      log.info("i");
      log.debug("d");
    });
    assert.deepEqual(lines, ["<3>e\n", "<4>w\n", "<5>n\n", "<6>i\n", "<7>d\n"]);
  });

  it("stays one physical line, whatever the text holds", () => {
    for (const format of ["text", "json"] as const) {
      const [line] = linesOf({ format, inJournal: true }, (log) =>
        log.error("a\nb\r\nc", { stack: "x\ny", e: "a=b" }),
      );
      assert.equal(line?.split("\n").length, 2, line);
      assert.equal(line?.includes("\r"), false);
    }
  });

  it("is JSON where that is asked for", () => {
    const [line] = linesOf({ format: "json" }, (log) => log.warn("held", { topic: "t", count: 2 }));
    assert.deepEqual(JSON.parse(line ?? ""), {
      time: "2026-01-15T12:00:00.000Z",
      level: "warn",
      message: "held",
      topic: "t",
      count: 2,
    });
  });

  it("is not written below the level, and never longer than the journal takes", () => {
    const lines = linesOf({ level: "warn" }, (log) => {
      log.info("quiet");
      log.warn("x".repeat(100_000));
    });
    assert.equal(lines.length, 1);
    assert.ok((lines[0]?.length ?? 0) < 48 * 1024);
  });
});

describe("the journal", () => {
  it("is recognised by device and inode of stderr alone", () => {
    const { dev, ino } = fstatSync(2);
    assert.equal(stderrIsJournal(`${dev}:${ino}`), true);
    assert.equal(stderrIsJournal("1:2"), false);
    assert.equal(stderrIsJournal(null), false);
  });
});

describe("a repeated failure", () => {
  it("is logged at most every 30 seconds with its count, and its recovery once", () => {
    const log = new LinesLog();
    const clock = new FakeClock();
    const repeats = new RepeatLog(log, clock);
    for (let second = 0; second < 65; second++) {
      repeats.failed("source", "cannot connect", { code: "X" });
      clock.nowMs += 1000;
    }
    assert.deepEqual(
      log.lines.map((line) => line.fields["repeated"]),
      [undefined, 30, 30],
    );
    repeats.recovered("source", "connected");
    repeats.recovered("source", "connected");
    assert.equal(log.lines.length, 4);
    assert.deepEqual(log.lines[3], {
      level: "notice",
      message: "connected",
      fields: { after_seconds: 65, failures: 65 },
    });
  });

  it("says nothing of a recovery where nothing had failed", () => {
    const log = new LinesLog();
    new RepeatLog(log, new FakeClock()).recovered("x", "fine");
    assert.equal(log.lines.length, 0);
  });
});
