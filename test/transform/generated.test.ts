import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { eventJsonSchema } from "../../agent/transform/json-schema.ts";
import { generatedFiles } from "./generated.ts";

const root = join(import.meta.dirname, "..", "..");

for (const [path, text] of generatedFiles()) {
  test(`${path} is what the code makes (UPDATE_GOLDEN=1 writes it)`, () => {
    if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(join(root, path), text);
    assert.equal(readFileSync(join(root, path), "utf8"), text);
  });
}

const ajv = new Ajv2020({ allErrors: true, strict: false, validateFormats: false });
for (const entity of defaultMapping.entities) {
  test(`the golden events of ${entity.entity} fit its published schema`, () => {
    const fits = ajv.compile(eventJsonSchema(entity));
    const events: unknown = JSON.parse(readFileSync(join(root, `docs/events/${entity.entity}.json`), "utf8"));
    assert.ok(Array.isArray(events));
    assert.equal(events.length, 3);
    for (const event of events) assert.ok(fits(event), JSON.stringify(fits.errors));
  });
}
