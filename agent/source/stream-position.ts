/**
 * Where the stream stands. Headers name an event's end with 32 bits only, and newer servers say 0
 * inside a transaction; so lengths are summed in 64 bits from the known start, and the header's
 * number is used where it is given: it must agree modulo 2^32, or lie ahead by what the server
 * did not send (it keeps statement texts to itself unless asked).
 */
import { binlogFileNumber, type Position } from "../change.ts";
import { assert } from "../kernel/assert.ts";
import { FILE_START, unreadableEvent } from "./binlog-event.ts";

/** The dump command can name no position from here on. */
export const POSITION_32_MAX = 0xffff_ffff;
const WRAP = 0x1_0000_0000;
/** More than this is not "not sent", it is a position before the one that was summed. */
const UNSENT_MAX = 0x8000_0000;

export class StreamPosition {
  /** File under way; "" until the server has named it. */
  file = "";
  /** End of the last event, which is the start of the next one. */
  position = 0;
  /** Start and end of the event in hand. */
  eventStart = 0;
  eventEnd = 0;
  /** Where the group boundary lies that the 32-bit dump command can name. */
  resumePosition = FILE_START;
  /** Asked for GTIDs, the server leaves out what is done, however much that is, up to the first group. */
  mayJump = false;

  /** A Rotate event, real or made by the dump, names the place of the next event. */
  rotate(target: Position): void {
    if (target.file === this.file && target.position === this.position) return;
    this.start(target.file, target.position);
  }

  /** Where the stream was asked to start: the exact place of the first event. */
  start(file: string, position: number): void {
    this.file = file;
    this.position = position;
    this.eventStart = position;
    this.eventEnd = position;
    this.resumePosition = position;
  }

  /** Looks at the event in hand; `take` makes it the last one. */
  measure(length: number, endLow: number): void {
    let end = this.position + length;
    if (endLow !== 0) {
      const unsent = (((endLow - end) % WRAP) + WRAP) % WRAP;
      if (unsent >= UNSENT_MAX && !this.mayJump) {
        throw unreadableEvent(
          `the event at ${this.file}:${this.position} names its end as ${endLow}, which does not fit its place`,
        );
      }
      end += unsent;
    }
    assert(Number.isSafeInteger(end), "a binlog position is a safe integer");
    this.eventEnd = end;
    this.eventStart = end - length;
  }

  take(): void {
    this.position = this.eventEnd;
  }

  /** A boundary between groups at the end of the last event. */
  markBoundary(): void {
    if (this.position <= POSITION_32_MAX) this.resumePosition = this.position;
  }
}

/** Order of two places in one server's binlog. */
export function comparePositions(left: Position, right: Position): number {
  if (left.file === right.file) return left.position - right.position;
  return binlogFileNumber(left.file) - binlogFileNumber(right.file);
}
