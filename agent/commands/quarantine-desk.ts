/**
 * What an operator does with quarantined events: in the running agent over its sockets, or on the
 * state directory of a stopped one. Lists carry no row data; only `show` hands a payload out.
 */
import type { RetryOutcome } from "../forward/retries.ts";
import { AgentError } from "../kernel/errors.ts";
import type { Clock } from "../kernel/service.ts";
import type { QuarantinedEvent } from "../ports.ts";
import type { Quarantine, QuarantineListed } from "../spool/quarantine.ts";
import { literalText } from "../transform/about-event.ts";

/** One event in quarantine, without its payload. */
export interface QuarantineRow {
  readonly id: string;
  readonly topic: string;
  readonly table: string;
  readonly op: string;
  readonly entity: string | null;
  readonly magento_id: string | number | null;
  readonly sequence: string | null;
  readonly code: string;
  readonly reason: string;
  readonly attempts: number;
  readonly dead_letter_accepted: boolean;
  readonly bytes: number;
  readonly quarantined_at: string;
  readonly age_seconds: number;
  /** Sequence of the newer event that was accepted since, which stands against a retry. */
  readonly newer_sequence: string | null;
  /** Generation of the resync that sends the entity's state of now in its place; null while there is none. */
  readonly resync: number | null;
}

export interface QuarantineList {
  readonly schema: "magento-edge-agent/quarantine/1";
  /** All of them; `events` may hold fewer. */
  readonly total: number;
  readonly events: readonly QuarantineRow[];
}

export interface QuarantineShown extends QuarantineRow {
  readonly schema: "magento-edge-agent/quarantine-event/1";
  /** The CloudEvent's text, to the byte. */
  readonly event: string;
}

export interface RetryReport {
  readonly schema: "magento-edge-agent/quarantine-retry/1";
  readonly events: readonly RetryLine[];
  /** Those that were not tried, because the cluster takes nothing now. */
  readonly untried: number;
}

export interface RetryLine extends RetryOutcome {
  readonly id: string;
}

export interface DropReport {
  readonly schema: "magento-edge-agent/quarantine-drop/1";
  readonly dropped: number;
}

/** Whether it is one of the reports above, as this version makes them. */
export function isList(answer: unknown): answer is QuarantineList {
  return schemaOf(answer) === "magento-edge-agent/quarantine/1";
}

export function isShown(answer: unknown): answer is QuarantineShown {
  return schemaOf(answer) === "magento-edge-agent/quarantine-event/1";
}

export function isRetryReport(answer: unknown): answer is RetryReport {
  return schemaOf(answer) === "magento-edge-agent/quarantine-retry/1";
}

export function isDropReport(answer: unknown): answer is DropReport {
  return schemaOf(answer) === "magento-edge-agent/quarantine-drop/1";
}

function schemaOf(answer: unknown): unknown {
  return typeof answer === "object" && answer !== null && "schema" in answer ? answer.schema : null;
}

/** Which events a command means. */
export interface Choice {
  /** An id or the beginning of one; null means all. */
  readonly id: string | null;
}

/** The generation of the resync that reads the event's row, or why none does. */
export type ReadAgainAnswer = { readonly resync: number } | { readonly refused: string };
/** Reads the rows of these events again, because newer events stand against sending them. */
export type ReadAgain = (ids: readonly string[]) => Promise<ReadonlyMap<string, ReadAgainAnswer>>;

/** Codes of a retry that a newer event of the entity stands against. */
const overtakenCodes: ReadonlySet<string> = new Set(["NEWER_ACCEPTED", "NEWER_WAITS"]);

/** Most events that one list shows. */
const LISTED_MAX = 1000;
const ID_PREFIX_MIN = 4;
/** A hold can last; whoever waits at a terminal is told so. */
const RETRY_ANSWER_MS = 30_000;

export class QuarantineDesk {
  readonly #quarantine: Quarantine;
  readonly #clock: Clock;

  constructor(quarantine: Quarantine, clock: Clock) {
    this.#quarantine = quarantine;
    this.#clock = clock;
  }

  async list(): Promise<QuarantineList> {
    const events: QuarantineRow[] = [];
    for await (const listed of this.#quarantine.list()) {
      events.push(rowOf(listed, this.#clock.wallMs()));
      if (events.length === LISTED_MAX) break;
    }
    return { schema: "magento-edge-agent/quarantine/1", total: this.#quarantine.count, events };
  }

  /** Throws COMMAND_REFUSED when there is no such event, SPOOL_CORRUPT when it is damaged. */
  async show(id: string): Promise<QuarantineShown> {
    const found = await this.#quarantine.find(this.#one(id));
    if (found === null) throw unknown(id);
    return {
      schema: "magento-edge-agent/quarantine-event/1",
      ...wholeRow(found, this.#clock.wallMs()),
      event: literalText(found.event.payload),
    };
  }

  /** Deletes for good; says how many. */
  async drop(choice: Choice): Promise<DropReport> {
    const dropped = await this.#quarantine.dropIds(new Set(this.#chosen(choice)));
    return { schema: "magento-edge-agent/quarantine-drop/1", dropped };
  }

  /**
   * One after the other, oldest first, so that several of one entity keep their order. Entities of
   * those that a newer event stands against are read again, all at once.
   */
  async retry(
    choice: Choice,
    send: (id: string) => Promise<RetryOutcome>,
    readAgain: ReadAgain,
  ): Promise<RetryReport> {
    const ids = this.#chosen(choice);
    const sent: RetryLine[] = [];
    for (const id of ids) {
      const line = { id, ...(await this.#retryOne(id, send)) };
      sent.push(line);
      if (line.outcome === "unavailable") break;
    }
    const overtaken = sent.filter(({ code }) => overtakenCodes.has(code)).map(({ id }) => id);
    const again = overtaken.length === 0 ? null : await readAgain(overtaken);
    return {
      schema: "magento-edge-agent/quarantine-retry/1",
      events: sent.map((line) => withAnswer(line, again?.get(line.id))),
      untried: ids.length - sent.length,
    };
  }

  async #retryOne(id: string, send: (id: string) => Promise<RetryOutcome>): Promise<RetryOutcome> {
    const answered = new AbortController();
    const late = this.#clock.sleep(RETRY_ANSWER_MS, answered.signal).then((): RetryOutcome => {
      const reason = "not answered yet; it goes on, and quarantine ls will tell";
      return { outcome: "unavailable", code: "UNDER_WAY", reason, newerSequence: null };
    });
    try {
      return await Promise.race([send(id), late]);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      return { outcome: "not-sent", code: error.code, reason: error.message, newerSequence: null };
    } finally {
      answered.abort();
    }
  }

  #chosen({ id }: Choice): string[] {
    return id === null ? this.#quarantine.idsOf("") : [this.#one(id)];
  }

  #one(id: string): string {
    const ids = this.#quarantine.idsOf(id);
    const [only] = ids;
    if (only === id) return only;
    if (only === undefined) throw unknown(id);
    if (ids.length > 1 || id.length < ID_PREFIX_MIN) {
      throw refused(
        `${ids.length} events in quarantine have an id that begins with "${id}"`,
        "Give more of it.",
      );
    }
    return only;
  }
}

function withAnswer(line: RetryLine, answer: ReadAgainAnswer | undefined): RetryLine {
  if (answer === undefined) return line;
  if ("refused" in answer) return { ...line, reason: `${line.reason}; ${answer.refused}` };
  const instead = `resync ${answer.resync} sends the state of now instead; when that is accepted, the event leaves quarantine`;
  return { ...line, outcome: "read-again", code: "RESYNC", reason: `${line.reason}; ${instead}` };
}

function unknown(id: string): AgentError {
  return refused(
    `no event in quarantine has the id "${id}"`,
    "magento-edge-agent quarantine ls names those that are there.",
  );
}

function refused(message: string, hint: string): AgentError {
  return new AgentError("COMMAND_REFUSED", message, { hint });
}

function rowOf(listed: QuarantineListed, nowMs: number): QuarantineRow {
  if ("found" in listed) return wholeRow(listed.found, nowMs);
  const { id, queue, atMs, sequence, overtakenBy } = listed.entry;
  return {
    id,
    topic: queue,
    table: "",
    op: "",
    entity: null,
    magento_id: null,
    sequence,
    code: "SPOOL_CORRUPT",
    reason: listed.damage,
    attempts: 0,
    dead_letter_accepted: false,
    bytes: 0,
    ...times(atMs, nowMs),
    newer_sequence: overtakenBy,
    resync: null,
  };
}

function wholeRow({ event, verdict, ...found }: QuarantinedEvent, nowMs: number): QuarantineRow {
  const { about } = verdict;
  return {
    id: event.id,
    topic: event.topic,
    table: event.table,
    op: event.op,
    entity: about?.entity ?? null,
    magento_id: about?.magentoId ?? null,
    sequence: about?.sequence ?? null,
    code: verdict.code,
    reason: verdict.reason,
    attempts: verdict.attempts,
    dead_letter_accepted: verdict.deadLetterAccepted,
    bytes: about?.bytes ?? event.payload.length,
    ...times(found.quarantinedAtMs, nowMs),
    newer_sequence: found.overtakenBy,
    resync: found.resync,
  };
}

function times(atMs: number, nowMs: number): Pick<QuarantineRow, "quarantined_at" | "age_seconds"> {
  return { quarantined_at: new Date(atMs).toISOString(), age_seconds: Math.max(0, (nowMs - atMs) / 1000) };
}
