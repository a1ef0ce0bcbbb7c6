/**
 * Short-lived connections for questions to the server. The dump has one of its own, which can be
 * asked nothing while it streams.
 */
import { readFileSync } from "node:fs";
import { createConnection, type Connection, type ConnectionOptions } from "mysql2/promise";
import { AgentError } from "../kernel/errors.ts";
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
   * Hands over each row while it arrives: a column's bytes, each as one character (latin1). As
   * buffers they would be objects by the hundred thousand. Throws AgentError.
   */
  async select(sql: string, take: (row: SelectedRow) => void): Promise<void> {
    const connection: unknown = "connection" in this.#connection ? this.#connection.connection : null;
    if (!isCore(connection)) throw new AgentError("BUG", "the driver hides its connection");
    let broken: unknown = null;
    try {
      await new Promise<void>((resolve, reject) => {
        const query = connection.query({
          sql,
          rowsAsArray: true,
          typeCast: bytesOf,
          timeout: SELECT_TIMEOUT_MS,
        });
        query.on("error", reject);
        query.on("end", () => resolve());
        query.on("result", (row: unknown) => {
          if (broken !== null || !isSelectedRow(row)) return;
          try {
            take(row);
          } catch (thrown) {
            // Thrown out of here it would end the process: the rest of the rows is read over.
            broken = thrown;
          }
        });
      });
    } catch (thrown) {
      throw translateError(thrown);
    }
    if (broken !== null) throw translateError(broken);
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

/** By column: its bytes, each as one character; null for NULL. */
export type SelectedRow = readonly (string | null)[];

/** The driver's own connection, under the one that promises. */
interface CoreConnection {
  query(options: object): { on(event: string, listener: (value: unknown) => void): unknown };
}

function isCore(value: unknown): value is CoreConnection {
  return typeof value === "object" && value !== null && "query" in value && typeof value.query === "function";
}

const bytesOf = (field: { string(encoding: string): string | null }): string | null => field.string("latin1");

function isSelectedRow(value: unknown): value is SelectedRow {
  // The first column is part of a key: never null.
  return Array.isArray(value) && typeof value[0] === "string";
}

/** Connects as the settings say; `preferred` goes on without TLS where the server has none. */
export async function openControl(settings: SourceSettings): Promise<ControlConnection> {
  const wantsTls = settings.socketPath === null && settings.tls !== "off";
  try {
    return await connect(settings, wantsTls);
  } catch (thrown) {
    const noTls = serverErrorOf(thrown).code === "HANDSHAKE_NO_SSL_SUPPORT";
    if (!wantsTls || settings.tls === "verify" || !noTls) throw translateError(thrown);
  }
  try {
    return await connect(settings, false);
  } catch (thrown) {
    throw translateError(thrown);
  }
}

async function connect(settings: SourceSettings, useTls: boolean): Promise<ControlConnection> {
  const connection = await createConnection(connectionOptions(settings, useTls));
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
