/**
 * `magento-edge-agent quarantine ls|show|retry|drop`: asks the running agent. `ls`, `show` and
 * `drop` open the state directory themselves when no agent runs; a retry needs one.
 */
import { askIfRunning, type ControlQuestion } from "../control/control-client.ts";
import { AgentError } from "../kernel/errors.ts";
import { systemClock } from "../kernel/service.ts";
import { ageText } from "../observe/health.ts";
import { formatBytes } from "../config/value-kinds.ts";
import {
  type Arguments,
  type Command,
  type OptionRow,
  type Output,
  sharedOptions,
  usageError,
} from "./command.ts";
import { findSockets } from "./find-sockets.ts";
import { loadFrom, settingsOrThrow } from "./load-settings.ts";
import {
  type Choice,
  isDropReport,
  isList,
  isRetryReport,
  isShown,
  QuarantineDesk,
  type QuarantineList,
  type QuarantineShown,
  type RetryLine,
  type RetryReport,
} from "./quarantine-desk.ts";
import { withStoppedState } from "./stopped-state.ts";

const shared = { json: sharedOptions.json, "env-file": sharedOptions.envFile };
/** How long the answer to a retry may take: of one event, of a quarantine that is full of them. */
const ONE_MS = 60_000;
const ALL_MS = 3_600_000;

const all: OptionRow = { type: "boolean", text: "All events in quarantine, instead of one." };

export const quarantineListCommand: Command = {
  name: "quarantine ls",
  summary: "Lists the events that were refused and put aside; no row data.",
  positionals: [],
  options: shared,
  run: async (args, output) => {
    const list = await ask(args, output, {
      socket: "readOnly",
      question: { command: "quarantine.list" },
      isAnswer: isList,
      stopped: (desk) => desk.list(),
    });
    output.out(args.flag("json") ? `${JSON.stringify(list)}\n` : listText(list));
    return 0;
  },
};

export const quarantineShowCommand: Command = {
  name: "quarantine show",
  summary: "Prints one event with its payload, which may hold personal data. For root alone.",
  positionals: ["ID"],
  options: shared,
  run: async (args, output) => {
    const id = idOf(args, "quarantine show");
    const shown = await ask(args, output, {
      socket: "admin",
      question: { command: "quarantine.show", args: { id } },
      isAnswer: isShown,
      stopped: (desk) => desk.show(id),
    });
    output.out(args.flag("json") ? `${JSON.stringify(shown)}\n` : shownText(shown));
    return 0;
  },
};

export const quarantineRetryCommand: Command = {
  name: "quarantine retry",
  summary:
    "Sends events once more, or, after newer ones, their entities' state of now. Exit 1 with the reasons where one is not. For root alone.",
  positionals: ["ID"],
  options: { ...shared, all },
  run: async (args, output) => {
    const choice = choiceOf(args, "quarantine retry");
    const report = await ask(args, output, {
      socket: "admin",
      question: {
        command: "quarantine.retry",
        args: { ...choice, all: choice.id === null },
        timeoutMs: choice.id === null ? ALL_MS : ONE_MS,
      },
      isAnswer: isRetryReport,
      stopped: () => {
        throw new AgentError("AGENT_NOT_RUNNING", "only the running agent can send an event");
      },
    });
    output.out(args.flag("json") ? `${JSON.stringify(report)}\n` : retryText(report));
    const isDone = ({ outcome }: RetryLine): boolean => outcome === "accepted" || outcome === "read-again";
    return report.untried === 0 && report.events.every(isDone) ? 0 : 1;
  },
};

export const quarantineDropCommand: Command = {
  name: "quarantine drop",
  summary: "Deletes events from quarantine for good. For root alone.",
  positionals: ["ID"],
  options: {
    ...shared,
    all,
    yes: { type: "boolean", text: "Really delete them: nobody can bring them back." },
  },
  run: async (args, output) => {
    const choice = choiceOf(args, "quarantine drop");
    if (!args.flag("yes")) throw usageError("drop deletes for good; say --yes", "quarantine drop");
    const report = await ask(args, output, {
      socket: "admin",
      question: { command: "quarantine.drop", args: { ...choice, all: choice.id === null, yes: true } },
      isAnswer: isDropReport,
      stopped: (desk) => desk.drop(choice),
    });
    output.out(args.flag("json") ? `${JSON.stringify(report)}\n` : `${report.dropped} dropped\n`);
    return 0;
  },
};

interface Asked<T> {
  readonly socket: "readOnly" | "admin";
  readonly question: ControlQuestion;
  readonly isAnswer: (answer: unknown) => answer is T;
  /** What is done on the state of an agent that does not run. */
  readonly stopped: (desk: QuarantineDesk) => Promise<T>;
}

async function ask<T>(args: Arguments, output: Output, asked: Asked<T>): Promise<T> {
  const running = await askIfRunning(findSockets(args)[asked.socket], asked.question, asked.isAnswer);
  if (running !== null) return running;
  const settings = settingsOrThrow(loadFrom(args, true));
  return withStoppedState(settings, output, (spool) =>
    asked.stopped(new QuarantineDesk(spool.quarantined, systemClock)),
  );
}

function choiceOf(args: Arguments, command: string): Choice {
  const [id] = args.positionals;
  if (args.flag("all") === (id !== undefined))
    throw usageError("give the ID of one event, or --all", command);
  return { id: id ?? null };
}

function idOf(args: Arguments, command: string): string {
  const [id] = args.positionals;
  if (id === undefined) throw usageError("which event? quarantine ls names their ids", command);
  return id;
}

function listText({ total, events }: QuarantineList): string {
  if (events.length === 0) return "nothing is in quarantine\n";
  const head = ["ID", "AGE", "ENTITY", "MAGENTO_ID", "CODE", "ATTEMPTS", "SIZE", "TOPIC", "NOTE"];
  const rows = events.map((row) => [
    row.id,
    ageText(row.age_seconds * 1000),
    row.entity ?? "-",
    row.magento_id === null ? "-" : String(row.magento_id),
    row.code,
    String(row.attempts),
    formatBytes(row.bytes),
    row.topic,
    noteOf(row),
  ]);
  const lines = table([head, ...rows]);
  if (total > events.length) lines.push(`... and ${total - events.length} more`);
  return `${lines.join("\n")}\n`;
}

function noteOf(row: QuarantineList["events"][number]): string {
  if (row.resync !== null) return `resync ${row.resync} sends the entity's state of now in its place`;
  if (row.newer_sequence !== null) return "a newer event was accepted";
  return row.dead_letter_accepted ? "" : "no dead letter was accepted";
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

function shownText({ event, ...facts }: QuarantineShown): string {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(facts)) {
    if (name !== "schema") lines.push(`${name.padEnd(21)} ${value ?? "-"}`);
  }
  return `${lines.join("\n")}\n\n${event}\n`;
}

function retryText({ events, untried }: RetryReport): string {
  const lines = events.map(({ id, outcome, reason, newerSequence }) => {
    if (outcome === "accepted") return `${id}  accepted`;
    const newer = newerSequence === null ? "" : ` (newer: ${newerSequence})`;
    return `${id}  ${outcome}: ${reason}${newer}`;
  });
  if (untried > 0) lines.push(`${untried} more were not tried`);
  if (lines.length === 0) lines.push("nothing is in quarantine");
  return `${lines.join("\n")}\n`;
}
