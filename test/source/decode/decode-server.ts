/** A throw-away server whose binlog the decoder's tests read from its disk. */
import assert from "node:assert/strict";

import type { SchemaColumn } from "../../../agent/source/decode/column-definition.ts";
import type { DatabaseServer, SqlRow } from "../../servers/database.ts";
import { type ServerKind, usualKind } from "../../servers/matrix.ts";
import { type DecodedTable, decodeTable, type RawEvent, readBinlogs } from "./binlog-file.ts";

export class DecodeServer {
  readonly #server: DatabaseServer;
  readonly kind: ServerKind;

  private constructor(server: DatabaseServer, kind: ServerKind) {
    this.#server = server;
    this.kind = kind;
  }

  /** Default: the oldest MariaDB, where most corners of the format are. */
  static async start(kind: ServerKind = usualKind): Promise<DecodeServer> {
    const server = await kind.start({ rowMetadata: "FULL" });
    await server.query("SET GLOBAL innodb_flush_log_at_trx_commit=0; CREATE DATABASE decode");
    return new DecodeServer(server, kind);
  }

  stop(): Promise<void> {
    return this.#server.stop();
  }

  /** Statements in the test's database, without strict mode and in UTC; the last one's rows. */
  async run(...statements: readonly string[]): Promise<SqlRow[]> {
    await this.#server.query("USE decode; SET sql_mode='', time_zone='+00:00'; SET NAMES utf8mb4");
    let rows: SqlRow[] = [];
    for (const statement of statements) {
      rows = await this.#server.query(statement);
    }
    return rows;
  }

  /** Magento's tables, in the test's database. */
  loadMagento(): Promise<void> {
    return this.#server.loadMagento({ database: "decode" });
  }

  events(): RawEvent[] {
    return readBinlogs(this.#server.binlogDir);
  }

  async schemaOf(table: string): Promise<SchemaColumn[]> {
    const rows = await this.#server.query(
      `SELECT COLUMN_NAME AS name, COLUMN_TYPE AS columnType, CHARACTER_SET_NAME AS charset, COLLATION_NAME AS collation
       FROM information_schema.COLUMNS WHERE TABLE_SCHEMA='decode' AND TABLE_NAME='${table}' ORDER BY ORDINAL_POSITION`,
    );
    return rows.map((row) => ({
      name: shownText(row["name"]) ?? "",
      columnType: shownText(row["columnType"]) ?? "",
      charset: shownText(row["charset"]),
      collation: shownText(row["collation"]),
    }));
  }

  /** All rows of one table so far; the first column is its key. */
  async decoded(table: string, columns: readonly string[], keyColumns = [0]): Promise<DecodedTable> {
    const found = decodeTable(this.events(), { table, columns, keyColumns }, await this.schemaOf(table));
    assert.notEqual(found.map, null, `no table map of ${table} in the binlog`);
    return found;
  }
}

/** What mysql2 gave for a column, as text. */
export function shownText(value: unknown): string | null {
  assert.ok(value === null || typeof value === "string" || typeof value === "number");
  return value === null ? null : String(value);
}
