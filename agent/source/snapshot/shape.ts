/** Fingerprints of what a table's followed columns are: to see that the source changed in shape. */
import { crc32 } from "node:zlib";
import type { FollowedTable } from "../../change.ts";
import type { OpenTable } from "./chunk-reader.ts";

/** Which columns are followed, their types, and all that decides about their values. */
export function shapeOf({ columns }: FollowedTable, { reading }: OpenTable): string {
  return [columns.join(), reading.shape, reading.definitions].map(fingerprint).join(" ");
}

/** Whether the source changed. Where other columns are followed, that is the mapping's doing. */
export function isReshaping(before: string | undefined, now: string): boolean {
  if (before === undefined) return false;
  const [columns, types, definitions] = before.split(" ");
  const [columnsNow, typesNow, definitionsNow] = now.split(" ");
  if (columns !== columnsNow) return false;
  return types !== typesNow || (definitions !== undefined && definitions !== definitionsNow);
}

/** Whether the two say if the source changed: of the same columns, and both by a build that looks at all. */
export function isComparable(before: string, now: string): boolean {
  return before.length === now.length && before.split(" ")[0] === now.split(" ")[0];
}

function fingerprint(text: string): string {
  return crc32(text).toString(16).padStart(8, "0");
}
