/**
 * The library's parts are loaded by their files, because the package exports only the client
 * around them; plain JavaScript, because those files have no types.
 */
import { TableMap } from "../../../node_modules/@vlasky/zongji/lib/binlog_event.js";
import { Parser } from "../../../node_modules/@vlasky/zongji/lib/reader.js";
import { DeleteRows, UpdateRows, WriteRows } from "../../../node_modules/@vlasky/zongji/lib/rows_event.js";

const kinds = [WriteRows, UpdateRows, DeleteRows];

export function libraryDecoder() {
  const tableMap = {};
  const client = {
    tableMap,
    useChecksum: false,
    connection: { config: { dateStrings: true, timezone: "Z" } },
    _skipSchema: () => false,
    emit: (_name, error) => {
      throw error;
    },
  };
  const parse = (Event, type, body) => {
    const parser = new Parser();
    parser.append(body);
    return new Event(parser, { eventType: type, timestamp: 0, nextPosition: 0, size: body.length }, client);
  };
  return {
    tableMap(body) {
      const event = parse(TableMap, 19, body);
      tableMap[event.tableId] = {
        columnSchemas: event.buildColumnSchemas(),
        parentSchema: event.schemaName,
        tableName: event.tableName,
      };
      event.updateColumnInfo();
    },
    rows(type, body) {
      let first = 23;
      if (type >= 30) first = type >= 166 ? 166 : 30;
      return parse(kinds[(type - first) % 3], type, body).rows;
    },
  };
}
