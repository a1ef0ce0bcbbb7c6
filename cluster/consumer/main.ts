/**
 * Reference consumer of magento-edge-agent: rebuilds the entities in one SQLite file.
 *
 *     node cluster/consumer/main.ts --app-port 6001 --dapr-http-port 3501 --db replica.sqlite
 *
 * GET /statistics says what it has, GET /verifications what drifted apart, GET /healthz whether it can write.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Applier, type PersonalFields } from "./applier.ts";
import { type ReportsOptions, startReports } from "./reports.ts";
import { startConsumer } from "./server.ts";
import { defaultVerifyOptions } from "./verifications.ts";

const usage =
  "usage: node cluster/consumer/main.ts --app-port PORT --dapr-http-port PORT --db FILE [--personal-fields FILE]\n" +
  "         [--verify-grace SECONDS] [--reports-listen HOST:PORT [--reports-token-file FILE]]";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      "app-port": { type: "string" },
      "dapr-http-port": { type: "string" },
      db: { type: "string" },
      "personal-fields": { type: "string", default: join(import.meta.dirname, "personal-fields.json") },
      "verify-grace": { type: "string", default: "5" },
      "reports-listen": { type: "string" },
      "reports-token-file": { type: "string" },
    },
  });
  const appPort = Number(values["app-port"]);
  const daprHttpPort = Number(values["dapr-http-port"]);
  const graceMs = Number(values["verify-grace"]) * 1000;
  const reports = reportsAt(values["reports-listen"], values["reports-token-file"]);
  const isUsable = isPort(appPort) && isPort(daprHttpPort) && graceMs > 0 && reports !== undefined;
  if (!isUsable || values.db === undefined) {
    process.stderr.write(`${usage}\n`);
    process.exitCode = 64;
    return;
  }
  const verify = { ...defaultVerifyOptions, graceMs };
  const applier = new Applier(values.db, readPersonalFields(values["personal-fields"]), verify);
  const log = (line: string): void => {
    process.stderr.write(`${line}\n`);
  };
  const stop = await startConsumer({ appPort, daprHttpPort, applier, log });
  const reportsServer = reports === null ? null : await startReports({ ...reports, applier });
  log(`consumer: listening on 127.0.0.1:${appPort}, writing ${values.db}`);
  const end = async (): Promise<void> => {
    reportsServer?.close();
    await stop();
    applier.close();
    process.exit(0);
  };
  process.once("SIGTERM", () => void end());
  process.once("SIGINT", () => void end());
}

/** Null: no listener for reports is wanted; undefined: what is wanted is not clear, or open to everybody. */
function reportsAt(
  listen: string | undefined,
  tokenFile: string | undefined,
): Pick<ReportsOptions, "host" | "port" | "token"> | null | undefined {
  if (listen === undefined) return null;
  const [, host, port] = /^(.+):([0-9]+)$/.exec(listen) ?? [];
  if (host === undefined || !isPort(Number(port))) return undefined;
  const token = tokenFile === undefined ? null : readFileSync(tokenFile, "utf8").trim();
  // Another machine may ask only with a token.
  return token === null && host !== "127.0.0.1" ? undefined : { host, port: Number(port), token };
}

function isPort(value: number): boolean {
  return Number.isInteger(value) && value > 0 && value < 65_536;
}

/** Lists of field names by entity; anything else is refused, because a gap would keep personal data. */
export function readPersonalFields(file: string): PersonalFields {
  const parsed: unknown = JSON.parse(readFileSync(file, "utf8"));
  if (typeof parsed !== "object" || parsed === null) throw new Error(`${file} is not an object`);
  const fields: Record<string, string[]> = {};
  for (const [entity, names] of Object.entries(parsed)) {
    if (!Array.isArray(names)) throw new Error(`${file}: ${entity} is not a list of field names`);
    fields[entity] = names.map(String);
  }
  return fields;
}

await main();
