/** `magento-edge-agent topic release`: an operator says that refused events are poison, not a wrong setting. */
import { askIfRunning } from "../control/control-client.ts";
import { type ControlArguments, textArgument } from "../control/protocol.ts";
import type { Released, ReleaseRequest } from "../forward/release.ts";
import { AgentError } from "../kernel/errors.ts";
import { type Arguments, type Command, sharedOptions, usageError } from "./command.ts";
import { findSockets } from "./find-sockets.ts";

export const topicReleaseCommand: Command = {
  name: "topic release",
  summary:
    "Gives up events of a held topic: dead letter and quarantine, then the rest goes on. For root alone.",
  positionals: ["TOPIC"],
  options: {
    max: { type: "string", value: "N", text: "So many refused events at most; 0 takes back what is left." },
    event: { type: "string", value: "ID", text: "This event, which status names." },
    json: sharedOptions.json,
    "env-file": sharedOptions.envFile,
  },
  more: () =>
    [
      "A topic is held when many of its events are refused, because that is a wrong setting mostly. Where the events",
      "themselves are wrong, this lets so many of them go to dead letters and quarantine; QUARANTINE_MAX still bounds",
      "the quarantine. Then the rule counts anew. What is released is forgotten when the agent ends.",
    ].join("\n"),
  run: async (args, output) => {
    const request = requestOf(args);
    const question = { command: "topic release", args: { ...request } };
    const released = await askIfRunning(findSockets(args).admin, question, isReleased);
    if (released === null)
      throw new AgentError("AGENT_NOT_RUNNING", "only the running agent can release events");
    if (args.flag("json")) {
      output.out(`${JSON.stringify({ schema: "magento-edge-agent/topic-release/1", ...released })}\n`);
    } else output.out(textOf(released));
    return 0;
  },
};

function requestOf(args: Arguments): ReleaseRequest {
  const [topic] = args.positionals;
  if (topic === undefined) throw usageError("which topic? status names those on hold", "topic release");
  const max = args.text("max");
  const eventId = args.text("event");
  if ((max === null) === (eventId === null)) throw usageError("say --max=N or --event=ID", "topic release");
  if (eventId !== null) return { topic, what: { eventId } };
  if (!/^\d{1,9}$/.test(max ?? "")) throw usageError(`--max=${max} is no number of events`, "topic release");
  return { topic, what: { max: Number(max) } };
}

/** What came over the socket. Throws USAGE. */
export function releaseArguments(args: ControlArguments): ReleaseRequest {
  const topic = textArgument(args, "topic");
  const { what } = args;
  if (typeof what === "object" && what !== null) {
    if ("eventId" in what && typeof what.eventId === "string")
      return { topic, what: { eventId: what.eventId } };
    if ("max" in what && typeof what.max === "number" && Number.isSafeInteger(what.max) && what.max >= 0)
      return { topic, what: { max: what.max } };
  }
  throw new AgentError("USAGE", "what is released is neither a number of events nor an event");
}

function textOf({ topic, events, eventId, room }: Released): string {
  if (eventId !== null) return `${topic}: event ${eventId} is given up when it is not taken once more\n`;
  if (events === 0) return `${topic}: nothing is released any more\n`;
  const line = `${topic}: up to ${events} refused events are given up; quarantine ls names them\n`;
  if (room >= events) return line;
  return `${line}quarantine has room for ${room} only: then the topic is held for QUARANTINE_FULL (raise QUARANTINE_MAX, or drop some)\n`;
}

function isReleased(value: unknown): value is Released {
  return (
    typeof value === "object" &&
    value !== null &&
    "topic" in value &&
    "events" in value &&
    "eventId" in value &&
    "room" in value
  );
}
