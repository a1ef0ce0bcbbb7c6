/** Files that are made from the code, and their texts; a test fails when they differ. */
import { defaultMapping } from "../../agent/transform/default-mapping.ts";
import { eventJsonSchema, eventTypes, personalFieldsSource } from "../../agent/transform/json-schema.ts";
import { mappingFileSchema } from "../../agent/transform/mapping-schema.ts";
import { Changes, context, makeTransform, partOf, readEvent } from "./parts.ts";
import { sampleRows } from "./rows.ts";

function pretty(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Create, update and delete of each entity's sample row, as consumers receive them. */
function goldenEvents(): [path: string, text: string][] {
  const transform = makeTransform();
  return sampleRows.map(({ entity, table, row, update }) => {
    const after = { ...row, ...update };
    const transactions = [
      new Changes(transform).insert(table, row),
      new Changes(transform).update(table, row, after),
      new Changes(transform).delete(table, after),
    ];
    const events = transactions.flatMap((changes, index) => {
      const end = { file: "mariadb-bin.000042", position: 98_765 + index * 1000 };
      return transform
        .encode(partOf(changes.list, { end, gtid: `0-1-${12_345 + index}` }), context)
        .map(readEvent);
    });
    return [`docs/events/${entity}.json`, pretty(events)];
  });
}

/** Path from the root of the repository -> text. */
export function generatedFiles(): ReadonlyMap<string, string> {
  const files = new Map<string, string>(goldenEvents());
  files.set("docs/mapping.schema.json", pretty(mappingFileSchema));
  for (const entity of defaultMapping.entities) {
    files.set(`cluster/schemas/${entity.entity}.schema.json`, pretty(eventJsonSchema(entity)));
  }
  files.set("cluster/schemas/events.ts", eventTypes(defaultMapping));
  files.set("cluster/schemas/personal-fields.ts", personalFieldsSource(defaultMapping));
  return files;
}
