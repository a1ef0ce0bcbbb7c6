/**
 * Short-lived connections for questions to the server. The dump has one of its own, which can be
 * asked nothing while it streams.
 */
import { readFileSync } from "node:fs";
import { createConnection, type Connection, type ConnectionOptions } from "mysql2/promise";
import { AgentError, asError } from "../kernel/errors.ts";
import type { SourceSettings } from "./settings.ts";
import { serverErrorOf, translateError } from "./source-errors.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const QUERY_TIMEOUT_MS = 30_000;
const SELECT_TIMEOUT_MS = 120_000;

export type SqlRow = Readonly<Record<string, unknown>>;

/** How a connection is to be made now: password and authority are read anew. */
export function connectionOptions(settings: SourceSettings, useTls: boolean): ConnectionOptions {
  return {
    ...(settings.socketPath === null
      ? { host: settings.host, port: settings.port }
      : { socketPath: settings.socketPath }),
    user: settings.user,
    password: settings.password(),
    connectTimeout: CONNECT_TIMEOUT_MS,
    charset: "utf8mb4",
    supportBigNumbers: true,
    bigNumberStrings: true,
    dateStrings: true,
    ...(useTls ? { ssl: tlsOptions(settings) } : {}),
  };
}

function tlsOptions(settings: SourceSettings): NonNullable<Exclude<ConnectionOptions["ssl"], string>> {
  if (settings.tls !== "verify") return { rejectUnauthorized: false };
  return {
    rejectUnauthorized: true,
    verifyIdentity: true,
    ...(settings.tlsCa === null ? {} : { ca: readAuthority(settings.tlsCa) }),
  };
}

function readAuthority(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new AgentError("SOURCE_UNREACHABLE", `MAGENTO_DB_TLS_CA cannot be read: ${path}`, { cause });
  }
}

/** An open control connection. */
export class ControlConnection implements AsyncDisposable {
  /** Whether this connection, and so one made the same way, is encrypted. */
  readonly isEncrypted: boolean;
  readonly #connection: Connection;

  constructor(connection: Connection, isEncrypted: boolean) {
    this.#connection = connection;
    this.isEncrypted = isEncrypted;
  }

  /** Rows of one statement. Throws AgentError. */
  async query(sql: string, values: readonly (string | number)[] = []): Promise<SqlRow[]> {
    try {
      const [rows] = await this.#connection.query({ sql, values: [...values], timeout: QUERY_TIMEOUT_MS });
      const answer: unknown = rows;
      return Array.isArray(answer) ? answer.filter(isRow) : [];
    } catch (thrown) {
      throw translateError(thrown);
    }
  }

  /**
   * Statements that the server runs one behind the other, without waiting for this side in between:
   * their rows, by statement. Those of one with `take` are handed over while they arrive, as bytes of
   * the text protocol that nobody writes to later, and are not among them. The first that fails ends
   * it. Of a connection that takes several statements at once. Throws AgentError.
   */
  async batch(statements: readonly Statement[]): Promise<readonly (readonly SqlRow[])[]> {
    const sql = statements.map((statement) => statement.sql).join(";");
    try {
      const answer = await new Promise<unknown>((resolve, reject) => {
        const query = coreOf(this.#connection).query({ sql, timeout: SELECT_TIMEOUT_MS }, (error, answers) =>
          error === null ? resolve(answers) : reject(asError(error)),
        );
        takeRows(query, statements, (thrown) => reject(asError(thrown)));
      });
      const answers: readonly unknown[] = statements.length > 1 && Array.isArray(answer) ? answer : [answer];
      return answers.map((rows) => (Array.isArray(rows) ? rows.filter(isRow) : []));
    } catch (thrown) {
      throw translateError(thrown);
    }
  }

  /** Rows of the first statement that the server understands; servers differ in their words. */
  async queryFirst(...statements: readonly string[]): Promise<SqlRow[]> {
    let failure: AgentError | null = null;
    for (const sql of statements) {
      try {
        return await this.query(sql);
      } catch (thrown) {
        failure = translateError(thrown);
        const { code } = serverErrorOf(failure.cause);
        if (code !== "ER_PARSE_ERROR" && code !== "ER_UNKNOWN_SYSTEM_VARIABLE") throw failure;
      }
    }
    throw failure ?? new AgentError("BUG", "no statement was given");
  }

  /** Says goodbye, so that the server does not log an aborted connection; waits for nothing. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#connection.end().catch(() => this.#connection.destroy());
    return Promise.resolve();
  }
}

function isRow(value: unknown): value is SqlRow {
  return typeof value === "object" && value !== null;
}

/** A statement of a batch, and who takes its rows. */
export interface Statement {
  readonly sql: string;
  readonly take?: RowTaker;
}

/** A row as it came: the bytes from `start` to `end`. */
export type RowTaker = (bytes: Buffer, start: number, end: number) => void;

/** The driver's own connection, under the one that promises. */
interface CoreConnection {
  query(options: object, done: (error: unknown, answers: unknown) => void): CoreQuery;
}

interface CoreQuery {
  on(event: "fields", listener: (fields: unknown) => void): unknown;
  /** The step that takes a packet of a row, or the end of the rows, and gives the next step. */
  row: RowStep;
}

type RowStep = (packet: RowPacket, connection: unknown) => unknown;

interface RowPacket {
  readonly buffer: Buffer;
  readonly offset: number;
  readonly end: number;
  isEOF(): boolean;
}

function coreOf(connection: Connection): CoreConnection {
  const core: unknown = "connection" in connection ? connection.connection : null;
  if (!isCore(core)) throw new AgentError("BUG", "the driver hides its connection");
  return core;
}

function isCore(value: unknown): value is CoreConnection {
  return typeof value === "object" && value !== null && "query" in value && typeof value.query === "function";
}

/**
 * Takes the packets of rows out of the driver's hands, which would make an object of each. What a
 * taker throws must not get into the driver, where it would end the process: it is told, and the rest
 * of the rows is read over.
 */
function takeRows(
  query: CoreQuery,
  statements: readonly Statement[],
  failed: (thrown: unknown) => void,
): void {
  const ofDriver = query.row;
  if (typeof ofDriver !== "function") throw new AgentError("BUG", "the driver hides its rows");
  let statement = 0;
  let isBroken = false;
  const step: RowStep = (packet, connection) => {
    const take = statements[statement]?.take;
    const isEnd = packet.isEOF();
    if (isEnd || take === undefined) {
      if (isEnd) statement += 1;
      const next = ofDriver.call(query, packet, connection);
      return next === ofDriver ? step : next;
    }
    if (isBroken) return step;
    try {
      take(packet.buffer, packet.offset, packet.end);
    } catch (thrown) {
      isBroken = true;
      failed(thrown);
    }
    return step;
  };
  query.row = step;
  query.on("fields", (fields) => {
    // The answer of a statement that has no rows.
    if (fields === undefined) statement += 1;
  });
}

/**
 * Connects as the settings say; `preferred` goes on without TLS where the server has none.
 *
 * @param more options of the driver beside them
 */
export async function openControl(
  settings: SourceSettings,
  more: ConnectionOptions = {},
): Promise<ControlConnection> {
  const wantsTls = settings.socketPath === null && settings.tls !== "off";
  try {
    return await connect(settings, wantsTls, more);
  } catch (thrown) {
    const noTls = serverErrorOf(thrown).code === "HANDSHAKE_NO_SSL_SUPPORT";
    if (!wantsTls || settings.tls === "verify" || !noTls) throw translateError(thrown);
  }
  try {
    return await connect(settings, false, more);
  } catch (thrown) {
    throw translateError(thrown);
  }
}

async function connect(
  settings: SourceSettings,
  useTls: boolean,
  more: ConnectionOptions,
): Promise<ControlConnection> {
  const connection = await createConnection({ ...connectionOptions(settings, useTls), ...more });
  // A connection that dies between two questions says so at the next one.
  connection.on("error", () => undefined);
  return new ControlConnection(connection, useTls);
}

export function textOf(row: SqlRow | undefined, column: string): string {
  const value = row?.[column];
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  return Buffer.isBuffer(value) ? value.toString("utf8") : "";
}

export function numberOf(row: SqlRow | undefined, column: string): number {
  return Number(textOf(row, column));
}
