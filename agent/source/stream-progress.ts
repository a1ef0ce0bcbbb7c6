/** What of the stream is done: everything that a checkpoint says, kept as cheap numbers. */
import {
  type Checkpoint,
  type PartialTransaction,
  type Position,
  STATE_FORMAT_VERSION,
  type TransactionIdentity,
} from "../change.ts";
import { MariadbGtidPosition, MysqlGtidSet } from "./gtid-set.ts";
import type { StreamPosition } from "./stream-position.ts";

export type Flavour = "mariadb" | "mysql";

export class StreamProgress {
  file: string;
  position: number;
  newestCommitMs: number;
  lastTransaction: TransactionIdentity | null;
  readonly mariadbGtids: MariadbGtidPosition;
  readonly mysqlGtids: MysqlGtidSet;
  /** Whether what is done is known as GTIDs. */
  gtidsKnown: boolean;
  readonly #ends = new RecentEnds();
  readonly #flavour: Flavour;
  readonly #from: Checkpoint;
  #resumePosition: number;

  constructor(from: Checkpoint, flavour: Flavour) {
    this.#from = from;
    this.#flavour = flavour;
    this.file = from.file;
    this.position = from.position;
    this.#resumePosition = from.resumePosition;
    this.newestCommitMs = from.newestCommitMs;
    this.lastTransaction = from.lastTransaction;
    this.gtidsKnown = from.gtidSet !== null;
    const text = from.gtidSet ?? "";
    this.mariadbGtids = flavour === "mariadb" ? MariadbGtidPosition.parse(text) : new MariadbGtidPosition();
    this.mysqlGtids = flavour === "mysql" ? MysqlGtidSet.parse(text) : new MysqlGtidSet();
  }

  /** Everything up to the stream's place is done, and a boundary between groups lies there. */
  reach(place: StreamPosition): void {
    this.file = place.file;
    this.position = place.position;
    this.#resumePosition = place.resumePosition;
  }

  /** A transaction was read whole; it ends at the stream's place. */
  finish(place: StreamPosition, identity: TransactionIdentity): void {
    this.lastTransaction = identity;
    this.reach(place);
    this.#ends.add(place);
  }

  /** Whether a transaction ends there, of the last few thousand. */
  endsAt(position: Position): boolean {
    const last = this.lastTransaction;
    if (last !== null && last.file === position.file && last.endPosition === position.position) return true;
    return this.#ends.has(position);
  }

  checkpoint(partial: PartialTransaction | null): Checkpoint {
    return {
      formatVersion: STATE_FORMAT_VERSION,
      epoch: this.#from.epoch,
      file: this.file,
      position: this.position,
      resumePosition: this.#resumePosition,
      gtidSet: this.#gtidText(),
      serverId: this.#from.serverId,
      serverUuid: this.#from.serverUuid,
      lastTransaction: this.lastTransaction,
      partial,
      newestCommitMs: this.newestCommitMs,
    };
  }

  place(): Position {
    return { file: this.file, position: this.position };
  }

  #gtidText(): string | null {
    if (!this.gtidsKnown) return null;
    return this.#flavour === "mariadb" ? this.mariadbGtids.text() : this.mysqlGtids.text();
  }
}

const ENDS = 8_192;

/** Where the last transactions ended; costs the hot path two stores for each. */
class RecentEnds {
  readonly #positions = new Float64Array(ENDS);
  readonly #files: string[] = Array.from({ length: ENDS }, () => "");
  #next = 0;

  add({ file, position }: Position): void {
    this.#positions[this.#next] = position;
    this.#files[this.#next] = file;
    this.#next = (this.#next + 1) & (ENDS - 1);
  }

  has({ file, position }: Position): boolean {
    for (
      let at = this.#positions.indexOf(position);
      at >= 0;
      at = this.#positions.indexOf(position, at + 1)
    ) {
      if (this.#files[at] === file) return true;
    }
    return false;
  }
}
