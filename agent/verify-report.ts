/** What a consumer reports of a verification, checked: it comes from elsewhere, and starts resyncs. */
import { type DriftCounts, driftedRows } from "./observe/facts.ts";

export interface VerifyReport extends DriftCounts {
  readonly complete: boolean;
  /** `magento_id`s of drifted rows; fewer than the counts say where the list is cut. */
  readonly keys: readonly (string | number)[];
}

/** Longest key: no key column that Magento has is longer by far. */
const KEY_CHARACTERS_MAX = 2_000;

/** The report, or in words why it is none of this verification. */
export function parseReport(
  body: string,
  about: { readonly instance: string; readonly generation: number; readonly entity: string },
): VerifyReport | string {
  let report: unknown;
  try {
    report = JSON.parse(body);
  } catch {
    return "the report is no JSON";
  }
  if (!isRecord(report)) return "the report is no object";
  const { instance, verification, entity, complete, drifts } = report;
  if (instance !== about.instance || verification !== about.generation || entity !== about.entity)
    return "the report is of another verification";
  if (typeof complete !== "boolean") return 'the report has no "complete"';
  if (!Array.isArray(drifts)) return 'the report has no "drifts"';
  const counts = countsOf(report);
  if (counts === null) return "a count of the report is no number";
  const keys: (string | number)[] = [];
  for (const drift of drifts) {
    const key: unknown = isRecord(drift) ? drift["magento_id"] : undefined;
    const isKey = typeof key === "string" || (typeof key === "number" && Number.isSafeInteger(key));
    if (!isKey || String(key) === "" || String(key).length > KEY_CHARACTERS_MAX)
      return "a drifted row of the report has no key";
    keys.push(key);
  }
  if (keys.length > driftedRows(counts)) return "the report lists more drift than it counts";
  return { complete, keys, ...counts };
}

function countsOf(report: Readonly<Record<string, unknown>>): DriftCounts | null {
  // A consumer of an earlier build does not look for rows that are ahead.
  const { compared, newer, undeliverable, missing, changed, extra, ahead = 0 } = report;
  const counts = { compared, newer, undeliverable, missing, changed, extra, ahead };
  return areCounts(counts) ? counts : null;
}

function areCounts<K extends string>(
  counts: Readonly<Record<K, unknown>>,
): counts is Readonly<Record<K, number>> {
  return Object.values(counts).every(
    (count) => typeof count === "number" && Number.isSafeInteger(count) && count >= 0,
  );
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
