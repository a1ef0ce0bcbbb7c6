/**
 * The binlog library's own decoder, fed with bodies of events: the second oracle of the tests and
 * the yardstick of the bench.
 */
export interface LibraryDecoder {
  tableMap(body: Buffer): void;
  /** Rows by column names; an update's are {before, after}. */
  rows(type: number, body: Buffer): readonly Record<string, unknown>[];
}

/** A decoder with a table map memory of its own; reads FULL row metadata only. */
export function libraryDecoder(): LibraryDecoder;
