/** Finds the command, gives help, and turns errors into a line and an exit code. */
import { nearestName } from "../config/load.ts";
import { settingsHelp } from "../config/reference.ts";
import { AgentError, asError, exitCodeOf } from "../kernel/errors.ts";
import { adoptCommand } from "./adopt.ts";
import { checkCommand } from "./check.ts";
import { type Command, commandHelp, type Output, parseArguments, usageError } from "./command.ts";
import { mappingSchemaCommand, mappingShowCommand } from "./mapping.ts";
import { positionRestartCommand } from "./position.ts";
import {
  quarantineDropCommand,
  quarantineListCommand,
  quarantineRetryCommand,
  quarantineShowCommand,
} from "./quarantine.ts";
import { replayCommand } from "./replay.ts";
import { resyncCommand, snapshotPauseCommand, snapshotResumeCommand } from "./resync.ts";
import { runCommand } from "./run.ts";
import { spoolVerifyCommand } from "./spool-verify.ts";
import { statusCommand } from "./status.ts";
import { verifyCommand } from "./verify.ts";
import { topicReleaseCommand } from "./topic-release.ts";
import { versionCommand } from "./version.ts";

export const commands: readonly Command[] = [
  runCommand,
  checkCommand,
  statusCommand,
  positionRestartCommand,
  resyncCommand,
  verifyCommand,
  replayCommand,
  snapshotPauseCommand,
  snapshotResumeCommand,
  adoptCommand,
  spoolVerifyCommand,
  quarantineListCommand,
  quarantineShowCommand,
  quarantineRetryCommand,
  quarantineDropCommand,
  topicReleaseCommand,
  mappingShowCommand,
  mappingSchemaCommand,
  versionCommand,
];

const isHelp = (word: string | undefined): boolean => word === "--help" || word === "-h" || word === "help";

/** Runs the command that the words name; resolves with the exit code and never rejects. */
export async function runCommandLine(words: readonly string[], output: Output): Promise<number> {
  try {
    return await dispatch(words, output);
  } catch (thrown) {
    output.err(errorText(thrown));
    return exitCodeOf(thrown);
  }
}

async function dispatch(words: readonly string[], output: Output): Promise<number> {
  const [first, second] = words;
  if (first === undefined || isHelp(first)) {
    const text = mainHelp();
    if (first === undefined) throw usageError("which command?", "");
    output.out(text);
    return 0;
  }
  if (first === "--version")
    return versionCommand.run(parseArguments(versionCommand, words.slice(1)), output);
  const group = commands.filter((command) => command.name.startsWith(`${first} `));
  if (group.length > 0 && (second === undefined || isHelp(second))) {
    output.out(groupHelp(first, group));
    return second === undefined ? exitCodeOf(usageError("", "")) : 0;
  }
  const found = commands.find(({ name }) => name === first || name === `${first} ${second ?? ""}`);
  if (found === undefined) throw unknownCommand(group.length > 0 ? `${first} ${second ?? ""}` : first);
  const args = parseArguments(found, words.slice(found.name.split(" ").length));
  if (args.flag("help")) {
    output.out(commandHelp(found));
    return 0;
  }
  return found.run(args, output);
}

function unknownCommand(name: string): AgentError {
  const near = nearestName(
    name,
    commands.map((command) => command.name),
  );
  return usageError(`there is no command "${name}"${near === null ? "" : `; did you mean "${near}"?`}`, "");
}

function mainHelp(): string {
  const lines = [
    "usage: magento-edge-agent COMMAND [OPTION ...]",
    "",
    "Follows the binlog of a Magento shop's database, spools entity events durably and forwards them to Dapr.",
    "",
    "Commands:",
    ...commands.map((command) => `  ${command.name.padEnd(16)} ${command.summary}`),
    "",
    "Exit codes: 0 done, 1 check found faults or the agent refused, 2 degraded, 64 usage, 69 not running,",
    "70 a bug, 75 try again, 77 missing rights, 78 settings or prerequisites.",
    "",
    "Settings are environment variables; defaults in brackets:",
    "",
    settingsHelp(),
  ];
  return `${lines.join("\n")}\n`;
}

function groupHelp(word: string, group: readonly Command[]): string {
  const lines = [`usage: magento-edge-agent ${word} COMMAND [OPTION ...]`, "", "Commands:"];
  for (const command of group) lines.push(`  ${command.name.padEnd(16)} ${command.summary}`);
  return `${lines.join("\n")}\n`;
}

/** For a person at a terminal: what, and what mends it. A bug also shows where. */
export function errorText(thrown: unknown): string {
  if (thrown instanceof AgentError) return `${thrown.code}: ${thrown.message}\n${thrown.hint}\n`;
  const error = asError(thrown);
  return `BUG: ${error.stack ?? error.message}\n`;
}
