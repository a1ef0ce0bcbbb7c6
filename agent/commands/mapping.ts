/** `magento-edge-agent mapping show` and `mapping schema ENTITY` */
import { nearestName } from "../config/load.ts";
import { eventJsonSchema } from "../transform/json-schema.ts";
import type { EntityMapping, FieldMapping, Mapping } from "../transform/mapping.ts";
import { topicOf } from "../transform/mapping.ts";
import { type Command, sharedOptions, usageError } from "./command.ts";
import { loadFrom, loadMapping, settingsOrThrow } from "./load-settings.ts";

export const mappingShowCommand: Command = {
  name: "mapping show",
  summary: "Prints the mapping in effect: which columns leave the host, under which names, to which topics.",
  positionals: [],
  options: { "env-file": sharedOptions.envFile, json: sharedOptions.json },
  run: async (args, output) => {
    const settings = settingsOrThrow(loadFrom(args, true));
    const mapping = loadMapping(settings);
    if (args.flag("json"))
      output.out(`${JSON.stringify({ schema: "magento-edge-agent/mapping/1", ...mapping }, null, 2)}\n`);
    else output.out(mappingText(mapping, settings.shopName));
    return 0;
  },
};

export const mappingSchemaCommand: Command = {
  name: "mapping schema",
  summary: "Prints the JSON Schema of an entity's events.",
  positionals: ["ENTITY"],
  options: { "env-file": sharedOptions.envFile },
  run: async (args, output) => {
    const mapping = loadMapping(settingsOrThrow(loadFrom(args, true)));
    const [name] = args.positionals;
    const names = mapping.entities.map((entity) => entity.entity);
    const entity = mapping.entities.find((one) => one.entity === name);
    if (name === undefined) throw usageError(`which entity? One of ${names.join(", ")}`, "mapping schema");
    if (entity === undefined) {
      const near = nearestName(name, names);
      const suggestion = near === null ? `it has ${names.join(", ")}` : `did you mean ${near}?`;
      throw usageError(`the mapping has no entity "${name}"; ${suggestion}`, "mapping schema");
    }
    output.out(`${JSON.stringify(eventJsonSchema(entity), null, 2)}\n`);
    return 0;
  },
};

function mappingText(mapping: Mapping, shop: string): string {
  const lines: string[] = [];
  for (const entity of mapping.entities) lines.push(...entityLines(entity, shop), "");
  lines.push(`control events: ${topicOf(mapping.controlTopic, shop)}`);
  lines.push(`dead letters:   ${topicOf(mapping.deadLetterTopic, shop)}`);
  return `${lines.join("\n")}\n`;
}

function entityLines(entity: EntityMapping, shop: string): string[] {
  const head = `${entity.entity}: table ${entity.table}, key ${entity.keys.join(", ")}, topic ${topicOf(entity.topic, shop)}`;
  return [
    `${head}, deletes ${entity.deletes}, oversize ${entity.oversize}`,
    ...entity.fields.map((field) => fieldLine(field)),
  ];
}

function fieldLine(field: FieldMapping): string {
  const notes: string[] = [];
  if (field.ref !== null) notes.push(`reference to ${field.ref}`);
  if (field.personal) notes.push("personal");
  if (field.treatment.kind === "truncate") notes.push(`truncated to ${field.treatment.characters}`);
  else if (field.treatment.kind !== "none") notes.push(field.treatment.kind);
  const target = field.column === field.field ? field.column : `${field.column} -> ${field.field}`;
  return notes.length === 0 ? `  ${target}` : `  ${target.padEnd(44)} ${notes.join(", ")}`;
}
