/** `magento-edge-agent resync` and `snapshot pause|resume`: rows are read beside the stream. */
import type { SnapshotScope } from "../change.ts";
import { askIfRunning } from "../control/control-client.ts";
import { type ControlArguments, textArgument } from "../control/protocol.ts";
import { AgentError } from "../kernel/errors.ts";
import { addResync, pauseReading, type ResyncAccepted, type ResyncRequest } from "../snapshots.ts";
import {
  type Arguments,
  type Command,
  type OptionRow,
  type Output,
  sharedOptions,
  usageError,
} from "./command.ts";
import { findSockets } from "./find-sockets.ts";
import { loadFrom, loadMapping, settingsOrThrow } from "./load-settings.ts";
import { withStoppedState } from "./stopped-state.ts";

/** Which rows of an entity. */
export const rowsOptions = {
  all: { type: "boolean", text: "All of its rows." },
  keys: { type: "string", value: "ID,ID,...", text: "These, by magento_id." },
  "key-range": { type: "string", value: "FROM-TO", text: "These and all between, both ends too." },
} as const satisfies Record<string, OptionRow>;

export const resyncCommand: Command = {
  name: "resync",
  summary: "Reads an entity's rows again, whole or in part, while the stream goes on.",
  positionals: ["ENTITY"],
  options: {
    ...rowsOptions,
    "to-topic": {
      type: "string",
      value: "TOPIC",
      text: "Send there instead of the entity's topic: fills a new consumer.",
    },
    "env-file": sharedOptions.envFile,
  },
  more: () =>
    [
      "Each row is sent as it is now, in the bulk lane beside the live changes. A magento.range event ends it: what a",
      "consumer has of the rows asked for, and the source has not, is gone with it. A running agent does it at once",
      "(over its admin socket, root), a stopped one at its next start. status shows how far it is.",
    ].join("\n"),
  run: async (args, output) => {
    const request = requestOf(args);
    const question = { command: "resync", args: { ...request }, timeoutMs: 120_000 };
    const running = await askIfRunning(findSockets(args).admin, question, isAccepted);
    if (running !== null) return told(running, output);
    const settings = settingsOrThrow(loadFrom(args, true));
    const mapping = loadMapping(settings);
    return told(
      await withStoppedState(settings, output, (spool) => addResync(spool, mapping, request)),
      output,
    );
  },
};

function pauseCommand(name: "snapshot pause" | "snapshot resume", summary: string): Command {
  const paused = name === "snapshot pause";
  return {
    name,
    summary,
    positionals: [],
    options: { "env-file": sharedOptions.envFile },
    run: async (args, output) => {
      const isDone = (value: unknown): value is object => typeof value === "object" && value !== null;
      const running = await askIfRunning(
        findSockets(args).admin,
        { command: name, timeoutMs: 120_000 },
        isDone,
      );
      if (running === null) {
        const settings = settingsOrThrow(loadFrom(args, true));
        await withStoppedState(settings, output, (spool) => pauseReading(spool, paused));
      }
      output.out(paused ? "rows are read no further until snapshot resume\n" : "rows are read on\n");
      return 0;
    },
  };
}

export const snapshotPauseCommand = pauseCommand(
  "snapshot pause",
  "Stops reading rows (snapshot, resync) until resume; the stream goes on.",
);
export const snapshotResumeCommand = pauseCommand(
  "snapshot resume",
  "Goes on reading rows where it was paused.",
);

function requestOf(args: Arguments): ResyncRequest {
  const asked = askedRows(args, "resync");
  if (asked.scope === null) throw usageError("say one of --all, --keys and --key-range", "resync");
  return { entity: asked.entity, scope: asked.scope, topic: args.text("to-topic") };
}

/** The rows that a command line names; a scope of null is none of the three options. Throws USAGE. */
export function askedRows(
  args: Arguments,
  command: string,
): { readonly entity: string; readonly scope: SnapshotScope | null } {
  const [entity] = args.positionals;
  if (entity === undefined) throw usageError("which entity?", command);
  const keys = args.text("keys");
  const range = args.text("key-range");
  const given = [args.flag("all"), keys !== null, range !== null].filter(Boolean).length;
  if (given > 1) throw usageError("say one of --all, --keys and --key-range", command);
  return { entity, scope: given === 0 ? null : scopeOf(keys, range, command) };
}

function scopeOf(keys: string | null, range: string | null, command: string): SnapshotScope {
  if (keys !== null) {
    const named = [...new Set(keys.split(",").map((key) => key.trim()))].filter((key) => key !== "");
    if (named.length === 0) throw usageError(`--keys=${keys} names no key`, command);
    return { kind: "keys", keys: named };
  }
  if (range === null) return { kind: "all" };
  const ends = /^(\d{1,19})-(\d{1,19})$/.exec(range);
  const [, from, to] = ends ?? [];
  if (from === undefined || to === undefined || BigInt(from) > BigInt(to)) {
    throw usageError(`--key-range=${range} is no range; it has the form 100-200`, command);
  }
  return { kind: "range", from, to };
}

/** What came over the socket. Throws USAGE. */
export function resyncArguments(args: ControlArguments): ResyncRequest {
  const { scope, topic } = args;
  if (typeof topic !== "string" && topic !== null)
    throw new AgentError("USAGE", "a topic is a text, or null");
  if (topic === "") throw new AgentError("USAGE", "the topic is empty");
  return { entity: textArgument(args, "entity"), scope: scopeArgument(scope), topic };
}

/** Throws USAGE. */
export function scopeArgument(scope: unknown): SnapshotScope {
  if (typeof scope === "object" && scope !== null && "kind" in scope) {
    if (scope.kind === "all") return { kind: "all" };
    if (scope.kind === "range" && "from" in scope && "to" in scope) {
      const { from, to } = scope;
      if (typeof from === "string" && typeof to === "string") return { kind: "range", from, to };
    }
    if (scope.kind === "keys" && "keys" in scope && Array.isArray(scope.keys)) {
      const keys = scope.keys.filter((key) => typeof key === "string");
      if (keys.length === scope.keys.length && keys.length > 0) return { kind: "keys", keys };
    }
  }
  throw new AgentError("USAGE", "the rows that are asked for are none of all, range and keys");
}

function told({ entity, generation, ahead }: ResyncAccepted, output: Output): number {
  const after = ahead === 0 ? "" : `, after ${ahead} that wait`;
  output.out(`resync ${generation} of ${entity} is taken${after}; status shows how far it is\n`);
  return 0;
}

export function isAccepted(value: unknown): value is ResyncAccepted {
  if (typeof value !== "object" || value === null) return false;
  if (!("entity" in value && "generation" in value && "ahead" in value)) return false;
  return (
    typeof value.entity === "string" &&
    typeof value.generation === "number" &&
    typeof value.ahead === "number"
  );
}
