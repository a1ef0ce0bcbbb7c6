/**
 * Marks: what a SELECT sees, in terms of the binlog. The low mark says that every change up to a
 * place is visible to the next SELECT; the high mark that nothing visible lies behind it.
 *
 * The server's own end of the binlog runs ahead of what a SELECT sees (for seconds, where a commit
 * waits for a semi-synchronous replica): good as a high mark, wrong as a low one.
 */
import { binlogFileNumber, type Position } from "../../change.ts";
import { AgentError } from "../../kernel/errors.ts";
import { type ControlConnection, numberOf, type SqlRow, textOf } from "../control-connection.ts";
import { FILE_START } from "../binlog-event.ts";
import { MysqlGtidSet } from "../gtid-set.ts";
import { serverErrorOf, translateError } from "../source-errors.ts";
import { comparePositions, POSITION_32_MAX } from "../stream-position.ts";
import type { Flavour } from "../stream-progress.ts";

/** A place that the stream has delivered up to, in the words of a checkpoint. */
export interface DeliveredPlace extends Position {
  readonly gtidSet: string | null;
}

/** Everything up to the asked place is visible; `mustEnd`: provided that a transaction ends there. */
export interface LowMark {
  readonly mustEnd: Position | null;
}

/** Events at the head of a file that are looked at for its own Binlog_checkpoint. */
const HEAD_EVENTS = 200;
/** Events that can stand between two places without a transaction: rotation, format, lists, checkpoints. */
const QUIET_EVENTS = 20;

interface BinlogEntry {
  readonly type: string;
  readonly end: number;
  readonly info: string;
}

/** What the first events of a file say about marks in it. */
interface FileHead {
  /** Where the Binlog_checkpoint ends that names the file itself; null while it is not among them. */
  readonly settledAt: number | null;
  /** No transaction stands before that: all older files are committed, and there is nothing else. */
  readonly isClean: boolean;
  readonly transactionEnds: ReadonlySet<number>;
}

function headOf(file: string, events: readonly BinlogEntry[]): FileHead {
  const settled = events.findIndex(({ type, info }) => type === "Binlog_checkpoint" && info === file);
  const ends = events.filter(({ type, info }) => type === "Xid" || (type === "Query" && info === "COMMIT"));
  return {
    settledAt: events[settled]?.end ?? null,
    isClean: settled >= 0 && !events.slice(0, settled).some(({ type }) => type === "Gtid"),
    transactionEnds: new Set(ends.map(({ end }) => end)),
  };
}

function isExact(position: number, { settledAt, isClean, transactionEnds }: FileHead): boolean {
  if (transactionEnds.has(position)) return true;
  return settledAt !== null && (position > settledAt || (position === settledAt && isClean));
}

/** What is asked of a server before and after rows are read, to know what they show. */
interface Questions {
  /** Opens a read-only transaction, and says what of the binlog is visible to it. */
  readonly opening: readonly string[];
  /** Which of them answers that. */
  readonly answer: number;
  /** Ends the transaction, and says where the binlog ends. */
  readonly closing: readonly [string, string];
}

const SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
const END = "COMMIT";

type Answers = readonly (readonly SqlRow[])[];

/** Low and high marks of one server, on one connection. */
export class Marks {
  readonly #control: ControlConnection;
  readonly #flavour: Flavour;
  /** Takes what the stream has delivered for visible: wrong, and there for the test that shows it. */
  readonly #isNaive: boolean;
  readonly #questions: Questions;
  /** Whether each transaction has a GTID: else a set says nothing of those without. */
  readonly #hasGtids: boolean;
  /** Of the newest file, once it has settled. */
  readonly #heads = new Map<string, FileHead>();

  static async of(control: ControlConnection, flavour: Flavour, isNaive: boolean): Promise<Marks> {
    if (flavour === "mariadb") return new Marks(control, { flavour, isNaive, hasGtids: true }, "MASTER");
    const [row] = await control.query("SELECT @@GLOBAL.gtid_mode AS mode");
    const hasGtids = textOf(row, "mode") === "ON";
    const words = await wordsForBinlog(control);
    return new Marks(control, { flavour, isNaive, hasGtids }, words);
  }

  private constructor(
    control: ControlConnection,
    how: { readonly flavour: Flavour; readonly isNaive: boolean; readonly hasGtids: boolean },
    words: string,
  ) {
    this.#control = control;
    this.#flavour = how.flavour;
    this.#isNaive = how.isNaive;
    this.#hasGtids = how.hasGtids;
    const closing = [END, `SHOW ${words} STATUS`] as const;
    if (how.flavour === "mariadb") {
      this.#questions = { opening: [SNAPSHOT, "SHOW STATUS LIKE 'binlog_snapshot_%'"], answer: 1, closing };
    } else {
      // Asked before the transaction: what was visible then is visible to it.
      const asked = how.hasGtids
        ? "SELECT @@GLOBAL.gtid_executed AS executed"
        : "SELECT LOCAL AS local FROM performance_schema.log_status";
      this.#questions = { opening: [asked, SNAPSHOT], answer: 0, closing };
    }
  }

  /** To be run before the rows are read, on this connection; `lowMark` takes the answers. */
  get opening(): readonly string[] {
    return this.#isNaive ? [SNAPSHOT] : this.#questions.opening;
  }

  /** To be run after it; `highMark` takes the answers. */
  get closing(): readonly string[] {
    return this.#questions.closing;
  }

  /** Opens the transaction; what it sees. Throws SOURCE_RIGHTS where a MySQL without GTIDs lets nobody ask. */
  async ask(place: DeliveredPlace): Promise<LowMark | null> {
    try {
      return await this.lowMark(await this.#control.batch(this.opening.map((sql) => ({ sql }))), place);
    } catch (thrown) {
      throw this.#explained(thrown);
    }
  }

  /** Null where the transaction does not see everything up to `place`: then what it read counts nothing. */
  async lowMark(answers: Answers, place: DeliveredPlace): Promise<LowMark | null> {
    if (this.#isNaive) return { mustEnd: null };
    const rows = answers[this.#questions.answer] ?? [];
    if (this.#flavour === "mariadb") return await this.#lowMarkOfMariadb(rows, place);
    const isVisible = this.#hasGtids ? hasExecuted(rows, place.gtidSet ?? "") : isReachedByLog(rows, place);
    return isVisible ? { mustEnd: null } : null;
  }

  /** Nothing that a SELECT before these answers has seen lies behind it. */
  highMark(answers: Answers): Position {
    const row = answers.at(-1)?.[0];
    if (row === undefined)
      throw new AgentError("SOURCE_UNSUITABLE", "the server writes no binlog (log_bin is off)");
    return { file: textOf(row, "File"), position: numberOf(row, "Position") };
  }

  /** Ends the transaction, whatever it saw. */
  async end(): Promise<void> {
    await this.#control.query(END);
  }

  async high(): Promise<Position> {
    return this.highMark([await this.#control.query(this.#questions.closing[1])]);
  }

  #explained(thrown: unknown): AgentError {
    const error = translateError(thrown);
    const { code } = serverErrorOf(error.cause);
    const isRefused = code === "ER_SPECIFIC_ACCESS_DENIED_ERROR" || error.code === "SOURCE_RIGHTS";
    if (this.#flavour === "mariadb" || this.#hasGtids || !isRefused) return error;
    return new AgentError(
      "SOURCE_RIGHTS",
      "a snapshot of a MySQL without GTIDs needs BACKUP_ADMIN, and SELECT on performance_schema.log_status",
      {
        cause: error,
        hint: "GRANT BACKUP_ADMIN ON *.* and SELECT ON performance_schema.log_status to the agent's account, set gtid_mode=ON, or SNAPSHOT_MODE=never.",
      },
    );
  }

  /**
   * binlog_snapshot_position is exact where a transaction ends. It also moves to the head of a new
   * file, and behind a Binlog_checkpoint event, while the snapshot still lacks commits before it. So
   * it counts behind the checkpoint event that names its own file (only commits move it there), and
   * elsewhere where a transaction is known to end.
   */
  async #lowMarkOfMariadb(rows: readonly SqlRow[], place: DeliveredPlace): Promise<LowMark | null> {
    const valueOf = (name: string): string =>
      textOf(
        rows.find((row) => textOf(row, "Variable_name").toLowerCase() === name),
        "Value",
      );
    const mark: Position = {
      file: valueOf("binlog_snapshot_file"),
      position: Number(valueOf("binlog_snapshot_position")),
    };
    if (mark.file === "") return null;
    if (comparePositions(mark, place) < 0 && !(await this.#isQuietBetween(mark, place))) return null;
    const head = await this.#headOf(mark.file);
    return { mustEnd: isExact(mark.position, head) ? null : mark };
  }

  async #headOf(file: string): Promise<FileHead> {
    const known = this.#heads.get(file);
    if (known !== undefined) return known;
    const head = headOf(file, await this.#events(file, FILE_START, HEAD_EVENTS));
    if (head.settledAt === null) return head;
    this.#heads.clear();
    this.#heads.set(file, head);
    return head;
  }

  /** Whether no transaction stands between the two: the stream's place lies behind what surrounds them, too. */
  async #isQuietBetween(from: Position, to: Position): Promise<boolean> {
    if (from.file === to.file) return await this.#isQuiet(from.file, from.position, to.position);
    if (binlogFileNumber(to.file) !== binlogFileNumber(from.file) + 1) return false;
    return (
      (await this.#isQuiet(from.file, from.position, null)) &&
      (await this.#isQuiet(to.file, FILE_START, to.position))
    );
  }

  /** `until` null: to the file's end. */
  async #isQuiet(file: string, from: number, until: number | null): Promise<boolean> {
    if (from > POSITION_32_MAX) return false;
    const events = await this.#events(file, from, QUIET_EVENTS);
    for (const event of events) {
      if (until !== null && event.end > until) return true;
      if (event.type === "Gtid") return false;
      if (until !== null && event.end === until) return true;
    }
    return until === null ? events.length < QUIET_EVENTS : from === until;
  }

  async #events(file: string, from: number, limit: number): Promise<readonly BinlogEntry[]> {
    const rows = await this.#control.query(`SHOW BINLOG EVENTS IN ? FROM ${from} LIMIT ${limit}`, [file]);
    return rows.map((row) => ({
      type: textOf(row, "Event_type"),
      end: numberOf(row, "End_log_pos"),
      info: textOf(row, "Info"),
    }));
  }
}

function hasExecuted(rows: readonly SqlRow[], gtidSet: string): boolean {
  return MysqlGtidSet.parse(textOf(rows[0], "executed")).includes(MysqlGtidSet.parse(gtidSet));
}

/** log_status waits for the commits that are under way, and so never runs ahead. */
function isReachedByLog(rows: readonly SqlRow[], place: Position): boolean {
  const local: unknown = JSON.parse(localText(rows[0]?.["local"]));
  if (typeof local !== "object" || local === null) return false;
  const { binary_log_file: file, binary_log_position: position } = Object.fromEntries(Object.entries(local));
  if (typeof file !== "string" || typeof position !== "number") return false;
  return comparePositions({ file, position }, place) >= 0;
}

/** What a MySQL calls its binlog: `BINARY LOG`, an older one `MASTER`. */
async function wordsForBinlog(control: ControlConnection): Promise<string> {
  try {
    await control.query("SHOW BINARY LOG STATUS");
    return "BINARY LOG";
  } catch (thrown) {
    const error = translateError(thrown);
    if (serverErrorOf(error.cause).code !== "ER_PARSE_ERROR") throw error;
    return "MASTER";
  }
}

/** JSON columns come as text or taken apart, by the driver's version. */
function localText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value ?? null);
}
