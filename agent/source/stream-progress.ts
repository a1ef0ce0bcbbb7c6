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
