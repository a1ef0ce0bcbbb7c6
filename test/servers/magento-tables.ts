import { readFileSync } from "node:fs";
import { join } from "node:path";

const directory = join(import.meta.dirname, "magento");

export interface MagentoTablesOptions {
  /** Default magento_db; made if missing. */
  readonly database?: string;
  /** MAGENTO_TABLE_PREFIX. */
  readonly prefix?: string;
  /** The few rows of a fresh shop; default false. */
  readonly seed?: boolean;
  /** Magento's foreign keys; default false, because random DML then needs no order. */
  readonly foreignKeys?: boolean;
  /** Content staging's shape (row_id) of product and category tables instead of everything else. */
  readonly staging?: boolean;
}

/** The SQL that makes Magento's tables in the database. */
export function magentoTablesSql(options: MagentoTablesOptions): string {
  const database = options.database ?? "magento_db";
  const files =
    options.staging === true
      ? ["magento-ddl-staging.sql"]
      : [
          "magento-ddl.sql",
          ...(options.foreignKeys === true ? ["magento-ddl-fk.sql"] : []),
          ...(options.seed === true ? ["magento-seed.sql"] : []),
        ];
  const text = files.map((file) => readFileSync(join(directory, file), "utf8")).join("\n");
  return `CREATE DATABASE IF NOT EXISTS \`${database}\`;\nUSE \`${database}\`;\n${withPrefix(text, options.prefix ?? "")}`;
}

function withPrefix(sql: string, prefix: string): string {
  if (prefix === "") return sql;
  return sql
    .replace(/\b(CREATE TABLE|ALTER TABLE|REFERENCES) `(\w+)`/g, `$1 \`${prefix}$2\``)
    .replace(/\b(insert into) (\w+)/g, `$1 ${prefix}$2`);
}
