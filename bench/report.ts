/** Findings of a benchmark: figures with their runs and, where there is one, the target. */

export interface Finding {
  readonly name: string;
  readonly unit: string;
  /** One figure a run. */
  readonly runs: readonly number[];
  readonly target: Target | null;
  readonly note: string;
}

export interface Target {
  readonly kind: "at least" | "under";
  readonly value: number;
}

export const atLeast = (value: number): Target => ({ kind: "at least", value });
export const under = (value: number): Target => ({ kind: "under", value });

export function median(runs: readonly number[]): number {
  const sorted = [...runs].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  const [low = Number.NaN, high = Number.NaN] = [sorted[(sorted.length - 1) >> 1], sorted[middle]];
  return (low + high) / 2;
}

/** Half the distance between the slowest and the fastest run, in percent of the median. */
export function spreadPercent(runs: readonly number[]): number {
  return ((Math.max(...runs) - Math.min(...runs)) / 2 / median(runs)) * 100;
}

/** Judged by the median of the runs. */
export function isMissed(finding: Finding): boolean {
  if (finding.target === null) return false;
  const value = median(finding.runs);
  return finding.target.kind === "at least"
    ? !(value >= finding.target.value)
    : !(value < finding.target.value);
}

function figure(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString("en") : value.toFixed(value < 10 ? 2 : 1);
}

function row(cells: readonly string[]): string {
  const [name = "", value = "", spread = "", target = "", note = ""] = cells;
  return `${name.padEnd(44)}${value.padStart(10)}  ${spread.padEnd(9)}${target.padEnd(26)}${note}`;
}

export function findingsTable(findings: readonly Finding[]): string {
  const lines = findings.map((finding) => {
    const { target } = finding;
    const verdict = isMissed(finding) ? "MISSED" : "ok";
    const goal = target === null ? "" : `${target.kind} ${figure(target.value)}: ${verdict}`;
    const spread = finding.runs.length > 1 ? `±${spreadPercent(finding.runs).toFixed(0)} %` : "1 run";
    return row([
      `${finding.name}, ${finding.unit}`,
      figure(median(finding.runs)),
      spread,
      goal,
      finding.note,
    ]);
  });
  return [row(["figure", "median", "spread", "target", "note"]), ...lines].join("\n");
}
