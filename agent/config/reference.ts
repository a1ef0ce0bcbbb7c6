/**
 * Texts made from the tables: the settings part of `--help`, the example file of the unit, and the
 * two reference pages. Files on disk are written by the test with UPDATE_GOLDEN=1.
 */
import { errorTable } from "../kernel/errors.ts";
import { predecessorNames } from "./names.ts";
import { settingGroups, type SettingRow, settingRows } from "./settings-table.ts";

const made = "made from the table in the code; do not edit";

/** One line a setting, grouped. */
export function settingsHelp(): string {
  const lines: string[] = [];
  for (const group of settingGroups) {
    lines.push(`${group}:`);
    for (const row of rowsOf(group)) {
      lines.push(`  ${row.name}${row.secret ? ", _FILE" : ""}`);
      lines.push(...wrap(`${row.text} [${row.unset}]`, 90).map((line) => `      ${line}`));
    }
    lines.push("");
  }
  return lines.join("\n").trimEnd();
}

/** systemd/agent.env.example: every setting, commented out, with its default. */
export function envExample(): string {
  const lines = [
    `# Settings of magento-edge-agent (${made}).`,
    "# Copy to /etc/magento-edge-agent/agent.env (root:magento-edge-agent, 0640) and set what differs.",
    "# Syntax of systemd's EnvironmentFile=: NAME=value, no export, no $ expansion.",
    "# A change needs a restart. Check it first: magento-edge-agent check --env-file FILE",
  ];
  for (const group of settingGroups) {
    lines.push("", `# ---- ${group}`);
    for (const row of rowsOf(group)) lines.push("", ...exampleOf(row));
  }
  return `${lines.join("\n")}\n`;
}

function exampleOf(row: SettingRow): string[] {
  const lines = wrap(row.text, 96).map((line) => `# ${line}`);
  if (row.secret) {
    return [
      ...lines,
      `# Best as systemd credential "${row.credential}", else in a file that only the agent's group can read:`,
      `#${row.name}_FILE=/etc/magento-edge-agent/credentials/${row.credential}`,
    ];
  }
  lines.push(`# Must be ${row.kind.rule}.`);
  if (row.defaultText === null) lines.push(`# Unset: ${row.unset}.`);
  return [...lines, `#${row.name}=${row.defaultText ?? ""}`];
}

/** docs/settings.md */
export function settingsPage(): string {
  const lines = [
    "# Settings",
    "",
    `<!-- ${made} -->`,
    "",
    "Settings are environment variables; under systemd they stand in `/etc/magento-edge-agent/agent.env`.",
    "`magento-edge-agent check` names every fault at once. Unknown names with the agent's prefixes are faults, and so is",
    "every unknown name in a file given by `--env-file`. An empty value counts as unset.",
  ];
  for (const group of settingGroups) {
    lines.push("", `## ${group}`, "", "| name | meaning | must be | default |", "|---|---|---|---|");
    for (const row of rowsOf(group)) {
      const rule = row.secret ? "text" : row.kind.rule;
      const name = row.secret ? `\`${row.name}\`, \`${row.name}_FILE\`` : `\`${row.name}\``;
      const fallback = !row.secret && row.defaultText !== null ? `\`${row.defaultText}\`` : row.unset;
      lines.push(
        `| ${[name, row.text, rule, fallback].map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`,
      );
    }
  }
  lines.push("", "## Secrets", "", ...secretLines(), "", "## Names of the in-cluster predecessor", "");
  lines.push("Accepted, without effect, and named in one log line at start.", "");
  for (const one of predecessorNames) lines.push(`- \`${one.name}\`: replaced by ${one.instead}.`);
  return `${lines.join("\n")}\n`;
}

function secretLines(): string[] {
  const lines = [
    "A secret is looked for in this order: the systemd credential, the file that `NAME_FILE` names (refused when everybody",
    "can read it), the plain variable (the log says so, because it shows in the process's environment). Files are read again",
    "when they change; a systemd credential changes at a restart.",
    "",
  ];
  for (const [, row] of settingRows)
    if (row.secret) lines.push(`- \`${row.name}\`: credential \`${row.credential}\``);
  return lines;
}

/** docs/errors.md */
export function errorsPage(): string {
  const lines = [
    "# Errors and exit codes",
    "",
    `<!-- ${made} -->`,
    "",
    "Every error carries one of these codes, in the log as `code=`. What the agent does by itself:",
    "",
    "- **retry**: tries again for ever, with a growing delay.",
    "- **wait**: stops reading, keeps running, goes on by itself.",
    "- **quarantine**: puts this one event aside, the rest goes on.",
    "- **operator**: somebody has to act.",
    "- **bug**: ends and is started again.",
    "",
    "The exit code counts where the error ends the process: before it was ready, or when it cannot go on.",
    "",
    "| code | what | the agent | exit | mend |",
    "|---|---|---|---|---|",
  ];
  for (const [code, row] of Object.entries(errorTable)) {
    lines.push(`| \`${code}\` | ${row.text} | ${row.disposition} | ${row.exit ?? "-"} | ${row.hint} |`);
  }
  lines.push("", "## Exit codes", "", ...exitCodeLines());
  return `${lines.join("\n")}\n`;
}

const exitTexts: Readonly<Record<number, string>> = {
  0: "stopped as asked, or the command succeeded",
  1: "`check` found faults, `status --wait-healthy` waited in vain, or the agent refused a command",
  2: "`status`: the agent runs, and something is unhealthy",
  64: "the command line is wrong; systemd does not restart",
  69: "no agent is running",
  70: "a bug; systemd restarts",
  75: "try again; systemd restarts",
  77: "a right is missing; systemd does not restart",
  78: "settings or prerequisites are missing; systemd does not restart",
};

function exitCodeLines(): string[] {
  return Object.entries(exitTexts).map(([code, text]) => `- ${code}: ${text}.`);
}

/** Exit codes after which only a person can help: the unit's RestartPreventExitStatus. */
export const exitCodesNotRestarted: readonly number[] = [64, 77, 78];

function rowsOf(group: (typeof settingGroups)[number]): SettingRow[] {
  return settingRows.filter(([, row]) => row.group === group).map(([, row]) => row);
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}
