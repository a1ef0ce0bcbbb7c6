/**
 * Compares what is held here with the digests of a verification, and says which rows drifted apart.
 *
 * A row that a digest lists is equal here, or newer (a live change overtook the digest: it is left
 * out), or drifted: missing, or changed. What is here, was there before the verification began, and
 * is listed by none of its digests is extra. What has a greater sequence than anything that came was
 * sent by nobody: it is ahead. Topics come independently: a digest can be here before
 * an older event of its entity. So what does not agree is looked at again, and counts only when it
 * still does not after some tries. The outcome is the same in whatever order, and however often,
 * digests come.
 */
import type { DatabaseSync } from "node:sqlite";
import { text } from "./event.ts";
import { isWithin } from "./floors.ts";
import { NewestSequences } from "./newest.ts";
import { rowHash } from "./row-hash.ts";
import {
  type CountName,
  type DigestFacts,
  type DriftKind,
  type Listed,
  prepareVerifications,
  reportOf,
  scopeOf,
  type Suspect,
  suspectOf,
  type VerificationReport,
  type VerificationRow,
  verificationOf,
  type VerifiedFacts,
} from "./verification-tables.ts";

export interface VerifyOptions {
  /** Time between two looks at a row that does not agree, and how long older events must have ceased to come. */
  readonly graceMs: number;
  /** Looks after which it has drifted. */
  readonly tries: number;
  /** Milliseconds since 1970. */
  readonly nowMs: () => number;
}

export const defaultVerifyOptions: VerifyOptions = { graceMs: 5_000, tries: 3, nowMs: () => Date.now() };

/** Drifted rows that are listed; more are counted. */
const DRIFTS_LISTED_MAX = 10_000;
/** Verifications that are kept, done or not. */
const KEPT_MAX = 100;
/** Rows that are looked at again in one transaction. */
const LOOK_ROWS = 2_000;
/** So long at most an entity's older events can put a look off. */
const PUT_OFF_MS = 3_600_000;

type Judgement = "equal" | "newer" | DriftKind;
type Statements = ReturnType<typeof prepareVerifications>;

/** An entity that is being compared: up to where, and when something older than that last came. */
interface Watched {
  through: string;
  olderMs: number;
}

/** Works on the applier's database, inside its transactions. */
export class Verifications {
  readonly #statements: Statements;
  readonly #newest: NewestSequences;
  readonly #options: VerifyOptions;
  readonly #watched = new Map<string, Watched>();

  constructor(database: DatabaseSync, options: VerifyOptions) {
    this.#statements = prepareVerifications(database);
    this.#newest = new NewestSequences(database);
    this.#options = options;
    this.#watchOpen(this.#open());
  }

  /** Whether nothing is to be looked at again. */
  get isIdle(): boolean {
    return this.#watched.size === 0;
  }

  /** After a transaction that was rolled back. */
  reload(): void {
    this.#newest.reload();
  }

  /** An event of the entity came. While older ones still come, the rest of them may. */
  arrived(entity: string, sequence: string): void {
    this.#newest.came(entity, sequence);
    const watched = this.#watched.get(entity);
    if (watched !== undefined && sequence <= watched.through) watched.olderMs = this.#options.nowMs();
  }

  /** Compares each row that the digest lists. */
  digest(digest: DigestFacts): void {
    const row = this.#rowOf(digest);
    if (row === null || row.completedMs !== null) return;
    const { instance, generation, offset, sequence, rows } = digest;
    this.#statements.addDigest.run(instance, generation, offset, rows.length);
    this.#statements.raiseThrough.run(sequence, instance, generation, sequence);
    this.#watch(digest.entity, sequence);
    for (const listed of rows) this.#compare(digest, listed);
  }

  /** What a verification was made of: it is complete once all of that came. */
  verified(verified: VerifiedFacts): void {
    if (this.#rowOf(verified) === null) return;
    this.#statements.setVerified.run(JSON.stringify(verified), verified.instance, verified.generation);
  }

  /** Looks again at what is due; the reports of those that are complete now. */
  look(): VerificationReport[] {
    const done: VerificationReport[] = [];
    for (const row of this.#open()) {
      this.#lookAt(row);
      if (!this.#isComplete(row)) continue;
      this.#statements.complete.run(this.#options.nowMs(), row.instance, row.generation);
      for (const drop of [this.#statements.dropListed, this.#statements.dropDigests])
        drop.run(row.instance, row.generation);
      const report = this.report(row.instance, row.generation);
      if (report !== null) done.push(report);
    }
    this.#watchOpen(this.#open());
    return done;
  }

  report(instance: string, generation: number): VerificationReport | null {
    const found = this.#statements.one.get(instance, generation);
    if (found === undefined) return null;
    const drifts = this.#statements.drifts.all(instance, generation);
    return reportOf(verificationOf(found), this.#waiting(instance, generation), drifts);
  }

  /** The newest first, without the drifted rows themselves. */
  all(): VerificationReport[] {
    return this.#statements.newest
      .all(KEPT_MAX)
      .map(verificationOf)
      .map((row) => reportOf(row, this.#waiting(row.instance, row.generation), []));
  }

  #open(): VerificationRow[] {
    return this.#statements.open.all().map(verificationOf);
  }

  #watchOpen(open: readonly VerificationRow[]): void {
    const entities = new Set(open.map(({ entity }) => entity));
    for (const entity of this.#watched.keys()) if (!entities.has(entity)) this.#watched.delete(entity);
    for (const { entity, through } of open) this.#watch(entity, through);
  }

  #watch(entity: string, through: string): void {
    const watched = this.#watched.get(entity);
    if (watched === undefined) this.#watched.set(entity, { through, olderMs: 0 });
    else if (through > watched.through) watched.through = through;
  }

  #waiting(instance: string, generation: number): number {
    return Number(this.#statements.waiting.get(instance, generation)?.["n"] ?? 0);
  }

  /** Null where another entity has it: then it is no verification of this agent's. */
  #rowOf({ instance, generation, entity }: DigestFacts | VerifiedFacts): VerificationRow | null {
    const { add, one, prune } = this.#statements;
    const { changes } = add.run(instance, generation, entity, this.#options.nowMs());
    if (Number(changes) > 0) for (const drop of prune) drop.run(KEPT_MAX);
    const found = one.get(instance, generation);
    if (found === undefined) return null;
    const row = verificationOf(found);
    if (row.entity !== entity) return null;
    if (row.completedMs === null) this.#watch(entity, row.through);
    return row;
  }

  #compare(digest: DigestFacts, { magentoId, hash }: Listed): void {
    const { instance, generation, entity, sequence } = digest;
    const listed = this.#statements.addListed.run(instance, generation, magentoId);
    // In a digest that was made anew after damage of the agent's spool: the first one counts.
    if (Number(listed.changes) === 0) return;
    if (hash === null) return this.#count(digest, "undeliverable");
    const judgement = this.#judge(entity, { magentoId, hash }, sequence);
    if (judgement === "equal" || judgement === "newer") return this.#count(digest, judgement);
    if (judgement === "ahead") return this.#ahead(digest, magentoId, sequence);
    this.#suspect({ instance, generation, magentoId, hash, sequence, tries: 0 });
  }

  #judge(
    entity: string,
    { magentoId, hash }: { magentoId: string | number; hash: string },
    sequence: string,
  ): Judgement {
    const held = this.#statements.held.all(entity, magentoId);
    const [row, second] = held;
    if (row === undefined) return "missing";
    const newest = this.#newest.of(entity);
    if (held.some((one) => text(one, "sequence") > newest)) return "ahead";
    // One key has one id: the others are nobody's.
    if (second?.["deleted"] === 0) return "extra";
    if (text(row, "sequence") > sequence) return "newer";
    if (row["deleted"] === 1) return "missing";
    return rowHash(magentoId, JSON.parse(text(row, "fields"))) === hash ? "equal" : "changed";
  }

  /**
   * Nobody sent what is here, and by its sequence it would be kept for ever: that is taken back to the
   * digest's place, so that the row applies when it is read again, or its range takes it away.
   */
  #ahead(
    of: Pick<VerificationRow, "instance" | "generation" | "entity">,
    magentoId: string | number,
    sequence: string,
  ): void {
    const { entity } = of;
    this.#statements.takeBack.run(sequence, entity, magentoId, this.#newest.of(entity));
    this.#drifted(of, magentoId, "ahead");
  }

  #suspect(suspect: Suspect): void {
    const { instance, generation, magentoId, hash, sequence, tries } = suspect;
    const dueMs = this.#options.nowMs() + this.#options.graceMs;
    this.#statements.putSuspect.run(instance, generation, magentoId, hash, sequence, tries, dueMs);
  }

  #lookAt(row: VerificationRow): void {
    const { nowMs, graceMs } = this.#options;
    if (!row.extrasLooked && row.verified !== null && this.#coverage(row) >= row.verified.rows)
      this.#findExtras(row, row.verified);
    const olderMs = this.#watched.get(row.entity)?.olderMs ?? 0;
    const isPutOff = nowMs() - olderMs < graceMs && nowMs() - row.begunMs < PUT_OFF_MS;
    if (isPutOff) return;
    const { due } = this.#statements;
    for (const found of due.all(row.instance, row.generation, nowMs(), LOOK_ROWS))
      this.#lookAgain(row, suspectOf(found));
  }

  #lookAgain(row: VerificationRow, suspect: Suspect): void {
    const { magentoId, hash, sequence } = suspect;
    const { entity, instance, generation } = row;
    const judgement =
      hash === null ? this.#isExtra(suspect, entity) : this.#judge(entity, { magentoId, hash }, sequence);
    const isOver = judgement === null || judgement === "equal" || judgement === "newer";
    if (!isOver && judgement !== "ahead" && suspect.tries + 1 < this.#options.tries)
      return this.#suspect({ ...suspect, tries: suspect.tries + 1 });
    this.#statements.dropSuspect.run(instance, generation, magentoId);
    if (judgement === null) return;
    if (judgement === "ahead") return this.#ahead(row, magentoId, sequence);
    if (isOver) this.#count(row, judgement);
    else this.#drifted(row, magentoId, judgement);
  }

  #isExtra({ magentoId, sequence }: Suspect, entity: string): "extra" | null {
    const [held] = this.#statements.held.all(entity, magentoId);
    return held?.["deleted"] === 0 && text(held, "sequence") <= sequence ? "extra" : null;
  }

  #drifted(
    of: Pick<VerificationRow, "instance" | "generation" | "entity">,
    magentoId: string | number,
    kind: DriftKind,
  ): void {
    const { instance, generation, entity } = of;
    this.#count(of, kind);
    const held = this.#statements.held.all(entity, magentoId);
    const id = held.length === 1 && held[0] !== undefined ? text(held[0], "id") : null;
    const drift = [instance, generation, magentoId, id, kind] as const;
    this.#statements.addDrift.run(...drift, instance, generation, DRIFTS_LISTED_MAX);
  }

  /** What lives here since before the verification, and was listed by none of its digests. */
  #findExtras(row: VerificationRow, verified: VerifiedFacts): void {
    const { instance, generation, entity } = row;
    const scope = scopeOf(verified);
    const { unlisted, extrasLooked } = this.#statements;
    const { fromSequence } = verified;
    const newest = this.#newest.of(entity);
    for (const found of unlisted.all(entity, fromSequence, newest, instance, generation)) {
      const magentoId = found["magento_id"];
      if (typeof magentoId !== "string" && typeof magentoId !== "number") continue;
      const isAsked = scope.keys === null ? isWithin(magentoId, scope) : scope.keys.has(magentoId);
      if (!isAsked) continue;
      if (text(found, "sequence") > newest) this.#ahead(row, magentoId, fromSequence);
      else this.#suspect({ instance, generation, magentoId, hash: null, sequence: fromSequence, tries: 0 });
    }
    extrasLooked.run(instance, generation);
  }

  /** Rows from the first on that digests listed without a gap. */
  #coverage({ instance, generation }: VerificationRow): number {
    let covered = 0;
    for (const found of this.#statements.coverage.iterate(instance, generation)) {
      const first = Number(found["first_row"]);
      if (first > covered) break;
      covered = Math.max(covered, first + Number(found["count"]));
    }
    return covered;
  }

  #isComplete({ instance, generation }: VerificationRow): boolean {
    const found = this.#statements.one.get(instance, generation);
    if (found === undefined || !verificationOf(found).extrasLooked) return false;
    return this.#waiting(instance, generation) === 0;
  }

  #count({ instance, generation }: Pick<VerificationRow, "instance" | "generation">, what: CountName): void {
    this.#statements.count[what].run(instance, generation);
  }
}
