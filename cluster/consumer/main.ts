/**
 * Reference consumer of magento-edge-agent: rebuilds the entities in one SQLite file.
 *
 *     node cluster/consumer/main.ts --app-port 6001 --dapr-http-port 3501 --db replica.sqlite
 *
 * GET /statistics says what it has; GET /healthz whether it can write.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Applier, type PersonalFields } from "./applier.ts";
import { startConsumer } from "./server.ts";

const usage =
  "usage: node cluster/consumer/main.ts --app-port PORT --dapr-http-port PORT --db FILE [--personal-fields FILE]";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      "app-port": { type: "string" },
      "dapr-http-port": { type: "string" },
      db: { type: "string" },
      "personal-fields": { type: "string", default: join(import.meta.dirname, "personal-fields.json") },
    },
  });
  const appPort = Number(values["app-port"]);
  const daprHttpPort = Number(values["dapr-http-port"]);
  if (!isPort(appPort) || !isPort(daprHttpPort) || values.db === undefined) {
    process.stderr.write(`${usage}\n`);
    process.exitCode = 64;
    return;
  }
  const applier = new Applier(values.db, readPersonalFields(values["personal-fields"]));
  const log = (line: string): void => {
    process.stderr.write(`${line}\n`);
  };
  const stop = await startConsumer({ appPort, daprHttpPort, applier, log });
  log(`consumer: listening on 127.0.0.1:${appPort}, writing ${values.db}`);
  const end = async (): Promise<void> => {
    await stop();
    applier.close();
    process.exit(0);
  };
  process.once("SIGTERM", () => void end());
  process.once("SIGINT", () => void end());
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
