/** Fingerprints of what a table's followed columns are: to see that the source changed in shape. */
import { crc32 } from "node:zlib";
import type { FollowedTable } from "../../change.ts";
import type { OpenTable } from "./chunk-reader.ts";

/** Which columns are followed, and what they are in the source. */
export function shapeOf({ columns }: FollowedTable, { reading }: OpenTable): string {
  return `${fingerprint(columns.join())} ${fingerprint(reading.shape)}`;
}

/** Whether the source changed. Where other columns are followed, that is the mapping's doing. */
export function isReshaping(before: string | undefined, now: string): boolean {
  if (before === undefined || before === now) return false;
  return before.split(" ")[0] === now.split(" ")[0];
}

function fingerprint(text: string): string {
  return crc32(text).toString(16).padStart(8, "0");
}
